"""Batches from a table of experience, drawn inside the compiled program.

A draw has two halves. `rows` picks row numbers from small index arrays under a key and always runs compiled. `gather` reads the
columns at those rows by plain indexing, so it runs compiled on device arrays and equally on memory maps on the host: data larger
than the device gives exactly the same batches (the sums of `NStep` to rounding).
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from polyact.data.table import Columns, Index, Table
from polyact.errors import PolyactError

Rows = dict[str, Any]


class Batch(eqx.Module):
    """What a learner is given. B rows; fields that the data or the sampling does not have are None.

    observation [B, ...] (windows: [B, H, ...]; with history: [B, K, ...]); action [B, ...] (chunks and windows: [B, H, ...]); reward
    [B] (n steps: summed and discounted; windows: [B, H]); next_observation like observation; bootstrap [B]: the factor, besides one
    `discount`, on the value of next_observation in a TD target (0 after termination, discount^(n-1) for n steps); mask [B, H]: which
    entries of a chunk or window are real; source [B]: number of the source; time [B] or [B, H]: steps since the episode's start.
    """

    observation: Any = None
    action: Any = None
    reward: Any = None
    next_observation: Any = None
    bootstrap: Any = None
    mask: Any = None
    goal: Any = None
    cost: Any = None
    return_to_go: Any = None
    log_prob: Any = None
    source: Any = None
    time: Any = None


class Sampling(eqx.Module):
    """How a batch is cut out of episodes. Final classes are values: hyperparameters only, no data."""

    @abstractmethod
    def eligible(self, index: Index) -> np.ndarray:
        """Which steps a draw may start from [N], as a boolean host array."""

    @abstractmethod
    def rows(self, index: Index, steps: Int[Array, "B"], key: PRNGKeyArray) -> Rows:
        """Row numbers of everything `gather` reads, for draws that start at `steps`."""

    @abstractmethod
    def gather(self, columns: Columns, rows: Rows) -> Batch:
        """Read the rows. Must use only indexing and arithmetic that NumPy and JAX arrays share."""


class Transitions(Sampling):
    """Single transitions: what temporal-difference learners use."""

    def eligible(self, index: Index) -> np.ndarray:
        return np.asarray(_within(index, index.successors))

    def rows(self, index: Index, steps: Int[Array, "B"], key: PRNGKeyArray) -> Rows:
        return _places(index, steps)

    def gather(self, columns: Columns, rows: Rows) -> Batch:
        return Batch(
            next_observation=columns.read("observation", rows["observation"] + 1),
            bootstrap=1.0 - columns.read("terminated", rows["step"]),
            **_common(columns, rows),
        )


class Steps(Sampling):
    """Single steps without their successors: enough for cloning, and usable where no next observation was recorded."""

    def eligible(self, index: Index) -> np.ndarray:
        return np.ones(index.steps, bool)

    def rows(self, index: Index, steps: Int[Array, "B"], key: PRNGKeyArray) -> Rows:
        return _places(index, steps)

    def gather(self, columns: Columns, rows: Rows) -> Batch:
        return Batch(**_common(columns, rows))


class NStep(Sampling):
    """Transitions over n steps, cut at the end of the episode; rewards are summed under `discount`."""

    n: int = eqx.field(static=True)
    discount: float = 0.99

    def __check_init__(self):
        if self.n < 1:
            raise PolyactError(f"NStep needs n >= 1, got {self.n}")

    def eligible(self, index: Index) -> np.ndarray:
        return np.asarray(_within(index, index.successors))

    def rows(self, index: Index, steps: Int[Array, "B"], key: PRNGKeyArray) -> Rows:
        places = _places(index, steps)
        left = index.successors[places["episode"]] - places["time"]
        ahead, offsets = jnp.minimum(left, self.n), jnp.arange(self.n)
        inside = offsets < ahead[:, None]
        factor, bootstrap = self.discount**offsets * inside, self.discount ** (ahead - 1.0)
        return places | {"ahead": ahead, "window": steps[:, None] + offsets * inside, "factor": factor, "bootstrap": bootstrap}

    def gather(self, columns: Columns, rows: Rows) -> Batch:
        ahead = rows["ahead"]
        common = _common(columns, rows)
        common["reward"] = (columns.read("reward", rows["window"]) * rows["factor"]).sum(1)
        last = rows["step"] + ahead - 1
        return Batch(
            next_observation=columns.read("observation", rows["observation"] + ahead),
            bootstrap=rows["bootstrap"] * (1.0 - columns.read("terminated", last)),
            **common,
        )


class Chunks(Sampling):
    """Action chunks of `horizon` steps with `history` observations, for policies that plan several actions at once.

    Beyond the end of an episode the last action is repeated and `mask` is False; before its start the first observation is repeated.
    With history 1 the observation has no history axis.
    """

    horizon: int = eqx.field(static=True)
    history: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.horizon < 1 or self.history < 1:
            raise PolyactError(f"Chunks needs horizon and history >= 1, got {self.horizon} and {self.history}")

    def eligible(self, index: Index) -> np.ndarray:
        return np.ones(index.steps, bool)

    def rows(self, index: Index, steps: Int[Array, "B"], key: PRNGKeyArray) -> Rows:
        places = _places(index, steps)
        ahead = jnp.arange(self.horizon)
        left = (index.lengths[places["episode"]] - 1 - places["time"])[:, None]
        back = jnp.arange(self.history - 1, -1, -1)
        return places | {
            "chunk": steps[:, None] + jnp.minimum(ahead, left),
            "mask": ahead <= left,
            "past": places["observation"][:, None] - jnp.minimum(back, places["time"][:, None]),
        }

    def gather(self, columns: Columns, rows: Rows) -> Batch:
        past = rows["past"] if self.history > 1 else rows["observation"]
        common = _common(columns, rows)
        common |= {"observation": columns.read("observation", past), "action": columns.read("action", rows["chunk"])}
        return Batch(mask=rows["mask"], **common)


class Windows(Sampling):
    """Sub-trajectories of `length` steps for sequence models: every step column [B, H], padded at the end where `mask` is False.

    `start`: "any" step may begin a window, or "episode": only the first step of an episode does.
    """

    length: int = eqx.field(static=True)
    start: str = eqx.field(static=True, default="any")

    def __check_init__(self):
        if self.length < 1 or self.start not in ("any", "episode"):
            raise PolyactError(f"Windows needs length >= 1 and start 'any' or 'episode', got {self.length}, '{self.start}'")

    def eligible(self, index: Index) -> np.ndarray:
        if self.start == "any":
            return np.ones(index.steps, bool)
        first = np.zeros(index.steps, bool)
        first[np.asarray(index.starts)] = True
        return first

    def rows(self, index: Index, steps: Int[Array, "B"], key: PRNGKeyArray) -> Rows:
        places = _places(index, steps)
        ahead = jnp.arange(self.length)
        left = (index.lengths[places["episode"]] - 1 - places["time"])[:, None]
        offset = jnp.minimum(ahead, left)
        return {
            "step": steps[:, None] + offset,
            "observation": places["observation"][:, None] + offset,
            "time": places["time"][:, None] + offset,
            "source": places["source"],
            "mask": ahead <= left,
        }

    def gather(self, columns: Columns, rows: Rows) -> Batch:
        return Batch(
            next_observation=columns.read("observation", rows["observation"] + 1),
            bootstrap=1.0 - columns.read("terminated", rows["step"]),
            mask=rows["mask"],
            **_common(columns, rows),
        )


class Relabelled(Sampling):
    """Transitions with goals chosen afterwards (hindsight relabelling, arXiv 1707.01495).

    The goal is an observation: with probability `current` the one just reached, with `future` one from later in the same episode
    (geometric with `discount`, or uniform when None), otherwise a random one of the same source. reward = 0 where the goal is the
    very next observation, else -1; bootstrap is 0 there. `goal_of` maps observations to goals (default: the whole observation).
    """

    current: float = 0.2
    future: float = 0.5
    discount: float | None = None
    goal_of: Callable[[Any], Any] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if min(self.current, self.future) < 0 or self.current + self.future > 1:
            raise PolyactError(f"goal shares must be >= 0 and sum to <= 1, got {self.current} and {self.future}")
        if self.discount is not None and not 0 < self.discount < 1:
            raise PolyactError(f"the discount of future goals must lie between 0 and 1 (None: uniform), got {self.discount}")

    def eligible(self, index: Index) -> np.ndarray:
        return np.asarray(_within(index, index.successors))

    def rows(self, index: Index, steps: Int[Array, "B"], key: PRNGKeyArray) -> Rows:
        places = _places(index, steps)
        which, distance, anywhere = jax.random.split(key, 3)
        left = index.successors[places["episode"]] - places["time"]
        uniform = jax.random.uniform(distance, steps.shape)
        if self.discount is None:
            ahead = 1 + jnp.floor(uniform * left).astype(steps.dtype)
        else:
            ahead = 1 + jnp.floor(jnp.log1p(-uniform) / jnp.log(self.discount)).astype(steps.dtype)
        ahead = jnp.clip(ahead, 1, left)
        first, last = (jnp.searchsorted(index.sources, places["source"], side=side) for side in ("left", "right"))
        end = index.starts[last - 1] + index.lengths[last - 1]
        random_step = jax.random.randint(anywhere, steps.shape, index.starts[first], end)
        random_row = random_step + index.episodes[random_step]
        share = jax.random.uniform(which, steps.shape)
        reached = places["observation"] + 1
        goal = jnp.where(share < self.current + self.future, places["observation"] + ahead, random_row)
        return places | {"goal": jnp.where(share < self.current, reached, goal)}

    def gather(self, columns: Columns, rows: Rows) -> Batch:
        away = (rows["goal"] != rows["observation"] + 1) * 1.0
        goal = columns.read("observation", rows["goal"])
        common = _common(columns, rows)
        common |= {"reward": -away, "goal": goal if self.goal_of is None else self.goal_of(goal)}
        return Batch(next_observation=columns.read("observation", rows["observation"] + 1), bootstrap=away, **common)


class Draw(eqx.Module):
    """Which steps a batch starts from: uniform over the eligible ones, or in proportion to weights.

    Weights become integer thresholds on the 32-bit range, so a draw is one binary search, zero weights are never drawn and the
    shares are exact to 2^-32.
    """

    eligible: Int[Array, "M"] | None
    thresholds: Array | None
    count: int = eqx.field(static=True)

    def steps(self, key: PRNGKeyArray, batch_size: int) -> Int[Array, "B"]:
        if self.thresholds is None:
            place = jax.random.randint(key, (batch_size,), 0, self.count)
        else:
            place = jnp.searchsorted(self.thresholds, jax.random.bits(key, (batch_size,)), side="right").astype(jnp.int32)
        return place if self.eligible is None else self.eligible[place]


def draw_from(table: Table, sampling: Sampling) -> Draw:
    """The Draw of a table for one way of sampling: each source gets its weight, its eligible steps share it by their own weights."""
    eligible = sampling.eligible(table.index)
    own = np.ones(len(eligible)) if table.weights is None else table.weights
    source = np.asarray(table.index.sources)[np.asarray(table.index.episodes)]
    totals = np.bincount(source, own * eligible, minlength=len(table.shares))
    empty = [table.names[number] for number in np.flatnonzero(totals == 0)]
    if empty:
        raise PolyactError(
            f"nothing can be drawn from source {', '.join(empty)}: no step is eligible for {type(sampling).__name__}"
        )
    return weighted_draw(own * eligible * (np.asarray(table.shares) / totals)[source])


def weighted_draw(weights: np.ndarray) -> Draw:
    """A Draw over steps in proportion to `weights` [N]. Raises PolyactError unless they are finite, >= 0 and not all zero."""
    weights = np.asarray(weights, np.float64)
    if not np.all(np.isfinite(weights)) or np.any(weights < 0) or not np.any(weights > 0):
        raise PolyactError("sampling weights must be finite numbers >= 0, at least one of them positive")
    steps = np.flatnonzero(weights).astype(np.int32)
    chosen = None if len(steps) == len(weights) else jnp.asarray(steps)
    if np.ptp(weights[steps]) <= 1e-9 * weights[steps].max():
        return Draw(chosen, None, len(steps))
    shares = np.cumsum(weights[steps])
    thresholds = np.minimum(np.round(shares[:-1] / shares[-1] * 2.0**32), 2.0**32 - 1).astype(np.uint32)
    return Draw(chosen, jnp.asarray(thresholds), len(steps))


def _within(index: Index, limit: Int[Array, "E"]) -> Bool[Array, "N"]:
    return jnp.arange(index.steps) - index.starts[index.episodes] < limit[index.episodes]


def _places(index: Index, steps: Int[Array, "B"]) -> Rows:
    episode = index.episodes[steps]
    return {
        "step": steps,
        "episode": episode,
        "observation": steps + episode,
        "time": steps - index.starts[episode],
        "source": index.sources[episode],
    }


def _common(columns: Columns, rows: Rows) -> dict[str, Any]:
    step = rows["step"]
    return {
        "observation": columns.read("observation", rows["observation"]),
        "action": columns.read("action", step),
        "reward": columns.read("reward", step),
        "goal": columns.read("goal", step),
        "cost": columns.read("cost", step),
        "return_to_go": columns.read("return_to_go", step),
        "log_prob": columns.read("log_prob", step),
        "source": rows["source"],
        "time": rows["time"],
    }
