"""The loop around a compiled program: reporting intervals, evaluation, checkpoints and non-finite values.

`fit` and `train` differ only in the fleet they hand in, which carries the training states of all seeds over a number of steps.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from polyact.errors import PolyactError, TrainingError
from polyact.learning import checkpoint
from polyact.learning.fleet import Carry, Fleet, Summary
from polyact.policies.base import Policy
from polyact.progress import Bar

Record = dict[str, Any]
Evaluate = Callable[[Policy], dict[str, float]]


@dataclass(frozen=True)
class Plan:
    """How long and how often: all numbers in steps, multiples of the stride, which is the steps of one update."""

    steps: int
    report_every: int
    evaluate_every: int | None = None
    checkpoint_every: int | None = None
    stride: int = 1

    def __post_init__(self):
        for name in ("steps", "report_every", "evaluate_every", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise PolyactError(f"{name} is {value}, expected a positive number of steps")

    def next_stop(self, done: int) -> int:
        """The next step at which the host has something to do."""
        every = [e for e in (self.report_every, self.evaluate_every, self.checkpoint_every) if e]
        return min(self.steps, *(done - done % e + e for e in every))


@dataclass
class Progress:
    """Where a run stands: steps done, training states per seed, one record per report and seed, and what makes a policy of a state."""

    done: int
    states: list[Carry]
    history: list[Record] = field(default_factory=list)
    policy: Callable[[Carry], Policy] | None = None
    good: bool = True  # whether every weight of the policies is finite


@dataclass(frozen=True)
class Hooks:
    """What happens between intervals. policy(state) is judged by `evaluate`; `checkpoints` is a folder; `identity` describes the run."""

    policy: Callable[[Carry], Policy] | None
    evaluate: Evaluate | None = None
    checkpoints: Path | None = None
    identity: Record = field(default_factory=dict)
    label: str = "training"
    show: bool = True


def run(plan: Plan, fleet: Fleet, done: int, history: list[Record], hooks: Hooks) -> Progress:
    """Carry every seed from step `done` to `plan.steps`.

    Raises TrainingError when a metric (or at the end the policy) is not finite; its `progress` holds the last states before that step
    with finite policies. With a folder of checkpoints they are also written there, and so are those of the last whole interval when
    the user interrupts.
    """
    history, began_at = list(history), done
    with Bar(hooks.label, plan.steps, hooks.show) as bar:
        try:
            while done < plan.steps:
                stop, began = plan.next_stop(done), time.perf_counter()
                summaries = fleet.advance(done, stop - done)
                broken = first_broken(summaries)
                if broken is None and stop == plan.steps and (ill := _ill(fleet.states(), hooks)):
                    broken = stop, "weights of the policy", ill[0]
                if broken:
                    raise _broken_error(*broken, _before(broken[0], done, plan, fleet, history, hooks))
                rate, done = (stop - done) / (time.perf_counter() - began), stop
                records = [_record(done, seed, summary, rate) for seed, summary in enumerate(summaries)]
                history.extend(records)
                if hooks.evaluate and hooks.policy and _due(plan.evaluate_every, done, plan):
                    for record, state in zip(records, fleet.states(), strict=True):
                        record |= hooks.evaluate(hooks.policy(state))
                if _due(plan.checkpoint_every, done, plan):
                    _keep(done, fleet.states(), history, hooks)
                bar.advance_to(done, _note(records[0]))
        except KeyboardInterrupt:
            if done > began_at:
                _keep(done, fleet.states(), history, hooks)
            raise
    return Progress(done, fleet.states(), history, hooks.policy)


def first_broken(summaries: list[Summary]) -> tuple[int, str, int] | None:
    """(step, metric, seed) of the earliest value that is not finite."""
    found = [(int(at), name, seed) for seed, s in enumerate(summaries) for name, at in s.broken.items() if int(at) >= 0]
    return min(found) if found else None


def _before(step: int, done: int, plan: Plan, fleet: Fleet, history: list[Record], hooks: Hooks) -> Progress:
    """The newest good states at or before a step of the interval that began at `done`.

    A metric often breaks one update after the weights did, whose own metrics were still finite.
    """
    _wind(fleet, done, step)
    if step > done and _ill(fleet.states(), hooks):
        step -= plan.stride
        _wind(fleet, done, step)
    if _ill(fleet.states(), hooks):
        return Progress(step, fleet.states(), history, hooks.policy, good=False)
    _keep(step, fleet.states(), history, hooks)
    return Progress(step, fleet.states(), history, hooks.policy)


def _wind(fleet: Fleet, done: int, step: int) -> None:
    fleet.back()
    if step > done:
        fleet.advance(done, step - done)


def _ill(states: list[Carry], hooks: Hooks) -> list[int]:
    """The seeds whose policy has weights that are not finite."""
    policies = [hooks.policy(state) for state in states] if hooks.policy else []
    numbers = [jax.tree.leaves(eqx.filter(policy, eqx.is_inexact_array)) for policy in policies]
    return [seed for seed, leaves in enumerate(numbers) if not all(np.isfinite(np.asarray(leaf)).all() for leaf in leaves)]


def _keep(done: int, states: list[Carry], history: list[Record], hooks: Hooks) -> None:
    if hooks.checkpoints:
        checkpoint.write(hooks.checkpoints, done, states, history, hooks.identity)


def _broken_error(step: int, name: str, seed: int, progress: Progress) -> TrainingError:
    kept = f"the state after {progress.done} good steps is kept" if progress.good else "no state of this interval was good"
    error = TrainingError(f"training stopped at step {step}: metric '{name}' is not finite (seed {seed}); {kept}")
    error.progress = progress
    return error


def _due(every: int | None, done: int, plan: Plan) -> bool:
    return done == plan.steps or (every is not None and done % every == 0)


def _record(step: int, seed: int, summary: Summary, rate: float) -> Record:
    means = {name: float(total) / float(summary.counts[name]) for name, total in summary.sums.items() if summary.counts[name]}
    return {"step": step, "seed": seed, "steps_per_second": round(rate, 1)} | means


def _note(record: Record) -> str:
    shown = [(n, v) for n, v in record.items() if isinstance(v, float) and n != "steps_per_second"][-3:]
    return " ".join(f"{name} {value:.4g}" for name, value in shown)


def as_numbers(history: list[Record]) -> dict[str, np.ndarray]:
    """A history as columns."""
    names = sorted({name for record in history for name in record})
    return {name: np.array([record.get(name, np.nan) for record in history]) for name in names}
