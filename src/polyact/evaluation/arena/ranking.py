"""From pairwise trials to a ranking with intervals: sessions are resampled, because the trials of a session are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from polyact.errors import PolyactError
from polyact.evaluation.arena.bradley_terry import penalised
from polyact.evaluation.arena.task_aware import PRIORS, Priors, TaskAware, fit_task_aware, refine
from polyact.evaluation.arena.trials import Trial, count
from polyact.evaluation.statistics.estimate import check_level

Model = Literal["task-aware", "bradley-terry"]
REFINEMENTS = 40  # iterations per resampled set of trials, from the fit to all trials


@dataclass(frozen=True)
class Ranking:
    """Policies from best to worst with their abilities (log odds, adding up to zero) and percentile intervals over sessions."""

    policies: tuple[str, ...]
    ability: Float[np.ndarray, " P"]
    low: Float[np.ndarray, " P"]
    high: Float[np.ndarray, " P"]
    level: float
    sessions: int
    trials: int

    def __str__(self) -> str:
        width = max(map(len, self.policies))
        rows = zip(self.policies, self.ability, self.low, self.high, strict=True)
        lines = [
            f"{place:2d}  {name:{width}s}  {a:+.2f} [{low:+.2f}, {high:+.2f}]" for place, (name, a, low, high) in enumerate(rows, 1)
        ]
        return "\n".join([*lines, f"{self.level:.0%} intervals over {self.sessions} sessions, {self.trials} trials"])


def rank(
    trials: Sequence[Trial],
    model: Model = "task-aware",
    *,
    buckets: int = 2,
    priors: Priors = PRIORS,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Ranking:
    """Rank the policies of some trials. buckets: of the task-aware model. draws: how often sessions are resampled.

    Plain Bradley-Terry has the prior of `priors.ability`. Raises PolyactError when the comparisons do not hang together, and for
    fewer than two sessions.
    """
    check_level(level)
    weights = session_weights(trials, draws, seed)
    whole = count(trials)
    resampled = count(trials, whole.policies, weights)
    if model == "task-aware":
        fit = fit_task_aware(whole, buckets, priors=priors, seed=seed)
        ability, drawn = fit.ability, refine(resampled, _batch(fit), priors=priors, iterations=REFINEMENTS).ability
    else:
        ability, drawn = penalised(whole, priors.ability), penalised(resampled, priors.ability)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    order = np.argsort(-ability, kind="stable")
    names = tuple(whole.policies[place] for place in order)
    sessions = len({trial.session for trial in trials})
    return Ranking(names, ability[order], low[order], high[order], level, sessions, len(trials))


def session_weights(trials: Sequence[Trial], draws: int, seed: int) -> Float[np.ndarray, "draws N"]:
    """How often each trial counts when whole sessions are drawn with replacement."""
    names, session = np.unique([trial.session for trial in trials], return_inverse=True)
    if len(names) < 2:
        raise PolyactError(f"an interval over sessions needs at least 2 of them, got {len(names)}")
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return drawn[:, session].astype(float)


def _batch(fit: TaskAware) -> TaskAware:
    return TaskAware(fit.ability[None], fit.offset[None], fit.difficulty[None], fit.share[None], fit.objective[None])
