"""Pairwise trials of policies: who was compared with whom on what, and which one was preferred; read and written as JSON.

A session is what one evaluator did in one go; its trials share the evaluator's taste and scene, so a session is what gets resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float

from polyact.data.formats.common import PathLike, dump_json, read_json, replacing
from polyact.errors import DataError, PolyactError, unknown

VERSION = 1
PREFERENCES = ("first", "second", "tie")


@dataclass(frozen=True)
class Trial:
    """Two policies run from matched initial conditions. preference: first, second or tie. progress: 0 to 100 for each, if scored."""

    session: str
    first: str
    second: str
    preference: str
    evaluator: str = ""
    task: str = ""
    progress: tuple[float, ...] | None = None
    comment: str = ""

    def __post_init__(self):
        if self.preference not in PREFERENCES:
            raise unknown(f"preference in session '{self.session}'", str(self.preference), PREFERENCES)
        if self.first == self.second:
            raise PolyactError(f"session '{self.session}' compares '{self.first}' with itself")
        if self.progress is not None and not (len(self.progress) == 2 and all(0 <= score <= 100 for score in self.progress)):
            raise PolyactError(f"session '{self.session}': progress is two scores from 0 to 100, got {self.progress}")


@dataclass(frozen=True)
class Counts:
    """Outcomes by pair. wins [..., P, P]: how often row beat column; ties [..., P, P]: symmetric, each tie in both places."""

    policies: tuple[str, ...]
    wins: Float[np.ndarray, "*batch P P"]
    ties: Float[np.ndarray, "*batch P P"]

    @property
    def games(self) -> Float[np.ndarray, "*batch P P"]:
        """How often row met column; symmetric."""
        return self.wins + np.swapaxes(self.wins, -1, -2) + self.ties

    @property
    def points(self) -> Float[np.ndarray, "*batch P P"]:
        """Wins of row over column, a tie as half a win of each."""
        return self.wins + self.ties / 2


def count(trials: Sequence[Trial], policies: Sequence[str] = (), weights: np.ndarray | None = None) -> Counts:
    """Outcomes of trials. policies: their order, by default alphabetical. weights [..., N]: how often each trial counts.

    Raises PolyactError for no trials and for a policy that is not in the list.
    """
    if not trials:
        raise PolyactError("there are no trials to count")
    names = tuple(policies) or tuple(sorted({name for trial in trials for name in (trial.first, trial.second)}))
    places = {name: place for place, name in enumerate(names)}
    for name in (name for trial in trials for name in (trial.first, trial.second) if name not in places):
        raise unknown("policy in a trial", name, names)
    weights = np.ones(len(trials)) if weights is None else np.asarray(weights, float)
    wins, ties = (np.zeros((*weights.shape[:-1], len(names), len(names))) for _ in range(2))
    for number, trial in enumerate(trials):
        first, second = places[trial.first], places[trial.second]
        match trial.preference:
            case "first":
                wins[..., first, second] += weights[..., number]
            case "second":
                wins[..., second, first] += weights[..., number]
            case _:
                ties[..., first, second] += weights[..., number]
                ties[..., second, first] += weights[..., number]
    return Counts(names, wins, ties)


def mean_progress(trials: Sequence[Trial], policies: Sequence[str]) -> Float[np.ndarray, " P"]:
    """Mean progress score of every policy over its trials. Raises PolyactError when a policy has none."""
    scores: dict[str, list[float]] = {name: [] for name in policies}
    for trial in trials:
        for name, score in zip((trial.first, trial.second), trial.progress or (), strict=False):
            if name in scores:
                scores[name].append(score)
    for name, own in scores.items():
        if not own:
            raise PolyactError(f"policy '{name}' has no progress score in any trial")
    return np.array([np.mean(own) for own in scores.values()])


def write_trials(path: PathLike, trials: Sequence[Trial]) -> None:
    """One JSON object: {"polyact_arena": version, "trials": [the fields of every `Trial`]}."""
    with replacing(path) as aside:
        aside.write_text(dump_json({"polyact_arena": VERSION, "trials": [asdict(trial) for trial in trials]}), "utf-8")


def read_trials(path: PathLike) -> list[Trial]:
    """Inverse of `write_trials`. Raises DataError that names the file, the trial and the field."""
    value = read_json(path)
    if value.get("polyact_arena") != VERSION or not isinstance(value.get("trials"), list):
        raise DataError(
            f"{path}: expected the fields polyact_arena ({VERSION}) and trials (a list), got {', '.join(value) or 'none'}"
        )
    return [_trial(path, number, entry) for number, entry in enumerate(value["trials"])]


def _trial(path: PathLike, number: int, entry: Any) -> Trial:
    known, texts = (
        [field.name for field in fields(Trial)],
        ("session", "first", "second", "preference", "evaluator", "task", "comment"),
    )
    if not isinstance(entry, dict) or not set(entry) <= set(known) or not set(known[:4]) <= set(entry):
        raise DataError(f"{path}: trial {number} should have the fields {', '.join(known[:4])} and may have {', '.join(known[4:])}")
    for name in texts:
        if not isinstance(entry.get(name, ""), str):
            raise DataError(f"{path}: trial {number}: {name} is {entry[name]!r}, expected a text")
    values: dict[str, Any] = dict(entry)
    progress = entry.get("progress")
    if progress is not None:
        if not isinstance(progress, list) or not all(isinstance(score, int | float) for score in progress):
            raise DataError(f"{path}: trial {number}: progress is {progress!r}, expected two numbers or null")
        values["progress"] = tuple(map(float, progress))
    try:
        return Trial(**values)
    except PolyactError as error:
        raise DataError(f"{path}: trial {number}: {error}") from error
