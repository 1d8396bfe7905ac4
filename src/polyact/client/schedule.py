"""Which action is due at a control tick, and when to ask for more: what a control loop decides, without clocks, threads or networks.

A plan that answers the observation of tick t has an action for each of t, t + 1, ...; what it says of ticks that are over is dropped.
Beyond that the rules are those of `polyact.timing`: one plan at a time (scheme "async") is exactly the simulated real time of
`polyact.acting.realtime` with one inference in flight.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from polyact.errors import PolyactError
from polyact.timing import FALLBACKS, SCHEMES, check_word, due

AGGREGATES = {"latest_only": 1.0, "weighted_average": 0.7, "average": 0.5, "conservative": 0.3}  # share of the new plan (LeRobot)


@dataclass(frozen=True)
class Plan:
    """actions [H, ...] for the ticks from `asked` on; usable from tick `arrived` on."""

    actions: np.ndarray
    asked: int
    arrived: int

    def at(self, tick: int) -> np.ndarray | None:
        """The action for a tick; None outside the plan."""
        return self.actions[tick - self.asked] if 0 <= tick - self.asked < len(self.actions) else None


@dataclass(frozen=True)
class Due:
    """The action for a tick. late: no plan had one, so the fallback acts. staleness: ticks since the observation behind it, or None."""

    action: np.ndarray
    late: bool
    staleness: int | None


class Schedule:
    """The plans that have arrived, by one of these schemes:

    sync: ask when the actions of the last plan are used up; nothing is due until the answer is there.
    async: ask while the last plan still plays. The newest plan counts; aggregate (LeRobot's words) may mix in what was planned before.
    ensemble: ask at every tick, and average what all plans say about this one; the i-th oldest weighs exp(-decay i).
    rtc: like async; the server is told what will be done meanwhile, and continues it (real-time chunking).

    idle: the action that stands for doing nothing. execution_horizon: sync and rtc ask again when so many actions of a plan of H are used;
    None: all of them in sync, half of them in rtc. rtc asks sooner where the delay d (in ticks; `delay`, to be kept up to date) would else
    leave nothing to do: at most H - d are used. threshold: async asks when at most this share of a plan is left (1: at every tick at
    which nothing is under way).
    """

    delay: int = 0

    def __init__(
        self,
        scheme: str,
        *,
        idle: np.ndarray,
        execution_horizon: int | None = None,
        fallback: str = "hold",
        threshold: float = 0.5,
        aggregate: str = "latest_only",
        decay: float = 0.01,
    ):
        check_word("scheme", scheme, SCHEMES)
        check_word("fallback", fallback, FALLBACKS)
        check_word("aggregate", aggregate, tuple(AGGREGATES))
        if aggregate != "latest_only" and scheme != "async":
            raise PolyactError(f"aggregate '{aggregate}' has no effect in scheme '{scheme}'")
        if not 0 <= threshold <= 1:
            raise PolyactError(f"threshold is a share of a plan and lies between 0 and 1, got {threshold}")
        if execution_horizon is not None and execution_horizon < 1:
            raise PolyactError(f"execution_horizon must be at least 1, got {execution_horizon}")
        self.scheme, self.fallback, self.threshold, self.decay = scheme, fallback, threshold, decay
        self.execution_horizon, self.idle = execution_horizon, np.asarray(idle)
        self._share = AGGREGATES[aggregate]
        self.clear()

    def clear(self) -> None:
        """Forget all plans: an episode starts."""
        self.plans: list[Plan] = []
        self.applied = self.idle

    def wants(self, tick: int) -> bool:
        """Whether to ask with this tick's observation, given that nothing is under way."""
        if not self.plans or self.scheme == "ensemble":
            return True
        used, horizon = tick - self.plans[-1].asked, len(self.plans[-1].actions)
        match self.scheme:
            case "sync":
                return used >= min(self.execution_horizon or horizon, horizon)
            case "async":
                return horizon - used <= self.threshold * horizon
        return used >= max(1, min(self.execution_horizon or horizon // 2, horizon - self.delay))

    def arrive(self, actions: np.ndarray, asked: int, arrived: int) -> None:
        """A plan is there. asked: the tick of its observation; arrived: the first tick that can use it."""
        if self.plans and self._share < 1:
            actions = self._mixed(np.asarray(actions), asked)
        self.plans.append(Plan(np.asarray(actions), asked, arrived))
        if self.scheme != "ensemble":
            del self.plans[:-1]

    def due(self, tick: int) -> Due:
        """What is done at a tick."""
        if not self.plans:
            return self._done(self.idle if self.fallback == "zero" else self.applied, True, None)
        newest = self.plans[-1]
        age, length = tick - newest.asked, len(newest.actions)
        if self.scheme == "ensemble":
            self.plans = [plan for plan in self.plans if plan.at(tick) is not None] or [newest]
            if (mean := self._mean(tick)) is not None:
                return self._done(mean, False, age)
        place, taken, late = due(np, self.fallback, np.int64(age), np.int64(tick - newest.arrived), np.True_, length)
        action = newest.actions[place] if taken else self.idle if self.fallback == "zero" else self.applied
        return self._done(action, bool(late), age)

    def left(self, tick: int) -> np.ndarray | None:
        """The actions of the newest plan for this tick and later ones; None when there are none."""
        if not self.plans or not 0 <= tick - self.plans[-1].asked < len(self.plans[-1].actions):
            return None
        return self.plans[-1].actions[tick - self.plans[-1].asked :]

    def _done(self, action: np.ndarray, late: bool, staleness: int | None) -> Due:
        self.applied = action
        return Due(action, late, staleness)

    def _mean(self, tick: int) -> np.ndarray | None:
        said: list[Any] = [action for plan in self.plans if (action := plan.at(tick)) is not None]
        if not said:
            return None
        weights = np.exp(-self.decay * np.arange(len(said)))
        return np.tensordot(weights / weights.sum(), np.stack(said), 1).astype(said[0].dtype)

    def _mixed(self, actions: np.ndarray, asked: int) -> np.ndarray:
        """The new plan, with the old one's share where both say something."""
        old = [self.plans[-1].at(asked + place) for place in range(len(actions))]
        pairs = zip(actions, old, strict=True)
        mixed = [new if before is None else self._share * new + (1 - self._share) * before for new, before in pairs]
        return np.stack(mixed).astype(actions.dtype)
