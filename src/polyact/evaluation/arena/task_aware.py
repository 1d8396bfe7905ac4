"""A Bradley-Terry model that knows that tasks differ: every comparison belongs to one of T latent buckets of tasks.

In bucket t policy p succeeds with log odds ability_p + offset_pt - difficulty_t. One is preferred when it succeeds and the other fails;
both succeeding or both failing is a tie: P(first preferred) = sum_t share_t s_first,t (1 - s_second,t). Source: RoboArena (arXiv
2506.18123). Fitted by expectation-maximisation; because ties are split in expectation into both and neither, the maximisation is a
logistic regression, which Newton's method solves, and the objective never decreases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.special import log_expit, logsumexp, softmax

from polyact.errors import PolyactError
from polyact.evaluation.arena.ascent import climb
from polyact.evaluation.arena.connected import check_connected
from polyact.evaluation.arena.trials import Counts

PARTS = ("ability", "offset", "difficulty", "share")
Logits = Float[np.ndarray, "*batch P T"]


@dataclass(frozen=True)
class Priors:
    """Precisions of the normal priors on abilities, offsets and difficulties (log odds). Infinite offsets: none."""

    ability: float = 0.1
    offset: float = 4.0
    difficulty: float = 0.25

    def __post_init__(self):
        for name in ("ability", "offset", "difficulty"):
            if not getattr(self, name) >= 0:
                raise PolyactError(f"the precision of the prior on {name} must not be negative, got {getattr(self, name)}")


PRIORS = Priors()


@dataclass(frozen=True)
class TaskAware:
    """Fits, perhaps a batch of them. ability [..., P] adds up to zero; offset [..., P, T]; difficulty and share [..., T].

    objective [...]: log likelihood plus log prior; history [I, ...]: the objective after every iteration.
    """

    ability: Float[np.ndarray, "*batch P"]
    offset: Float[np.ndarray, "*batch P T"]
    difficulty: Float[np.ndarray, "*batch T"]
    share: Float[np.ndarray, "*batch T"]
    objective: Float[np.ndarray, "*batch"]
    history: Float[np.ndarray, "iterations ..."] | None = None

    @property
    def logits(self) -> Float[np.ndarray, "*batch P T"]:
        """Log odds of success."""
        return self.ability[..., None] + self.offset - self.difficulty[..., None, :]


def fit_task_aware(
    counts: Counts,
    buckets: int = 2,
    *,
    priors: Priors = PRIORS,
    restarts: int = 8,
    iterations: int = 200,
    tolerance: float = 1e-7,
    seed: int = 0,
) -> TaskAware:
    """The best of several expectation-maximisations from random difficulties, all run side by side.

    One ends when its objective gains less than `tolerance` per iteration. Raises PolyactError when policies were never compared.
    """
    if buckets < 1 or restarts < 1 or iterations < 1:
        raise PolyactError(f"buckets, restarts and iterations must be positive, got {buckets}, {restarts}, {iterations}")
    check_connected(counts)
    many = len(counts.policies)
    draws = [np.random.default_rng((seed, restart)) for restart in range(restarts)]
    spread = float(buckets > 1)
    start = TaskAware(
        np.zeros((restarts, many)),
        np.stack([0.1 * spread * rng.normal(size=(many, buckets)) for rng in draws]),
        np.stack([1.5 * spread * rng.normal(size=buckets) for rng in draws]),
        np.full((restarts, buckets), 1 / buckets),
        np.full(restarts, -np.inf),
    )
    fits = refine(counts, start, priors=priors, iterations=iterations, tolerance=tolerance)
    best = int(np.argmax(fits.objective))
    history = None if fits.history is None else fits.history[:, best]
    chosen = {name: np.asarray(getattr(fits, name)[best]) for name in (*PARTS, "objective")}
    return replace(fits, **chosen, history=history)


def refine(
    counts: Counts, start: TaskAware, *, priors: Priors = PRIORS, iterations: int = 200, tolerance: float = 1e-7
) -> TaskAware:
    """Expectation-maximisation from given fits; counts and fits may be batches."""
    shape = np.broadcast_shapes(counts.wins.shape[:-2], start.share.shape[:-1])
    wins, ties = (np.broadcast_to(part, (*shape, *part.shape[-2:])) for part in (counts.wins, counts.ties))
    parts = {
        name: np.broadcast_to(getattr(start, name), (*shape, *getattr(start, name).shape[len(start.share.shape) - 1 :]))
        for name in PARTS
    }
    design, precision = _design(*parts["offset"].shape[-2:]), _precision(priors, *parts["offset"].shape[-2:])
    stacked = np.concatenate([parts["ability"], parts["offset"].reshape(*shape, -1), parts["difficulty"]], -1)
    share, history = parts["share"], []
    for _ in range(iterations):
        success, failure, share = _expect(wins, ties, (stacked @ design.T).reshape(parts["offset"].shape), share)
        stacked = _maximise(design, precision, success, failure, stacked)
        objective = _log_likelihood(wins, ties, (stacked @ design.T).reshape(parts["offset"].shape), share)
        history.append(objective - (precision * stacked**2).sum(-1) / 2)
        if len(history) > 1 and np.max(history[-1] - history[-2]) < tolerance:
            break
    return _unstacked(stacked, share, history)


def _design(many: int, buckets: int) -> Float[np.ndarray, "PT D"]:
    """Rows of success log odds [P * T] as sums of (abilities, offsets, difficulties)."""
    ability, difficulty = np.repeat(np.eye(many), buckets, 0), np.tile(np.eye(buckets), (many, 1))
    return np.concatenate([ability, np.eye(many * buckets), -difficulty], 1)


def _precision(priors: Priors, many: int, buckets: int) -> Float[np.ndarray, " D"]:
    sizes = (many, many * buckets, buckets)
    return np.concatenate(
        [np.full(size, p) for size, p in zip(sizes, (priors.ability, priors.offset, priors.difficulty), strict=True)]
    )


def _joint(logits: Logits, share: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log P(bucket t and: row succeeds, column fails; both succeed; both fail) [..., P, P, T]."""
    good, bad, prior = log_expit(logits), log_expit(-logits), np.log(np.maximum(share, 1e-300))[..., None, None, :]
    row, column = (slice(None), None, slice(None)), (None, slice(None), slice(None))
    rows, columns = (..., *row), (..., *column)
    return prior + good[rows] + bad[columns], prior + good[rows] + good[columns], prior + bad[rows] + bad[columns]


