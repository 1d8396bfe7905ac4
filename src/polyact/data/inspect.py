"""What is in a data set: how much, how good, how varied, what is missing, and which learners it can feed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from polyact import spaces
from polyact.data.coverage import ActionCoverage, coverage
from polyact.data.episodes import Episodes, leaves
from polyact.data.feeds import Needs, lacks
from polyact.data.hashing import episode_hashes, fingerprint, share_of_duplicates, transition_hashes
from polyact.data.source import Source
from polyact.progress import as_text
from polyact.spaces import Space

EXPECTED = ("observation", "action", "reward", "terminated", "truncated")  # columns whose absence is news
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Distribution:
    """Of one number per episode; quantiles at 0.1, 0.25, 0.5, 0.75 and 0.9."""

    mean: float
    std: float
    min: float
    max: float
    quantiles: tuple[float, ...]


@dataclass(frozen=True)
class SourceReport:
    """What is in one source.

    lengths: distribution of the episodes' lengths, returns: of the sums of rewards (None when rewards are missing). ends: share of
    episodes whose last step is terminated, truncated, or neither ('open'). nan: numbers that are not finite, by column (only those
    with some). duplicate_transitions: share of transitions that repeat an earlier one; duplicate_episodes: how many episodes do
    (None without observations).
    control_hz: as stated or, where `control_hz_estimated`, from the time stamps. learners: those it can feed; lacks: for the others,
    the columns and the kinds of observation or action they need and the source does not have. notes: what reading it had to assume.
    fingerprint: names the content.
    """

    name: str
    format: str
    path: str
    behaviour: str
    embodiment: str
    control_mode: str
    control_hz: float | None
    control_hz_estimated: bool
    observation_space: str
    action_space: str
    episodes: int
    steps: int
    lengths: Distribution | None
    returns: Distribution | None
    missing: tuple[str, ...]
    info: tuple[str, ...]
    ends: dict[str, float]
    nan: dict[str, int]
    coverage: tuple[ActionCoverage, ...]
    duplicate_transitions: float | None
    duplicate_episodes: int | None
    learners: tuple[str, ...]
    lacks: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class Inspection:
    """Reports of sources, in their order. Prints as a table, and turns into JSON."""

    sources: tuple[SourceReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"sources": [asdict(source) for source in self.sources]}

    def rows(self) -> list[dict[str, str]]:
        """One row of short texts per source, the same columns in each."""
        return [_row(source) for source in self.sources]

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(show_lines=True)
        for column in _TABLE:
            table.add_column(column, overflow="fold")
        rows = self.rows()
        for row in rows:
            table.add_row(*(Text(row[column]) for column in _TABLE))
        notes = (Text(f"{row['name']}: {line}") for row in rows for line in row["notes"].splitlines())
        return Group(table, *notes)


def inspect(sources: Sequence[Source], needs: Mapping[str, Needs] | None = None) -> Inspection:
    """Inspect sources. needs: for each learner by name what it asks of a source."""
    return Inspection(tuple(_inspect(source, needs or {}) for source in sources))


def _inspect(source: Source, needs: Mapping[str, Needs]) -> SourceReport:
    episodes, origin = source.episodes, source.metadata.get("origin", {})
    transitions, repeats = _duplicates(episodes)
    estimated = None if source.control_hz else _rate(episodes)
    lacking = lacks(source, needs)
    action = episodes.action
    return SourceReport(
        name=source.name,
        format=origin.get("format", ""),
        path=origin.get("path", ""),
        behaviour=source.behaviour,
        embodiment=source.embodiment,
        control_mode=source.control_mode,
        control_hz=source.control_hz or estimated,
        control_hz_estimated=estimated is not None,
        observation_space=_short(source.observation_space),
        action_space=_short(source.action_space),
        episodes=episodes.count,
        steps=episodes.steps,
        lengths=distribution(episodes.lengths),
        returns=None if episodes.reward is None else distribution(episodes.returns),
        missing=episodes.missing,
        info=tuple(episodes.info),
        ends=_ends(episodes),
        nan=_not_finite(episodes),
        coverage=() if action is None or source.action_space is None else coverage(action, source.action_space),
        duplicate_transitions=transitions,
        duplicate_episodes=repeats,
        learners=tuple(learner for learner, missing in lacking.items() if not missing),
        lacks={learner: missing for learner, missing in lacking.items() if missing},
        notes=_notes(source),
        fingerprint=fingerprint(episodes),
    )


def distribution(values: np.ndarray) -> Distribution | None:
    """The distribution of finite numbers; None when there are none."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    quantiles = tuple(float(q) for q in np.quantile(values, QUANTILES))
    return Distribution(float(values.mean()), float(values.std()), float(values.min()), float(values.max()), quantiles)


