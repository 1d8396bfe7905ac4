"""Scores in the files of other libraries, read and written, so that polyact judges their runs and they ours.

Stable-Baselines3 `evaluations.npz` and `monitor.csv`, rliable's score arrays, d3rlpy's metric files; LeRobot's `eval_info.json` is in
`interchange.lerobot`. Reading never unpickles; a damaged file is one line that names it and the field. Writing replaces the file whole
or not at all.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from polyact.data.formats.common import PathLike, parse_json, reading, replacing
from polyact.data.formats.npz import load_arrays
from polyact.errors import DataError


@dataclass(frozen=True)
class Evaluations:
    """Periodic evaluations of one training run: timesteps [T], returns [T, E], lengths [T, E], successes [T, E] or None."""

    timesteps: Int[np.ndarray, " T"]
    returns: Float[np.ndarray, "T E"]
    lengths: Int[np.ndarray, "T E"]
    successes: np.ndarray | None = None


@dataclass(frozen=True)
class Monitor:
    """Episodes of a training run as they ended: returns [E], lengths [E], seconds [E] since `header["t_start"]`; extra: other columns."""

    returns: Float[np.ndarray, " E"]
    lengths: Int[np.ndarray, " E"]
    seconds: Float[np.ndarray, " E"]
    header: dict[str, Any]
    extra: dict[str, list[str]]


@dataclass(frozen=True)
class Metric:
    """A metric over training: epoch [T], step [T], value [T]."""

    name: str
    epoch: Int[np.ndarray, " T"]
    step: Int[np.ndarray, " T"]
    value: Float[np.ndarray, " T"]


def read_evaluations(path: PathLike) -> Evaluations:
    """Stable-Baselines3's evaluations.npz (EvalCallback)."""
    arrays = load_arrays(path)
    for name in ("timesteps", "results", "ep_lengths"):
        if name not in arrays:
            raise DataError(f"{path}: has no array '{name}'; not a Stable-Baselines3 evaluations.npz")
    results = _numbers(path, "results", arrays["results"], np.float64)
    successes = arrays.get("successes")
    shape = (len(results), *results.shape[1:]) if results.ndim == 2 else (-1, -1)
    for name, rank in {"timesteps": shape[:1], "ep_lengths": shape, **({} if successes is None else {"successes": shape})}.items():
        if arrays[name].shape != rank:
            raise DataError(
                f"{path}: '{name}' has shape {arrays[name].shape}, 'results' {results.shape}; expected [T] and [T, episodes]"
            )
    timesteps, lengths = (_numbers(path, name, arrays[name], np.int64) for name in ("timesteps", "ep_lengths"))
    flags = None if successes is None else _numbers(path, "successes", successes, np.float64) != 0
    return Evaluations(timesteps, results, lengths, flags)


def write_evaluations(path: PathLike, evaluations: Evaluations) -> None:
    """Write Stable-Baselines3's evaluations.npz."""
    arrays = {"timesteps": evaluations.timesteps, "results": evaluations.returns, "ep_lengths": evaluations.lengths}
    if evaluations.successes is not None:
        arrays["successes"] = np.asarray(evaluations.successes, bool)
    _write_npz(path, arrays)


def read_scores(path: PathLike) -> dict[str, Float[np.ndarray, "runs tasks *frames"]]:
    """rliable's input as an NPZ file: an array [runs, tasks] or [runs, tasks, frames] per algorithm."""
    scores = {name: _numbers(path, name, array, np.float64) for name, array in load_arrays(path).items()}
    _check_scores(path, scores)
    return scores


def write_scores(path: PathLike, scores: Mapping[str, object]) -> None:
    """Write {algorithm: scores [runs, tasks(, frames)]} as an NPZ file; `dict(np.load(path))` is what rliable takes."""
    arrays = {name: np.asarray(table, np.float64) for name, table in scores.items()}
    _check_scores(path, arrays)
    _write_npz(path, arrays)


def read_monitor(path: PathLike) -> Monitor:
    """Stable-Baselines3's monitor.csv: a line of JSON after '#', then rows r, l, t (and more columns)."""
    with reading(path):
        lines = Path(path).read_text("utf-8").splitlines()
    if not lines or not lines[0].startswith("#"):
        raise DataError(f"{path}: the first line should be '#' and JSON; not a monitor.csv")
    header = parse_json(lines[0][1:], path, "first line")
    names, rows = _csv(path, lines[1:], 2)
    for name in ("r", "l", "t"):
        if name not in names:
            raise DataError(f"{path}: has no column '{name}', only {', '.join(names) or 'none'}")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(names, ())
    returns, lengths, seconds = (_parsed(path, name, columns.pop(name)) for name in ("r", "l", "t"))
    return Monitor(returns, lengths.astype(np.int64), seconds, header, {name: list(column) for name, column in columns.items()})


def read_metric(path: PathLike) -> Metric:
    """A d3rlpy metric file `<name>.csv`: rows epoch, step, value without a header."""
    with reading(path):
        lines = Path(path).read_text("utf-8").splitlines()
    _, rows = _csv(path, ["epoch,step,value", *lines], 0)
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    epoch, step, value = (_parsed(path, name, column) for name, column in zip(("epoch", "step", "value"), columns, strict=True))
    return Metric(Path(path).stem, epoch.astype(np.int64), step.astype(np.int64), value)


def _check_scores(path: PathLike, scores: Mapping[str, np.ndarray]) -> None:
    if not scores:
        raise DataError(f"{path}: no scores")
    for name, table in scores.items():
        if table.ndim not in (2, 3) or table.size == 0:
            raise DataError(f"{path}: scores of '{name}' have shape {table.shape}, expected [runs, tasks] or [runs, tasks, frames]")


def _numbers(path: PathLike, name: str, array: np.ndarray, kind: Any) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: '{name}' holds {array.dtype}, expected numbers")
    return array.astype(kind)


def _csv(path: PathLike, lines: list[str], first: int) -> tuple[list[str], list[list[str]]]:
    rows = [row for row in csv.reader(lines) if row]
    if not rows:
        raise DataError(f"{path}: has no line with column names")
    for number, row in enumerate(rows[1:], start=first + 1):
        if len(row) != len(rows[0]):
            raise DataError(f"{path}: row {number} has {len(row)} fields, expected {len(rows[0])} (half-written?)")
    return rows[0], rows[1:]


def _parsed(path: PathLike, name: str, column: Sequence[str]) -> np.ndarray:
    with reading(path, f"column '{name}'"):
        return np.array([float(text) for text in column], np.float64)


def _write_npz(path: PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    with replacing(path) as aside, zipfile.ZipFile(aside, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
