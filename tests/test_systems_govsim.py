"""GovSim: its measures in closed form, and that every arm is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.envs.commons import Trace
from polyact.learning.commons_players import scripted
from polyact.systems.agents.govsim import EXPERIMENT, measure, measures

KEY = jax.random.key(0)
SIZES = EXPERIMENT.scales["smoke"].sizes


def steady(each, played, rounds=12):
    """A trace in which agents take fixed amounts [n] for so many rounds."""
    alive = jnp.arange(rounds) < played
    taken = jnp.broadcast_to(jnp.asarray(each, jnp.float32), (rounds, len(each)))
    return Trace(jnp.full(rounds, 100.0), alive, alive & (jnp.arange(rounds) < played - 1), taken, taken, jnp.full(rounds, 10.0))


def test_a_perfect_team_is_efficient_and_equal():
    found = measures(steady([10.0] * 5, 12), 10.0)
    assert [float(found[name]) for name in ("survival", "efficiency", "equality", "over_usage", "gain")] == [12, 1, 1, 0, 120]


def test_efficiency_counts_all_rounds_and_not_those_played():
    found = measures(steady([20.0] * 5, 1), 10.0)
    assert float(found["survival"]) == 1
    assert float(found["efficiency"]) == pytest.approx(100 / 600)
    assert float(found["over_usage"]) == 1


def test_equality_is_one_minus_the_gini_index():
    found = measures(steady([30.0, 0.0, 0.0], 2), 10.0)
    assert float(found["equality"]) == pytest.approx(1 - 2 / 3)
    assert found["over_usage_of"].tolist() == [1, 0, 0]


def test_every_arm_is_measured():
    members = scripted("random"), scripted("greedy")
    for name, arm in EXPERIMENT.arms.items():
        found = measure(KEY, arm.settings, SIZES, members)
        assert all(np.isfinite(list(found.values()))), name
    assert measure(KEY, EXPERIMENT.arms["greedy"].settings, SIZES, members)["survival"] == 1


def test_the_paper_scale_says_what_it_needs(monkeypatch):
    monkeypatch.delenv("POLYACT_ENDPOINT", raising=False)
    assert "POLYACT_ENDPOINT" in EXPERIMENT.scales["paper"].missing()
