"""Many environments in step, each starting anew where its episode ended: the inner loop of collection.

The two things that are easily lost are kept: `terminated` and `truncated` stay apart, and the observation an episode ended in is in
the returned `Step`, while the observation to act on next (a reset's, where one was needed) is in the `VectorState`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, UInt32

from polyact.envs.base import Action, Env, Observation, State, Step
from polyact.envs.families import Family
from polyact.errors import PolyactError

Keys = Key[Array, "N"] | UInt32[Array, "N 2"]

_RESET_STREAM = 0x5E7


class VectorState(eqx.Module):
    """N running episodes: environment states and the observations to act on next (leading axis N), and steps taken so far."""

    state: State
    observation: Observation
    elapsed: Int[Array, "N"]


def reset_many(env: Env | Family, keys: Keys) -> VectorState:
    """Start N episodes, one for each key; episode i is `env.reset(keys[i])` (of member i, when `env` is a family)."""
    _check_count(env, keys)
    state, observation = jax.vmap(_reset, (_axis(env), 0))(_single(env), keys)
    return VectorState(state, observation, jnp.zeros(keys.shape[0], jnp.int32))


def step_many(env: Env | Family, vector: VectorState, actions: Action, keys: Keys) -> tuple[VectorState, Step]:
    """One step of all N environments; where an episode ended, the next one has begun in the returned state.

    Episode i takes `env.step(state, actions[i], keys[i])`, so its noise is that of a plain loop over the same keys; the reset draws
    from a stream of its own. In the returned Step (leading axis N) `observation` is the one reached by this step, never a reset's,
    and `truncated` also marks episodes that have reached `env.horizon`; an episode that terminated is not truncated.
    """
    _check_count(env, keys)
    single, axis = _single(env), _axis(env)
    state, step = jax.vmap(_step, (axis, 0, 0, 0))(single, vector.state, actions, keys)
    elapsed = vector.elapsed + 1
    truncated = (step.truncated | (elapsed >= env.horizon)) & ~step.terminated
    step = Step(step.observation, step.reward, step.terminated, truncated, step.info)
    ended = step.terminated | truncated

    def begin_anew(reached: tuple[State, Observation]) -> tuple[State, Observation]:
        fresh_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, _RESET_STREAM)
        return where(ended, jax.vmap(_reset, (axis, 0))(single, fresh_keys), reached)

    # Most steps end no episode; skipping the reset then saves its random numbers, which often cost more than the physics.
    state, observation = jax.lax.cond(jnp.any(ended), begin_anew, lambda reached: reached, (state, step.observation))
    return VectorState(state, observation, jnp.where(ended, 0, elapsed)), step


def where(condition: Array, yes: State, no: State) -> State:
    """Leaf by leaf, the rows of `yes` where `condition` [N] holds and the rows of `no` elsewhere."""

    def pick(one: Array, other: Array) -> Array:
        return jnp.where(condition.reshape(condition.shape + (1,) * (jnp.ndim(one) - condition.ndim)), one, other)

    return jax.tree.map(pick, yes, no)


def _reset(env: Env, key: Array) -> tuple[State, Observation]:
    return env.reset(key)


def _step(env: Env, state: State, action: Action, key: Array) -> tuple[State, Step]:
    return env.step(state, action, key)


def _single(env: Env | Family) -> Env:
    return env.members if isinstance(env, Family) else env


def _axis(env: Env | Family) -> int | None:
    return 0 if isinstance(env, Family) else None


def _check_count(env: Env | Family, keys: Array) -> None:
    if isinstance(env, Family) and env.count != keys.shape[0]:
        raise PolyactError(
            f"a family of {env.count} environments needs {env.count} keys, got {keys.shape[0]}; family.spread(n) runs n episodes"
        )
