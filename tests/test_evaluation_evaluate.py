"""Evaluation end to end: paired by default, starts counted, latency swept, trajectories drawn."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.replay import states_of
from polyact.acting.rollout import rollout
from polyact.envs.pendulum import Pendulum
from polyact.envs.tabular_builders import chain, combination_lock
from polyact.envs.wrappers import TimeLimit
from polyact.errors import PolyactError
from polyact.evaluation.evaluate import Clock, distinct_starts, evaluate, play
from polyact.evaluation.latency import latency_curves, latency_section
from polyact.evaluation.pictures import paths, trajectory_section
from polyact.evaluation.report.report import Report
from polyact.policies.base import Policy
from polyact.policies.random_policy import RandomPolicy

KEY = jax.random.key(3)
ENV = Pendulum(horizon=20)


class Brake(Policy):
    """Torque against the velocity."""

    gain: jax.Array = eqx.field(converter=jnp.asarray)

    def start(self, key):
        return None

    def act(self, observation, memory, key):
        return jnp.clip(-self.gain * observation[2:], -2, 2), memory


SOFT, HARD = Brake(0.2), Brake(1.5)


@pytest.fixture(scope="module")
def played():
    return play({"soft": SOFT, "hard": HARD}, ENV, episodes=6, key=KEY)


def differences(report: Report):
    """Every 'A minus B' of the report's plots."""
    effects = [e for s in report.sections for p in s.plots for e in getattr(p, "effects", ())]
    return [e.estimate for e in effects if "minus" in e.label]


def test_the_same_policy_twice_differs_by_exactly_nothing():
    report = evaluate({"one": SOFT, "other": Brake(0.2)}, ENV, episodes=6, key=KEY)
    found = differences(report)
    assert found
    assert all((e.value, e.low, e.high) == (0.0, 0.0, 0.0) for e in found)


def test_a_report_prints_as_its_table():
    text = str(evaluate(SOFT, ENV, episodes=6, key=KEY, title="Braking"))
    assert text.startswith("Braking")
    assert "6 initial states" in text
    assert "6 of them are distinct" in " ".join(text.split())


def test_policies_of_several_runs_are_judged_over_runs():
    report = evaluate({"runs": [SOFT, HARD, Brake(0.7)], "one": SOFT}, ENV, episodes=4, key=KEY)
    assert "3 runs × 4 initial states" in str(report)


def test_episodes_are_those_of_rollout(played):
    alone = rollout(HARD, ENV, episodes=6, key=KEY)
    np.testing.assert_array_equal(played["hard"][0].returns, alone.returns)


def test_distinct_starts_counts_states_not_episodes(played):
    assert distinct_starts(played["soft"][0]) == 6
    one_start = chain(horizon=20)
    walks = rollout(RandomPolicy(one_start.action_space), one_start, episodes=5, key=KEY)
    assert distinct_starts(walks) == 1


def test_policies_that_are_none_are_refused():
    for policies in ({}, {"a": []}):
        with pytest.raises(PolyactError, match="at least one policy"):
            evaluate(policies, ENV, episodes=4, key=KEY)


def test_a_clock_adds_what_was_late():
    late = evaluate({"soft": SOFT}, ENV, episodes=4, key=KEY, clock=Clock(20, 0.1))
    (row,) = late.section("Timing").tables[0].rows
    assert row[0] == "soft"
    assert row[1] == pytest.approx(100 * 2 / 20)  # the first two ticks of twenty have no action yet
    assert "20 Hz, latency 100 ms" in dict(late.facts)["world"]


def test_zero_latency_is_the_frozen_score(played):
    curves = latency_curves({"soft": SOFT, "hard": HARD}, ENV, control_hz=20, latencies=[0, 0.1], episodes=6, key=KEY)
    for curve in curves:
        assert curve.x == (0.0, 100.0)
        assert curve.estimates[0].value == pytest.approx(played[curve.label][0].returns.mean(), rel=1e-12)
        assert curve.estimates[0].value != curve.estimates[1].value


def test_a_latency_section_names_its_world():
    options = {"control_hz": 20.0, "fallback": "zero"}
    section = latency_section(latency_curves(SOFT, ENV, latencies=[0, 0.05], episodes=4, key=KEY, **options), **options)
    assert "20 Hz" in section.text
    assert "fallback zero" in section.text
    assert len(section.plots) == 1


@pytest.mark.parametrize("latencies", [[0.1], [0.1, 0.1], [0.2, 0.1]])
def test_latencies_must_rise(latencies):
    with pytest.raises(PolyactError, match="rising latencies"):
        latency_curves(SOFT, ENV, control_hz=20, latencies=latencies, episodes=2, key=KEY)


def test_trajectories_are_drawn_for_every_policy(played):
    section = trajectory_section(played, ENV, KEY, episodes=2)
    assert [picture.title for picture in section.pictures] == [
        "soft: 2 episodes",
        "soft: the first episode",
        "hard: 2 episodes",
        "hard: the first episode",
    ]
    assert [len(path) for path in paths(ENV, played["soft"][0], 2)] == [21, 21]


def test_trajectories_refuse_a_key_they_were_not_played_under(played):
    with pytest.raises(PolyactError, match="not played in this environment under this key"):
        trajectory_section(played, ENV, jax.random.key(4))


def test_the_world_inside_wrappers_is_drawn():
    env = TimeLimit(ENV, 10)
    section = trajectory_section(play(SOFT, env, episodes=2, key=KEY), env, KEY)
    assert len(section.pictures) == 2


def test_replayed_states_are_those_of_the_episode(played):
    states = states_of(ENV, played["hard"][0], 1, KEY)
    assert len(states) == 21
    seen = played["hard"][0].episode(1).observation
    np.testing.assert_allclose([np.cos(state.angle) for state in states], seen[:, 0], atol=1e-4)


def test_a_shorter_episode_has_fewer_states():
    env = combination_lock()
    walks = rollout(RandomPolicy(env.action_space), env, episodes=8, key=KEY)
    assert len(np.unique(walks.lengths)) > 1
    number = int(np.argmin(walks.lengths))
    states = states_of(env, walks, number, KEY)
    np.testing.assert_array_equal(states, walks.episode(number).observation)
