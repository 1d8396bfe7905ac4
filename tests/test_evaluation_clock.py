"""A measured latency is in the report: what was measured of every policy is what it was played with."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.envs.pendulum import Pendulum
from polyact.evaluation.evaluate import Clock, evaluate, measured, play, report_of
from polyact.evaluation.report.report import Report
from polyact.policies.base import Policy
from polyact.policies.random_policy import RandomPolicy

KEY = jax.random.key(3)
ENV = Pendulum(horizon=10)
RANDOM = RandomPolicy(ENV.action_space)
COLUMNS = ("policy", "median (ms)", "95% (ms)", "maximum (ms)")


class Slow(Policy):
    """Computes for at least 3 ms when it is asked from the host."""

    def start(self, key):
        return None

    def act(self, observation, memory, key):
        wait = jax.ShapeDtypeStruct((1,), jnp.float32)
        return jax.pure_callback(_idle, wait, observation, vmap_method="expand_dims"), memory


def _idle(observation):
    time.sleep(0.003)
    return np.zeros((*observation.shape[:-1], 1), np.float32)


def table(report: Report):
    return report.section("Timing").tables[1]


def test_quantiles_are_those_of_all_runs_of_a_policy():
    samples = np.arange(1, 101) / 1000
    clock = Clock(20, {"one": [samples], "two": [samples, samples + 0.1]})
    played = play({"one": RANDOM, "two": [RANDOM, RANDOM]}, ENV, episodes=2, key=KEY, clock=clock)
    found = table(report_of(played, clock=clock))
    assert found.columns == COLUMNS
    both = 1000 * np.concatenate([samples, samples + 0.1])
    assert found.rows == (
        ("one", *(pytest.approx(np.quantile(1000 * samples, q)) for q in (0.5, 0.95, 1))),
        ("two", *(pytest.approx(np.quantile(both, q)) for q in (0.5, 0.95, 1))),
    )


def test_every_run_is_played_with_its_own_samples():
    late, soon = np.array([0.2]), np.array([0.0])
    clock = Clock(20, {"policy": [late, soon]})
    first, second = play({"policy": [RANDOM, RANDOM]}, ENV, episodes=2, key=KEY, clock=clock)["policy"]
    assert np.asarray(first.info["late"]).reshape(2, 10)[:, :4].all()
    assert not np.asarray(second.info["late"]).any()


def test_what_is_measured_stands_in_the_table_the_json_and_the_page(tmp_path):
    report = evaluate({"slow": Slow(), "quick": RANDOM}, ENV, episodes=2, key=KEY, clock=Clock(20, "measured"))
    (slow, *times), (quick, *_) = table(report).rows
    assert (slow, quick) == ("slow", "quick")
    assert 3 <= times[0] <= times[1] <= times[2]
    assert table(Report.from_json(report.to_json())) == table(report)
    page = report.to_html(tmp_path / "page.html").read_text()
    for word in ("Measured latency", *COLUMNS):
        assert word in page
        assert word in str(report)
    assert "latency measured" in dict(report.facts)["world"]


def test_a_measured_clock_acts_as_one_computer_unless_told_otherwise():
    clock = measured(Clock(20, "measured"), RANDOM, ENV)
    assert clock is not None
    assert clock.in_flight == 1
    assert len(clock.options("policy", 0)["latency"]) == 200
    for given in (None, Clock(20, 0.1), Clock(20, np.array([0.1]))):
        assert measured(given, RANDOM, ENV) is given


def test_a_stated_latency_has_no_table_of_measurements():
    report = evaluate(RANDOM, ENV, episodes=2, key=KEY, clock=Clock(20, 0.1))
    assert len(report.section("Timing").tables) == 1
