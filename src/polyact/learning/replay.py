"""A replay buffer that lives on the device: a ring of the last steps, written in place inside the compiled loop.

Every step keeps the observation it reached, so that nothing is lost where an episode ends and N environments can share the ring.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from polyact.data.sampling import Batch, NStep, Sampling, Transitions
from polyact.errors import PolyactError

COLUMNS = ("observation", "action", "reward", "cost")


class Rows(eqx.Module):
    """One step of each of N environments, [N, ...]. terminated, ended (terminated or truncated): as floats. cost: None when unknown."""

    observation: Any
    action: Any
    reward: Array
    next_observation: Any
    terminated: Array
    ended: Array
    cost: Array | None = None


class Replay(eqx.Module):
    """A ring of `capacity` steps of N environments; row (t * N + n) mod capacity is step t of environment n.

    rows: columns [capacity, ...]; added: steps ever added.
    """

    rows: Rows
    added: Int[Array, ""]
    envs: int = eqx.field(static=True)

    @classmethod
    def empty(cls, example: Rows, capacity: int) -> "Replay":
        """A buffer for rows shaped like `example` (arrays or their shapes) with at least `capacity` steps, in whole multiples of N."""
        envs = example.reward.shape[0]
        size = -(-capacity // envs) * envs
        rows = jax.tree.map(lambda leaf: jnp.zeros((size, *leaf.shape[1:]), leaf.dtype), example)
        return cls(rows, jnp.zeros((), jnp.int32), envs)

    @property
    def capacity(self) -> int:
        return self.rows.reward.shape[0]

    @property
    def filled(self) -> Int[Array, ""]:
        """Steps that can be drawn."""
        return jnp.minimum(self.added, self.capacity)

    def add(self, rows: Rows) -> "Replay":
        """The buffer with one more step of every environment in place of the oldest."""
        at = self.added % self.capacity
        write = lambda column, new: jax.lax.dynamic_update_slice_in_dim(column, new.astype(column.dtype), at, 0)  # noqa: E731
        return Replay(jax.tree.map(write, self.rows, rows), self.added + self.envs, self.envs)

    def sample(self, sampling: Sampling, batch_size: int, key: PRNGKeyArray) -> Batch:
        """A batch whose steps are drawn uniformly, with replacement."""
        age = jax.random.randint(key, (batch_size,), 0, self.filled)
        oldest = self.added - self.filled
        match sampling:
            case Transitions():
                return self._transitions((oldest + age) % self.capacity)
            case NStep():
                return self._steps(age, oldest, sampling)
        raise unsuitable(sampling)

    def _transitions(self, place: Int[Array, "B"]) -> Batch:
        rows = jax.tree.map(lambda column: column[place], self.rows)
        return Batch(
            observation=rows.observation,
            action=rows.action,
            reward=rows.reward,
            next_observation=rows.next_observation,
            bootstrap=1.0 - rows.terminated,
            cost=rows.cost,
        )

    def _steps(self, age: Int[Array, "B"], oldest: Int[Array, ""], sampling: NStep) -> Batch:
        """n steps of one environment, cut where its episode ended and at the newest step."""
        ages = age[:, None] + self.envs * jnp.arange(sampling.n)
        known = ages < self.filled
        places = (oldest + jnp.where(known, ages, age[:, None])) % self.capacity
        ended = self.rows.ended[places]
        before = jnp.cumsum(ended, axis=1) - ended  # episode ends before each of the n steps
        inside = known & (before == 0)
        ahead = inside.sum(axis=1)
        last = jnp.take_along_axis(places, ahead[:, None] - 1, axis=1)[:, 0]
        first = jax.tree.map(lambda column: column[places[:, 0]], self.rows)
        return Batch(
            observation=first.observation,
            action=first.action,
            reward=(self.rows.reward[places] * inside * sampling.discount ** jnp.arange(sampling.n)).sum(axis=1),
            next_observation=jax.tree.map(lambda column: column[last], self.rows.next_observation),
            bootstrap=sampling.discount ** (ahead - 1) * (1.0 - self.rows.terminated[last]),
            cost=first.cost,
        )


def check_sampling(sampling: Sampling, needs: tuple[str, ...]) -> None:
    """Raise PolyactError when a replay buffer can't draw batches like this, or does not hold a column that is needed."""
    if not isinstance(sampling, Transitions | NStep):
        raise unsuitable(sampling)
    if missing := [name for name in needs if name not in COLUMNS]:
        raise PolyactError(
            f"this learner needs {', '.join(missing)}, which its own experience does not have ({', '.join(COLUMNS)})"
        )


def unsuitable(sampling: Sampling) -> PolyactError:
    return PolyactError(f"a replay buffer gives Transitions or NStep batches, not {type(sampling).__name__}")
