"""Policies -> report. Paired: every policy meets the same initial states and the same disturbances, in a world that waits or does not.

The last policy of every run is judged, never the best of its history; with several runs of one learner the interval holds for
training again, with one it holds for that run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from polyact.acting.realtime import Fallback, Latency, measure_latency
from polyact.acting.rollout import rollout, successes
from polyact.data.episodes import Episodes
from polyact.envs.base import Env
from polyact.envs.families import Family
from polyact.envs.host import HostEnv
from polyact.errors import PolyactError
from polyact.evaluation.report.report import Report, Section, Table
from polyact.evaluation.report.scores import score_report
from polyact.policies.base import Policy, greedy

World = Env | Family | HostEnv
Policies = Policy | Mapping[str, Policy | Sequence[Policy]]


@dataclass(frozen=True)
class Clock:
    """How time passes while a policy computes: control rate in Hz, latency in seconds (a number, samples, "measured", or what
    `measured` found for every run of every policy), and what acts when nothing has arrived (see `polyact.acting.realtime`)."""

    control_hz: float
    latency: Latency | Mapping[str, Sequence[np.ndarray]]
    fallback: Fallback = "hold"
    in_flight: int | None = None

    def __str__(self) -> str:
        if isinstance(self.latency, str | Mapping):
            seconds = "measured"
        elif isinstance(self.latency, np.ndarray):
            seconds = f"{1000 * np.median(self.latency):.3g} ms (median of samples)"
        else:
            seconds = f"{1000 * float(self.latency or 0.0):.3g} ms"
        return f"{self.control_hz:g} Hz, latency {seconds}, fallback {self.fallback}"

    def options(self, name: str, run: int) -> dict[str, Any]:
        """What `rollout` is told for one run of one policy."""
        latency = self.latency[name][run] if isinstance(self.latency, Mapping) else self.latency
        return vars(self) | {"latency": latency}


def measured(clock: Clock | None, policies: Policies, env: World, *, explore: bool = False) -> Clock | None:
    """The clock with "measured" replaced by what is measured now of every run, so that a report can say it; another one as it is."""
    if clock is None or not isinstance(clock.latency, str) or clock.latency != "measured":
        return clock
    space = env.observation_space
    seconds = {name: [measure_latency(_played(p, explore), space) for p in runs] for name, runs in _by_name(policies).items()}
    return replace(clock, latency=seconds, in_flight=1 if clock.in_flight is None else clock.in_flight)


def play(
    policies: Policies, env: World, *, episodes: int, key: PRNGKeyArray, clock: Clock | None = None, explore: bool = False
) -> dict[str, list[Episodes]]:
    """Episodes of every policy, by name and run. `explore` keeps the randomness of stochastic policies, else their mode is played."""
    runs = _by_name(policies)
    return {
        name: [
            rollout(_played(p, explore), env, episodes=episodes, key=key, **(clock.options(name, run) if clock else {}))
            for run, p in enumerate(members)
        ]
        for name, members in runs.items()
    }


def _played(policy: Policy, explore: bool) -> Policy:
    return policy if explore else greedy(policy)


def evaluate(
    policies: Policies,
    env: World,
    *,
    episodes: int,
    key: PRNGKeyArray,
    clock: Clock | None = None,
    explore: bool = False,
    reference: str | None = None,
    title: str = "Evaluation",
) -> Report:
    """Estimates with intervals, paired differences from `reference` (default: the first policy), probabilities of improvement.

    policies: one, or {name: policy or the policies of several runs}. Raises PolyactError when there is nothing to compare.
    """
    clock = measured(clock, policies, env, explore=explore)
    played = play(policies, env, episodes=episodes, key=key, clock=clock, explore=explore)
    return report_of(played, reference=reference, title=title, clock=clock)


def report_of(
    played: Mapping[str, Sequence[Episodes]], *, reference: str | None = None, title: str = "Evaluation", clock: Clock | None = None
) -> Report:
    """The report of episodes that were played under one key."""
    scores = {name: np.stack([run.returns for run in runs]) for name, runs in played.items()}
    reached = {name: [found for run in runs if (found := successes(run)) is not None] for name, runs in played.items()}
    known = all(len(reached[name]) == len(runs) for name, runs in played.items())
    report = score_report(
        scores,
        title=title,
        successes={name: np.stack(found) for name, found in reached.items()} if known else None,
        reference=reference,
        distinct=distinct_starts(next(iter(played.values()))[0]),
    )
    if clock is None:
        return report
    return report.with_facts(world=f"does not wait: {clock}").with_section(_timing(played, clock))


def distinct_starts(episodes: Episodes) -> int:
    """How many different initial observations the episodes have."""
    rows = episodes.starts + np.arange(episodes.count)
    firsts = jax.tree.map(lambda column: np.asarray(column)[rows].reshape(episodes.count, -1), episodes.observation)
    return len(np.unique(np.concatenate([leaf.astype(np.float64) for leaf in jax.tree.leaves(firsts)], axis=1), axis=0))


def _timing(played: Mapping[str, Sequence[Episodes]], clock: Clock) -> Section:
    def share(runs: Sequence[Episodes], column: str) -> float:
        return float(np.concatenate([np.asarray(run.info[column], np.float64) for run in runs]).mean())

    rows = tuple((name, 100 * share(runs, "late"), share(runs, "staleness")) for name, runs in played.items())
    table = Table("", ("policy", "late ticks (%)", "mean age of what was acted on (ticks)"), rows)
    note = "A tick is late when no action arrived for it and the fallback acted."
    tables = (table, _latencies(clock.latency)) if isinstance(clock.latency, Mapping) else (table,)
    return Section("Timing", f"The world moved on while the policy computed: {clock}.", tables=tables, notes=(note,))


def _latencies(seconds: Mapping[str, Sequence[np.ndarray]]) -> Table:
    """Quantiles of what was measured, over all runs of a policy, in ms."""
    rows = []
    for name, runs in seconds.items():
        samples = 1000 * np.concatenate(runs)
        rows.append((name, *(float(np.quantile(samples, share)) for share in (0.5, 0.95, 1.0))))
    note = "On this machine: one observation at a time, from host to host, compilation not counted."
    return Table("Measured latency", ("policy", "median (ms)", "95% (ms)", "maximum (ms)"), tuple(rows), note)


def _by_name(policies: Policies) -> dict[str, list[Policy]]:
    if isinstance(policies, Policy):
        return {"policy": [policies]}
    runs: dict[str, list[Any]] = {}
    if isinstance(policies, Mapping):
        runs = {name: list(p) if isinstance(p, Sequence) else [p] for name, p in policies.items()}
    if not all(isinstance(member, Policy) for members in runs.values() for member in members):
        raise PolyactError(
            "evaluate takes a policy or {name: policy or policies of several runs}; of what fit returns, its policies"
        )
    if not runs or any(not members for members in runs.values()):
        raise PolyactError(f"evaluate needs at least one policy under every name, got {', '.join(runs) or 'none'}")
    return runs
