"""Several seeds at once: a thread per core over one compiled program on a CPU, one batched program on a GPU or TPU."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

Carry = PyTree


class Occurrences(eqx.Module):
    """A metric that a step may have several values of, or none: their sum, and how many (an episode's return, say)."""

    total: Array
    count: Array


class Summary(eqx.Module):
    """What an interval reports: sum of every metric, the step at which it first was not finite (-1: never), values counted."""

    sums: dict[str, Array]
    broken: dict[str, Int[Array, "*seeds"]]
    counts: dict[str, Array]


Driver = Callable[[Carry, int, int], tuple[Carry, Summary]]


def empty_summary(metrics: dict[str, Any]) -> Summary:
    """A summary of nothing for metrics of these names."""
    never, zero = jnp.full((), -1, jnp.int32), jnp.zeros((), jnp.float32)
    return Summary(dict.fromkeys(metrics, zero), dict.fromkeys(metrics, never), dict.fromkeys(metrics, zero))


def accumulate(summary: Summary, metrics: dict[str, Array | Occurrences], step: Any) -> Summary:
    """The summary with one more step's metrics."""
    values = {
        name: value if isinstance(value, Occurrences) else Occurrences(value, jnp.ones(())) for name, value in metrics.items()
    }
    broken = {
        name: jnp.where((summary.broken[name] < 0) & ~jnp.isfinite(value.total), jnp.asarray(step, jnp.int32), summary.broken[name])
        for name, value in values.items()
    }
    sums = {name: summary.sums[name] + value.total for name, value in values.items()}
    return Summary(sums, broken, {name: summary.counts[name] + value.count for name, value in values.items()})


class Fleet(ABC):
    """The training states of all seeds. `back` undoes the last `advance`."""

    @abstractmethod
    def advance(self, first: int, count: int) -> list[Summary]:
        """Carry every seed over steps first .. first + count - 1; one summary per seed."""

    @abstractmethod
    def back(self) -> None:
        """Return to the states before the last `advance`."""

    @abstractmethod
    def states(self) -> list[Carry]:
        """The state of every seed."""


class ThreadFleet(Fleet):
    """One driver per seed, as many at work as there are cores."""

    def __init__(self, drivers: Sequence[Driver], states: list[Carry]):
        self.drivers, self.current, self.previous = drivers, states, states
        self.workers = min(len(drivers), cpu_count() or 1)

    def advance(self, first: int, count: int) -> list[Summary]:
        def go(driver: Driver, state: Carry) -> tuple[Carry, Summary]:
            return jax.block_until_ready(driver(state, first, count))

        self.previous = self.current
        with ThreadPoolExecutor(self.workers) as pool:
            results = list(pool.map(go, self.drivers, self.current))
        self.current = [state for state, _ in results]
        return [summary for _, summary in results]

    def back(self) -> None:
        self.current = self.previous

    def states(self) -> list[Carry]:
        return self.current


class BatchFleet(Fleet):
    """All seeds in one batched program: every array of the state has a leading axis of seeds."""

    def __init__(self, driver: Driver, states: list[Carry]):
        self.driver, self.seeds = driver, len(states)
        self.current = jax.tree.map(lambda *a: jnp.stack(a) if eqx.is_array(a[0]) else a[0], *states)
        self.previous = self.current

    def advance(self, first: int, count: int) -> list[Summary]:
        self.previous = self.current
        self.current, summary = jax.block_until_ready(self.driver(self.current, first, count))
        return unstack(summary, self.seeds)

    def back(self) -> None:
        self.current = self.previous

    def states(self) -> list[Carry]:
        return unstack(self.current, self.seeds)


def one_program_each(seeds: int) -> bool:
    """Whether seeds run best as one program each (CPU, or a single seed) rather than as one batched program (GPU, TPU)."""
    return jax.default_backend() == "cpu" or seeds == 1


def unstack(value: PyTree, seeds: int) -> list[PyTree]:
    """A batched value as one per seed."""
    return [jax.tree.map(lambda a, i=i: a[i] if eqx.is_array(a) else a, value) for i in range(seeds)]
