"""Episodes as Minari stores them, one by one: T + 1 observations, T of all else, and infos with or without a row for the reset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from polyact import spaces
from polyact.data.episodes import STEP_COLUMNS, Episodes
from polyact.data.formats.columns import check_finite, check_flag, check_vector, escape, flatten, unescape, unflatten
from polyact.data.formats.common import reason
from polyact.data.formats.minari_spaces import disk_key
from polyact.data.source import Source
from polyact.errors import DataError, need
from polyact.spaces import Space

NAMES = {
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "terminations": "terminated",
    "truncations": "truncated",
}
IN_INFOS = tuple(name for name in STEP_COLUMNS if name not in NAMES.values())

_RESET_NUMBERS = 100_000  # more numbers than this are not kept as JSON


@dataclass(frozen=True)
class Stored:
    """One episode in a file. columns: arrays by path, such as 'observations/pose', 'rewards' or 'infos/speed'.

    seed, options: what the environment was reset with. further: other JSON values known of the episode.
    """

    path: Path
    number: int
    columns: dict[str, np.ndarray]
    seed: int | None = None
    options: dict[str, Any] | None = None
    further: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return len(self.columns["rewards"])


def to_episodes(stored: list[Stored], folder: Path, ours: dict[str, Any]) -> tuple[Episodes, dict[str, Any]]:
    """Stored episodes as columns, and the metadata they carry (seeds, options, episode_metadata, reset_info, skipped_infos).

    ours: polyact's own header, {} when others wrote the files. Raises DataError for rows that do not match or are not finite.
    """
    missing = set(ours.get("missing", ()))
    for episode in stored:
        _check(episode, missing)
    lengths = np.array([episode.steps for episode in stored], np.int64)
    flat: dict[str, np.ndarray] = {}
    for name in _same_names(stored):
        first, *rest = name.split("/")
        if NAMES[first] not in missing:
            keys = [escape(unescape(unescape(key))) for key in rest] if ours else rest
            flat["/".join((NAMES[first], *keys))] = _join(stored, name, lambda column, _: column)
    metadata: dict[str, Any] = {}
    infos = [{name for name in episode.columns if _is_step_info(episode, name)} for episode in stored]
    shared = set.intersection(*infos)
    for name in (name for name in stored[0].columns if name in shared):
        key = name.removeprefix("infos/")
        ours_too = key.split("/")[0] in IN_INFOS and key.split("/")[0] in ours.get("step_columns", ())
        column = key if ours_too else f"info/{key}"
        flat[column] = _join(stored, name, lambda column, steps: column[len(column) - steps :])
        if all(len(episode.columns[name]) > episode.steps for episode in stored) and key in ours.get("reset_info", (key,)):
            rows = _join(stored, name, lambda column, _: column[:1])
            if rows.size <= _RESET_NUMBERS:
                metadata.setdefault("reset_info", {})[key] = rows.tolist()
    skipped = {name for episode in stored for name in episode.columns if name.startswith("infos/")} - shared
    if skipped:
        metadata["skipped_infos"] = sorted(name.removeprefix("infos/") for name in skipped)
    for key, values in {
        "seeds": [episode.seed for episode in stored],
        "options": [episode.options for episode in stored],
        "episode_metadata": [episode.further or None for episode in stored],
    }.items():
        if any(value is not None for value in values):
            metadata[key] = values
    return unflatten(flat, lengths, folder), metadata


def from_source(source: Source, folder: Path) -> tuple[Iterator[Stored], dict[str, Any]]:
    """Episodes to store, one by one, and what polyact's own header must say of them. Inverse of `to_episodes`."""
    episodes = source.episodes
    flat = flatten(episodes)
    in_infos = [name for name in IN_INFOS if getattr(episodes, name) is not None]
    for name in set(in_infos) & set(episodes.info):
        raise DataError(f"info '{name}' and the column '{name}' would both be stored as infos/{name}; rename the info")
    reset = _reset_rows(source, flat)
    notes = {
        "missing": [name for name in NAMES.values() if getattr(episodes, name) is None],
        "step_columns": in_infos,
        "reset_info": sorted(reset),
    }
    return _each(source, flat, reset, folder), notes


