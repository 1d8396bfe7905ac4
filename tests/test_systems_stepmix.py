"""StepMix against exact values: mixtures that are linear, limits of its rules, and bounds that hold as often as they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.envs import exact
from polyact.envs.tabular_builders import garnet
from polyact.systems.online.stepmix import (
    Beliefs,
    Bonus,
    Plan,
    bound,
    eps_mix,
    explore,
    greedy,
    optimistic,
    pessimistic_baseline,
    plan,
    safe_share,
    saving_up,
    step_mix,
    true_value,
    unit_rewards,
)

WORLD = unit_rewards(garnet(4, 2, 3, 2))
HORIZON = 4
VALUES, BEST = exact.solve_finite(WORLD, HORIZON)
OPTIMAL = float(exact.model(WORLD).initial @ VALUES[0])
SAFE = jnp.asarray(0.5 * BEST + 0.25, jnp.float32)
NONE, SOME = Bonus(0.0, 0.0, 0.0), Bonus(0.0, 0.0, 0.05)
TRUTH = Beliefs(WORLD.reward, jnp.broadcast_to(WORLD.transition, (HORIZON, 4, 2, 4)), jnp.ones((HORIZON, 4, 2)), 1.0)


def a_plan(lower: list[float]) -> Plan:
    """Candidates that play action 0 with probability h / 10, and bounds as given."""
    shares = jnp.arange(len(lower)) / 10
    each = jnp.stack([shares, 1 - shares], -1)
    return Plan(jnp.broadcast_to(each[:, None, None], (len(lower), len(lower) - 1, 3, 2)), jnp.asarray(lower))


def test_true_values_are_the_exact_ones():
    assert float(true_value(WORLD, SAFE)) == pytest.approx(
        exact.model(WORLD).initial @ exact.evaluate_finite(WORLD, np.asarray(SAFE), HORIZON)[0], rel=1e-5
    )
    assert float(true_value(WORLD, jnp.asarray(BEST, jnp.float32))) == pytest.approx(OPTIMAL, rel=1e-5)


def test_the_value_of_a_mixture_in_one_step_is_linear_in_its_share():
    candidates = plan(TRUTH, SAFE, WORLD.initial, NONE, NONE).candidates
    for rho in (0.0, 0.3, 1.0):
        mixed = rho * candidates[2] + (1 - rho) * candidates[1]
        ends = [float(true_value(WORLD, candidates[h])) for h in (2, 1)]
        assert float(true_value(WORLD, mixed)) == pytest.approx(rho * ends[0] + (1 - rho) * ends[1], rel=1e-5)


def test_candidates_follow_the_safe_policy_first():
    found = plan(TRUTH, SAFE, WORLD.initial, NONE, NONE)
    np.testing.assert_allclose(found.candidates[0], BEST)
    np.testing.assert_allclose(found.candidates[-1], SAFE)
    np.testing.assert_allclose(found.candidates[2][:2], SAFE[:2])
    np.testing.assert_allclose(found.candidates[2][2:], BEST[2:])
    np.testing.assert_allclose(found.lower, [true_value(WORLD, policy) for policy in found.candidates], rtol=1e-5)


def test_with_the_truth_known_the_optimal_policy_is_played():
    play = step_mix(plan(TRUTH, SAFE, WORLD.initial, NONE, NONE), jnp.asarray(OPTIMAL - 1e-5), jnp.zeros(()))
    np.testing.assert_allclose(play.one, BEST)
    assert float(eps_mix(plan(TRUTH, SAFE, WORLD.initial, NONE, NONE), jnp.asarray(OPTIMAL - 1e-5), jnp.zeros(())).share) == 0


def test_without_a_floor_it_is_optimistic_value_iteration():
    runs = [
        explore(WORLD, SAFE, rule, jax.random.key(0), floor=jnp.asarray(-1.0), episodes=30, optimism=SOME, caution=SOME).values
        for rule in (step_mix, optimistic)
    ]
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-6)


def test_the_last_crossing_counts_though_bounds_are_not_monotone():
    play = step_mix(a_plan([0.0, 2.0, 0.0, 0.5, 1.5]), jnp.asarray(1.0), jnp.zeros(()))
    assert float(play.one[0, 0, 0]) == pytest.approx(0.5 * 0.3 + 0.5 * 0.4)
    bold = step_mix(a_plan([1.2, 0.0, 0.0, 0.5, 1.5]), jnp.asarray(1.0), jnp.zeros(()))
    assert float(bold.one[0, 0, 0]) == 0
    nothing = step_mix(a_plan([0.0, 0.5, 0.6, 0.5, 0.8]), jnp.asarray(1.0), jnp.zeros(()))
    assert float(nothing.one[0, 0, 0]) == pytest.approx(0.4)


def test_shares_meet_the_floor():
    assert float(safe_share(jnp.asarray(2.0), jnp.asarray(1.0), jnp.asarray(1.25))) == pytest.approx(0.25)
    play = eps_mix(a_plan([0.0, 0.5, 0.6, 0.5, 2.0]), jnp.asarray(1.0), jnp.zeros(()))
    assert float(play.share) == pytest.approx(0.5)
    assert float(eps_mix(a_plan([0.0, 0.5, 0.6, 0.5, 0.9]), jnp.asarray(1.0), jnp.zeros(())).share) == 1
    saved = [saving_up(a_plan([0.5, 0.5, 0.6, 0.5, 0.9]), jnp.asarray(1.0), jnp.asarray(spare)) for spare in (0.4, 0.6)]
    assert [float(play.one[0, 0, 0]) for play in saved] == pytest.approx([0.4, 0.0])


def test_bounds_hold_at_least_as_often_as_they_say():
    """100 drawn tables of counts; Bernstein's intervals with delta 0.1, of one policy and of the optimum."""
    initial, safe = WORLD.initial, true_value(WORLD, SAFE)
    bonus = Bonus(np.sqrt(2.0), 7 / 3, 0.0)
    log_term = float(np.log(HORIZON * 8 * 4 / 0.1))

    @jax.jit
    def sound(key):
        visits = jax.random.randint(jax.random.fold_in(key, 1), (HORIZON, 4, 2), 2, 60)
        counts = jax.random.multinomial(key, visits.astype(float), jnp.broadcast_to(WORLD.transition, (HORIZON, 4, 2, 4)))
        beliefs = Beliefs.counted(counts, WORLD.reward, log_term)
        low, high = (initial @ bound(beliefs, SAFE, bonus, sign) for sign in (-1.0, 1.0))
        return (low <= safe + 1e-5) & (high >= safe - 1e-5) & (initial @ greedy(beliefs, bonus, 1.0)[1] >= OPTIMAL - 1e-5)

    assert np.mean([bool(sound(jax.random.key(seed))) for seed in range(100)]) >= 0.9


def test_no_episode_earns_less_than_the_floor():
    floor = jnp.asarray(true_value(WORLD, SAFE) - 0.05)
    for rule in (step_mix, eps_mix):
        found = explore(
            WORLD, SAFE, rule, jax.random.key(1), floor=floor, episodes=200, optimism=SOME, caution=Bonus(0.0, 0.0, 0.1)
        )
        assert float(found.values.min()) >= float(floor) - 1e-5
    assert float(found.counts.sum()) == 200 * HORIZON
    np.testing.assert_array_equal(found.counts.sum((1, 2, 3)), 200)


def test_a_baseline_from_logged_episodes():
    counts = 500 * jnp.broadcast_to(WORLD.transition, (HORIZON, 4, 2, 4))
    policy, lower = pessimistic_baseline(counts.at[:, :, 1].set(0.0), WORLD.reward, WORLD.initial, SOME)
    np.testing.assert_array_equal(policy[:-1, :, 0], 1.0)
    assert 0 < float(lower) <= float(true_value(WORLD, policy))
