"""Several policies, one of which acts: another one, whose actions are their numbers, says which, and says it again every so many steps.

`Switched` is the policy. `SwitchActions` is the world as the one that chooses sees it: any learner of discrete actions learns to choose.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from polyact import spaces
from polyact.envs.base import Env, State, Step
from polyact.envs.chunk_actions import go_on
from polyact.envs.vector import where
from polyact.envs.wrappers import Wrapper, own_key
from polyact.errors import PolyactError
from polyact.nets.ensemble import stack, take
from polyact.policies.base import Action, Memory, Observation, Policy
from polyact.spaces import Space

CHOICE = 0x51C7  # the stream of keys of the policy that chooses
NOBODY = -1


class Turn(eqx.Module):
    """Who acts. chosen: its number; own: what it remembers; first [K, ...]: what each remembers when it begins anew."""

    chosen: Int[Array, ""]
    own: Memory
    first: Memory

    @classmethod
    def before(cls, members: Policy, key: PRNGKeyArray) -> "Turn":
        """Nobody has acted yet."""
        first = eqx.filter_vmap(lambda member: member.start(key))(members)
        return cls(jnp.asarray(NOBODY), take(first, 0), first)

    def to(self, choice: Int[Array, ""]) -> "Turn":
        """The turn of that one, which begins anew unless it has it already."""
        return Turn(choice, where(choice == self.chosen, self.own, take(self.first, choice)), self.first)


class Switched(Policy):
    """Every `every` steps `chooser` acts, and the member with that number acts until it does so again.

    members: policies of one architecture, stacked: `of` does that. A member that is chosen again goes on; another one begins as at the
    start of an episode.
    """

    members: Policy
    chooser: Policy
    every: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        _positive(self.every)

    @classmethod
    def of(cls, policies: Sequence[Policy], chooser: Policy, every: int = 1) -> "Switched":
        """PolyactError when the policies are not of one architecture."""
        return cls(_stacked(policies), chooser, every)

    def start(self, key: PRNGKeyArray) -> tuple[Array, Turn, Memory]:
        return jnp.zeros((), jnp.int32), Turn.before(self.members, key), self.chooser.start(jax.random.fold_in(key, CHOICE))

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        time, turn, kept = memory
        due = time % self.every == 0
        choice, after = self.chooser.act(observation, kept, jax.random.fold_in(key, CHOICE))
        turn = turn.to(jnp.where(due, choice, turn.chosen))
        action, own = take(self.members, turn.chosen).act(observation, turn.own, key)
        return action, (time + 1, Turn(turn.chosen, own, turn.first), where(due, after, kept))


class SwitchState(eqx.Module):
    inner: State
    observation: Any
    turn: Turn


class SwitchActions(Wrapper):
    """A world played by one of several policies at a time: the action is the number of the one that acts in the next `every` steps.

    Rewards of those steps are summed, undiscounted; info columns are the largest. The horizon counts choices, rounded down.
    """

    env: Env
    members: Policy
    count: int = eqx.field(static=True)
    every: int = eqx.field(static=True)

    @classmethod
    def of(cls, env: Env, policies: Sequence[Policy], every: int) -> "SwitchActions":
        """PolyactError when the policies are not of one architecture, or `every` is longer than an episode."""
        if _positive(every) > env.horizon:
            raise PolyactError(f"there must be a choice within the horizon {env.horizon}, got every={every}")
        return cls(env, _stacked(policies), len(policies), every)

    @property
    def observation_space(self) -> Space:
        return self.env.observation_space

    @property
    def action_space(self) -> Space:
        return spaces.Discrete(self.count)

    @property
    def horizon(self) -> int:
        return self.env.horizon // self.every

    def inner(self, state: State) -> State:
        return state.inner

    def reset(self, key: PRNGKeyArray) -> tuple[State, Observation]:
        inner, observation = self.env.reset(key)
        return SwitchState(inner, observation, Turn.before(self.members, own_key(self, key))), observation

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Step]:
        turn = state.turn.to(jnp.asarray(action))
        member = take(self.members, turn.chosen)

        def play(playing: Any, keys: Any) -> tuple[Any, Step]:
            inner, observation, own = playing
            action, own = member.act(observation, own, keys[0])
            inner, step = self.env.step(inner, action, keys[1])
            return (inner, step.observation, own), step

        keys = jax.random.split(key, (self.every, 2))
        (inner, observation, own), step = go_on(play, play((state.inner, state.observation, turn.own), keys[0]), keys[1:])
        return SwitchState(inner, observation, Turn(turn.chosen, own, turn.first)), step


def _stacked(policies: Sequence[Policy]) -> Any:
    """One module with a leading axis on everything that is a number, Python's own included."""
    return stack(jax.tree.map(lambda x: jnp.asarray(x) if eqx.is_array_like(x) else x, policy) for policy in policies)


def _positive(every: int) -> int:
    if every < 1:
        raise PolyactError(f"there must be at least one step between choices, got every={every}")
    return every
