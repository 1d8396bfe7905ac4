"""Batches give every session what the policy alone would, from a memory of its own, without compiling anything once started."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from serving_examples import CHUNKS, DONE, FLOW, GRU, MLP, SEEN, Draws, Sum

from polyact.acting.streams import ACTOR, memory_key, step_key
from polyact.errors import PolyactError
from polyact.policies.base import ChunkPolicy, Policy
from polyact.policies.chunk_executor import RecedingHorizon
from polyact.policies.generative.guidance import continuing, continuing_weights
from polyact.serving.engine import Engine, Row, batch_sizes
from polyact.spaces import Dict

RNG = np.random.default_rng(0)
SEEINGS = RNG.normal(size=(8, 3)).astype(np.float32)


def engine(policy, sizes=(1, 4), sessions=4):
    made = Engine(policy, SEEN, DONE, sizes=sizes, sessions=sessions)
    made.compile()
    return made


@pytest.fixture(scope="module")
def flow():
    return engine(FLOW)


def alone(policy, observations, seed=0, episode=0):
    """The policy by itself over an episode, with the randomness of `rollout`."""
    key = jax.random.fold_in(jax.random.key(seed), episode)
    memory, found = policy.start(memory_key(key)), []
    for tick, observation in enumerate(observations):
        now = step_key(key, ACTOR, tick)
        if isinstance(policy, ChunkPolicy):
            action, memory = eqx.filter_jit(policy.chunk)(observation, memory, now)
        else:
            action, memory = eqx.filter_jit(policy.act)(observation, memory, now)
            action = action[None]
        found.append(np.asarray(action))
    return found


@pytest.mark.parametrize("policy", [MLP, GRU, CHUNKS, FLOW, Sum(), Draws()], ids=lambda policy: type(policy).__name__)
def test_sessions_side_by_side_get_what_the_policy_alone_gives(policy, flow):
    made = flow if policy is FLOW else engine(policy)
    expected = [alone(policy, SEEINGS[slot : slot + 3], seed=slot, episode=slot) for slot in range(3)]
    for tick in range(3):
        chunks = made.run([Row(slot, tick == 0, slot, slot, tick, [SEEINGS[slot + tick]]) for slot in (2, 0, 1)])
        for chunk, slot in zip(chunks, (2, 0, 1), strict=True):
            np.testing.assert_allclose(chunk, expected[slot][tick], atol=1e-5)


def test_a_batch_of_any_size_is_padded_and_padding_touches_nobody():
    made = engine(Sum())
    for size in (1, 2, 3, 4):
        for tick in (0, 1):
            chunks = made.run([Row(slot, tick == 0, 0, 0, tick, [np.full(3, slot + 1, "f4")]) for slot in range(size)])
            np.testing.assert_array_equal(chunks[:, 0, 0], (tick + 1) * np.arange(1, size + 1))


def test_an_episode_starts_with_a_memory_of_its_own():
    made = engine(Sum())
    ones = [np.ones(3, "f4")]
    assert made.run([Row(0, True, 0, 0, 0, ones)])[0, 0, 0] == 1
    assert made.run([Row(0, False, 0, 0, 1, ones)])[0, 0, 0] == 2
    assert made.run([Row(0, True, 0, 1, 0, ones)])[0, 0, 0] == 1


def test_nothing_is_compiled_after_the_start(flow):
    made, compiled = flow, []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    try:
        jax.jit(lambda x: x * 3.25)(1.0)
        assert compiled, "the counter counts nothing"
        compiled.clear()
        for size in (1, 2, 3, 4, 1):
            rows = [
                Row(slot, True, slot, 0, 0, [SEEINGS[slot]], np.zeros((2, 2), "f4") if size == 3 else None, 1)
                for slot in range(size)
            ]
            made.run(rows)
        assert compiled == []
    finally:
        jax.monitoring.clear_event_listeners()


def test_of_a_receding_horizon_the_planner_is_served():
    made = engine(RecedingHorizon(CHUNKS, 2), sizes=(1,))
    assert (made.horizon, made.execute) == (4, 2)
    assert made.run([Row(0, True, 0, 0, 0, [SEEINGS[0]])]).shape == (1, 4, 2)


def test_a_policy_that_is_not_guided_starts_with_what_will_have_been_done():
    made = engine(CHUNKS, sizes=(1,))
    before = np.full((3, 2), 0.7, "f4")
    plain = made.run([Row(0, True, 0, 0, 0, [SEEINGS[0]])])[0]
    chunk = made.run([Row(0, True, 0, 0, 0, [SEEINGS[0]], before, 2)])[0]
    np.testing.assert_array_equal(chunk[:2], before[:2])
    np.testing.assert_array_equal(chunk[2:], plain[2:])


def test_a_guided_chunk_continues_the_previous_one_and_others_in_its_batch_are_left_alone(flow):
    rows = [Row(slot, True, slot, 0, 0, [SEEINGS[slot]]) for slot in range(2)]
    free = flow.run(rows)
    before = np.clip(free[1][:4] + 0.5, -2, 2)
    guided = flow.run([rows[0], Row(1, True, 1, 0, 0, [SEEINGS[1]], before, 3)])
    np.testing.assert_allclose(guided[0], free[0], atol=1e-5)
    np.testing.assert_allclose(guided[1], continued(SEEINGS[1], before, 3, seed=1), atol=1e-4)


@eqx.filter_jit
def continued(observation, before, delay, seed):
    """What real-time chunking by hand makes of an episode's first observation."""
    key = jax.random.fold_in(jax.random.key(seed), 0)
    condition = FLOW.condition(FLOW.observe(observation, FLOW.start(key)))
    left = jnp.asarray(len(before))
    previous = jnp.zeros((FLOW.horizon, 2)).at[: len(before)].set(before)
    weights = continuing_weights(FLOW.horizon, jnp.asarray(delay), left)
    change = continuing(FLOW, condition, jax.vmap(FLOW.body.to_unit)(previous), weights)
    return jax.vmap(FLOW.body.to_env)(FLOW.generate(condition, step_key(key, ACTOR, 0), change=change))


class Grows(Policy):
    def start(self, key):
        return jnp.zeros(1)

    def act(self, observation, memory, key):
        return observation[:2], jnp.zeros(2)


def test_what_can_not_be_served_is_refused():
    with pytest.raises(PolyactError, match="memory changes its shape"):
        engine(Grows())
    with pytest.raises(PolyactError, match="no one array"):
        Engine(Sum(), SEEN, Dict({"a": DONE}), sizes=(1,), sessions=1)
    with pytest.raises(PolyactError, match="at least one request"):
        batch_sizes(0)
    assert batch_sizes(1) == (1,)
    assert batch_sizes(32) == (1, 2, 4, 8, 16, 32)
    assert batch_sizes(12) == (1, 2, 4, 8, 12)