def _expect(wins: np.ndarray, ties: np.ndarray, logits: Logits, share: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected successes and failures of every policy in every bucket [..., P, T], and the new shares of the buckets [..., T]."""
    win, both, neither = _joint(logits, share)
    won = wins[..., None] * softmax(win, -1)
    tied = ties[..., None, None] * softmax(np.stack([both, neither], -1), (-2, -1))
    success = won.sum(-2) + tied[..., 0].sum(-2)
    failure = won.sum(-3) + tied[..., 1].sum(-2)
    mass = won.sum((-3, -2)) + tied.sum((-4, -3, -1)) / 2
    return success, failure, mass / mass.sum(-1, keepdims=True)


def _maximise(
    design: np.ndarray, precision: np.ndarray, success: np.ndarray, failure: np.ndarray, stacked: np.ndarray, steps: int = 5
) -> np.ndarray:
    """Logistic regression with normal priors: Newton's method, halved until the objective does not fall."""
    success, failure = (part.reshape(*part.shape[:-2], -1) for part in (success, failure))

    def objective(at: np.ndarray) -> np.ndarray:
        logits = at @ design.T
        return np.asarray((success * log_expit(logits) + failure * log_expit(-logits)).sum(-1) - (precision * at**2).sum(-1) / 2)

    for _ in range(steps):
        chance = np.exp(log_expit(stacked @ design.T))
        slope = (success - (success + failure) * chance) @ design - precision * stacked
        weight = (success + failure) * chance * (1 - chance)
        curve = np.einsum("...k,kd,ke->...de", weight, design, design, optimize=True) + np.diag(precision + 1e-9)
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        stacked = climb(objective, stacked, step)
        if np.abs(step).max() < 1e-8:
            break
    return stacked


def _log_likelihood(wins: np.ndarray, ties: np.ndarray, logits: Logits, share: np.ndarray) -> np.ndarray:
    win, both, neither = _joint(logits, share)
    tie = np.logaddexp(logsumexp(both, -1), logsumexp(neither, -1))
    return (wins * logsumexp(win, -1)).sum((-1, -2)) + (ties * tie).sum((-1, -2)) / 2


def _unstacked(stacked: np.ndarray, share: np.ndarray, history: list[np.ndarray]) -> TaskAware:
    """The parameters apart, with abilities that add up to zero: moving them and the difficulties together changes nothing."""
    buckets = share.shape[-1]
    many = (stacked.shape[-1] - buckets) // (1 + buckets)
    ability, offset, difficulty = np.split(stacked, [many, many + many * buckets], -1)
    mean = ability.mean(-1, keepdims=True)
    offset = offset.reshape(*offset.shape[:-1], many, buckets)
    return TaskAware(ability - mean, offset, difficulty - mean, share, np.asarray(history[-1]), np.stack(history))