def is_image(space: Space | None) -> bool:
    """Whether Minari takes the space for images (and stores them as JPEG unless told otherwise)."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) not in (2, 3):
        return False
    return min(space.shape[:2]) >= 32 and not space.low.any() and bool(np.all(space.high == 255))


def decode_images(images: list[bytes], space: spaces.Box, path: Path, name: str) -> np.ndarray:
    """JPEG files as an array [N, *space.shape]."""
    import io

    pillow = need("PIL.Image", "video", "reading JPEG-coded images")
    out = np.empty((len(images), *space.shape), np.uint8)
    for row, image in enumerate(images):
        try:
            out[row] = np.asarray(pillow.open(io.BytesIO(image)), np.uint8).reshape(space.shape)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{path}: {name} is not an image of shape {space.shape} in row {row}: {reason(error)}") from error
    return out


def _check(episode: Stored, missing: set[str]) -> None:
    columns = episode.columns
    for name in NAMES:
        if not any(column == name or column.startswith(f"{name}/") for column in columns):
            raise DataError(f"{episode.path}: episode {episode.number} has no {name}")
    if not episode.steps:
        raise DataError(f"{episode.path}: episode {episode.number} has no steps")
    for name, column in columns.items():
        first = name.split("/")[0]
        if first == "infos":
            continue
        rows = episode.steps + (first == "observations")
        label = f"episode {episode.number}: {name}"
        if np.ndim(column) < 1 or len(column) != rows:
            found = len(column) if np.ndim(column) else "no"
            raise DataError(f"{episode.path}: {label} has {found} rows, expected {rows} ({episode.steps} rewards)")
        if NAMES[first] in missing:
            continue
        if first == "rewards":
            columns[name] = check_vector(episode.path, label, column)
        elif first in ("terminations", "truncations"):
            columns[name] = check_flag(episode.path, label, column)
        else:
            check_finite(episode.path, label, column)


def _same_names(stored: list[Stored]) -> list[str]:
    names = [[name for name in episode.columns if name.split("/")[0] in NAMES] for episode in stored]
    for episode, found in zip(stored, names, strict=True):
        odd = set(found) ^ set(names[0])
        if odd:
            raise DataError(f"{episode.path}: episode {episode.number} and episode {stored[0].number} differ in '{min(odd)}'")
    return names[0]


def _join(stored: list[Stored], name: str, rows: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    parts = [rows(episode.columns[name], episode.steps) for episode in stored]
    for episode, part in zip(stored, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise DataError(
                f"{episode.path}: episode {episode.number}: {name} has rows of shape {part.shape[1:]}, "
                f"expected {parts[0].shape[1:]} as in episode {stored[0].number}"
            )
    return np.concatenate(parts)


def _is_step_info(episode: Stored, name: str) -> bool:
    column = episode.columns[name]
    return name.startswith("infos/") and np.ndim(column) > 0 and len(column) - episode.steps in (0, 1)


def _reset_rows(source: Source, flat: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Infos at the reset of every episode, where the metadata hold them and they fit the info of the steps."""
    found = source.metadata.get("reset_info")
    rows: dict[str, np.ndarray] = {}
    for key, values in found.items() if isinstance(found, dict) else ():
        column = flat.get(f"info/{key}")
        if column is None:
            continue
        try:
            array = np.array(values, column.dtype)
        except (TypeError, ValueError):
            continue
        if array.shape == (source.episodes.count, *column.shape[1:]):
            rows[key] = array
    return rows


def _each(source: Source, flat: dict[str, np.ndarray], reset: dict[str, np.ndarray], folder: Path) -> Iterator[Stored]:
    episodes = source.episodes
    names = {ours: theirs for theirs, ours in NAMES.items()}
    for number, (start, steps) in enumerate(zip(episodes.starts.tolist(), episodes.lengths.tolist(), strict=True)):
        columns = {
            "observations": np.full((steps + 1, 1), np.nan, np.float32),
            "actions": np.full((steps, 1), np.nan, np.float32),
            "rewards": np.full(steps, np.nan, np.float32),
            "terminations": np.zeros(steps, bool),
            "truncations": np.zeros(steps, bool),
        }
        for name in (name for name, ours in NAMES.items() if getattr(episodes, ours) is not None):
            del columns[name]
        for path, column in flat.items():
            first, *rest = path.split("/")
            begin, rows = (start + number, steps + 1) if first == "observation" else (start, steps)
            part = np.asarray(column[begin : begin + rows])
            if first == "info":
                key = "/".join(rest)
                columns[f"infos/{key}"] = np.concatenate([reset[key][number : number + 1], part]) if key in reset else part
            else:
                keys = [escape(disk_key(unescape(key))) for key in rest] if first in names else rest
                columns["/".join((names.get(first, f"infos/{first}"), *keys))] = part
        given = {key: _item(source.metadata.get(key), number, episodes.count) for key in ("seeds", "options", "episode_metadata")}
        yield Stored(folder, number, columns, given["seeds"], given["options"], given["episode_metadata"] or {})


def _item(values: Any, number: int, count: int) -> Any:
    return values[number] if isinstance(values, list) and len(values) == count else None