def _duplicates(episodes: Episodes) -> tuple[float | None, int | None]:
    if episodes.observation is None:
        return None, None
    transitions = transition_hashes(episodes)
    whole = episode_hashes(episodes, transitions)
    return share_of_duplicates(transitions), len(whole) - len(np.unique(whole))


def _short(space: Space | None) -> str:
    """A space in a few words: its parts, shapes and range."""
    match space:
        case None:
            return ""
        case spaces.Dict():
            return "{" + ", ".join(f"{name}: {_short(part)}" for name, part in space.items) + "}"
        case spaces.Tuple():
            return "(" + ", ".join(map(_short, space.spaces)) + ")"
        case spaces.Box() if space.low.size:
            return f"Box({space.low.min():.3g} to {space.high.max():.3g}, {space.shape}, {space.dtype.name})"
    return str(space)


def _ends(episodes: Episodes) -> dict[str, float]:
    if not episodes.count:
        return {}
    last = np.cumsum(episodes.lengths) - 1
    none = np.zeros(episodes.count, bool)
    terminated, truncated = (none if flag is None else flag[last] for flag in (episodes.terminated, episodes.truncated))
    shares = {"terminated": terminated, "truncated": truncated & ~terminated, "open": ~(terminated | truncated)}
    return {name: float(np.mean(share)) for name, share in shares.items()}


def _not_finite(episodes: Episodes) -> dict[str, int]:
    counts = {}
    for name, column, _ in episodes.columns():
        for path, array in leaves(column, name):
            if array.dtype.kind == "f":
                rows = max(1, _CHUNK // max(1, array[:1].size))
                count = sum(int((~np.isfinite(array[i : i + rows])).sum()) for i in range(0, len(array), rows))
                counts |= {path: count} if count else {}
    return counts


def _rate(episodes: Episodes) -> float | None:
    """Control rate from the median difference of time stamps (s) inside episodes."""
    stamps = episodes.info.get("timestamp")
    if not isinstance(stamps, np.ndarray) or stamps.ndim != 1 or stamps.dtype.kind != "f":
        return None
    inside = np.ones(episodes.steps, bool)
    inside[np.cumsum(episodes.lengths) - episodes.lengths] = False
    steps = np.diff(stamps, prepend=stamps[:1])[inside]
    period = float(np.median(steps)) if len(steps) else 0.0
    return round(1 / period, 3) if 0 < period < np.inf else None


def _notes(source: Source) -> tuple[str, ...]:
    notes = [str(warning) for warning in source.metadata.get("warnings", [])]
    if source.metadata.get("final_observation") == "repeated":
        notes.append("the format holds no observation after the last step: the last one is repeated")
    return tuple(notes)


_TABLE = ("source", "size", "length", "return", "actions", "ends", "duplicates", "missing", "can feed")


def _row(source: SourceReport) -> dict[str, str]:
    hz = "" if source.control_hz is None else f"{source.control_hz:g} Hz{' (estimated)' if source.control_hz_estimated else ''}"
    body = (
        "" if (source.embodiment, source.control_mode) == ("default", "default") else f"{source.embodiment}, {source.control_mode}"
    )
    bad = (f"{count} numbers are not finite in {name}" for name, count in source.nan.items())
    return {
        "name": source.name,
        "source": "\n".join(part for part in (source.name, source.behaviour, body, hz) if part),
        "format": source.format,
        "observation": source.observation_space,
        "action": source.action_space,
        "size": f"{source.episodes:,} episodes\n{source.steps:,} steps",
        "length": _range(source.lengths, "{:.0f}"),
        "return": _range(source.returns, "{:.4g}") if source.returns else "no rewards",
        "actions": "\n".join(_covered(part) for part in source.coverage) or "none",
        "ends": "\n".join(f"{name} {share:.0%}" for name, share in source.ends.items() if share),
        "duplicates": _repeated(source),
        "missing": "\n".join(name for name in source.missing if name in EXPECTED),
        "notes": "\n".join([*bad, *source.notes]),
        "can feed": ", ".join(source.learners),
    }


def _range(d: Distribution | None, form: str) -> str:
    if d is None:
        return ""
    low, middle, high = (form.format(value) for value in (d.min, d.quantiles[2], d.max))
    return f"{form.format(d.mean)} mean\n{low} to {high}\n{middle} median"


def _covered(part: ActionCoverage) -> str:
    bounds = "" if part.at_bounds is None else f"\n{part.at_bounds:.0%} at bounds"
    name = "" if part.part == "action" else f"{part.part.removeprefix('action/')}: "
    return f"{name}{part.visited:.0%} visited{bounds}"


def _repeated(source: SourceReport) -> str:
    if source.duplicate_transitions is None:
        return ""
    return f"{source.duplicate_transitions:.1%} of steps\n{source.duplicate_episodes} episodes"
