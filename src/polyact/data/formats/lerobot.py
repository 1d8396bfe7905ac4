"""LeRobotDataset v3.0 and v2.1 (huggingface/lerobot): reads and writes state and action data, reads pictures and videos.

`path` is the data set's folder, the one with `meta/info.json`. How features become columns stands in `lerobot_columns`; the task of
a step becomes its `text`; fps is the control rate and robot_type the embodiment.

LeRobot has a row per step and no observation after the last one. What polyact writes keeps that observation, and all else that has
no place of its own, in `meta/polyact.json` and `meta/polyact_final.parquet`, which LeRobot ignores, so that a round trip is exact.
In data sets of others the last observation is repeated and the source says so (`metadata["final_observation"]`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from polyact.data.formats.arrow import from_arrow
from polyact.data.formats.columns import REPEATED, check_finite, unflatten, with_final
from polyact.data.formats.common import PathLike, from_header, naming, new_folder, read_json, reading, write_each
from polyact.data.formats.lerobot_columns import to_columns
from polyact.data.formats.lerobot_meta import INDEX, INFO, V3, Meta, load_meta
from polyact.data.formats.lerobot_tables import read_tables
from polyact.data.formats.lerobot_write import FINAL, OURS, write_dataset
from polyact.data.formats.video import decode_frames
from polyact.data.source import Source
from polyact.errors import DataError

NAME = "lerobot"

_GENERATED = ("total_episodes", "total_frames", "total_tasks", "total_videos", "total_chunks")
_OWN = ("codebase_version", "robot_type", "fps", "chunks_size", "data_path", "video_path", "splits")  # that the writer decides anew
_OWN += ("data_files_size_in_mb", "video_files_size_in_mb")
_ELSEWHERE = ("language", "audio")  # dtypes that are not numbers per step
_CAMERA_BYTES = 4 << 30


def detect(path: PathLike) -> bool:
    """A folder with `meta/info.json`."""
    return (Path(path) / INFO).is_file()


def read(
    path: PathLike,
    episodes: Sequence[int] | None = None,
    videos: bool = False,
    images: bool = True,
    max_camera_bytes: int = _CAMERA_BYTES,
) -> list[Source]:
    """The data set at `path` as one source.

    episodes: their numbers, in any order; all by default. videos, images: whether to decode features of these dtypes into arrays
    [N, H, W, 3] of uint8 (videos need the extra `video`); the names of those left out are in `metadata["lerobot"]["not_read"]`.
    max_camera_bytes: refuse to decode more than this. Raises DataError that names file, column and row for what is damaged,
    mis-shaped or not finite.
    """
    meta = load_meta(Path(path))
    chosen = list(range(len(meta.lengths))) if episodes is None else [int(episode) for episode in episodes]
    for episode in chosen:
        if not 0 <= episode < len(meta.lengths):
            raise DataError(f"{path}: no episode {episode}; there are {len(meta.lengths)}")
    if not chosen:
        raise DataError(f"{path}: no episodes to read")
    films, pictures = (meta.names("video") if videos else []), (meta.names("image") if images else [])
    _check_size(meta, chosen, [*films, *pictures], max_camera_bytes)
    names = [name for name in meta.features if name not in meta.names("video", "image", *_ELSEWHERE)]
    features = read_tables(meta, chosen, [*names, *pictures])
    for name in films:
        features[name] = np.concatenate([_frames(meta, name, episode, None) for episode in chosen])
    return [_source(meta, chosen, {name: features[name] for name in meta.features if name in features})]


def read_frames(path: PathLike, feature: str, episode: int, steps: Sequence[int] | None = None) -> np.ndarray:
    """Frames of a video feature, decoded for these steps of one episode: uint8 [steps, H, W, 3]."""
    meta = load_meta(Path(path))
    if feature not in meta.names("video"):
        raise DataError(f"{path}: '{feature}' is not a video feature; there are {', '.join(meta.names('video')) or 'none'}")
    if not 0 <= episode < len(meta.lengths):
        raise DataError(f"{path}: no episode {episode}; there are {len(meta.lengths)}")
    if steps is not None and not all(0 <= step < meta.lengths[episode] for step in steps):
        raise DataError(f"{path}: episode {episode} has steps 0 to {meta.lengths[episode] - 1}, asked for {list(steps)}")
    return _frames(meta, feature, episode, steps)


def write(
    sources: Sequence[Source],
    path: PathLike,
    version: str = V3,
    fps: int | None = None,
    chunks_size: int = 1000,
    data_files_size_in_mb: float = 100,
) -> None:
    """Write one source as the data set at `path`, or several as data sets in a new folder `path`.

    version: "v3.0" or "v2.1". fps: LeRobot wants a whole number; the source's control rate, rounded, or 1 where it is unknown.
    uint8 pictures [H, W, 3] of observations are stored as PNG. Raises DataError when `path` exists.
    """

    def write_one(source: Source, target: Path) -> None:
        with new_folder(target) as folder, naming(target):
            write_dataset(source, folder, version, fps, chunks_size, data_files_size_in_mb)

    write_each(sources, path, write_one)


def _frames(meta: Meta, feature: str, episode: int, steps: Sequence[int] | None) -> np.ndarray:
    path, start = meta.video_file(episode, feature)
    if not path.is_file():
        raise DataError(f"{path}: no such file (video of '{feature}', episode {episode}); read with videos=False to leave it out")
    rows = np.arange(meta.lengths[episode]) if steps is None else np.asarray(steps)
    frames = decode_frames(path, start + rows / float(meta.fps), feature)
    shape = meta.features[feature]["shape"]
    if sorted(frames.shape[1:]) != sorted(shape):
        raise DataError(f"{path}: frames have shape {frames.shape[1:]}, {INFO} says {shape} for '{feature}'")
    return frames


def _check_size(meta: Meta, chosen: list[int], cameras: list[str], limit: int) -> None:
    steps = int(meta.lengths[chosen].sum())
    size = sum(steps * int(np.prod(meta.features[name]["shape"])) for name in cameras)
    if size > limit:
        raise DataError(
            f"{meta.root}: decoding {', '.join(cameras)} of {steps} steps would take {size / 2**30:.1f} GiB, more than the "
            f"{limit / 2**30:.1f} GiB allowed; choose episodes, leave cameras out (videos=False, images=False) or raise max_camera_bytes"
        )


def _source(meta: Meta, chosen: list[int], features: dict[str, np.ndarray]) -> Source:
    lengths = meta.lengths[chosen]
    text = _text(meta, features)
    held = {name: column for name, column in features.items() if name not in INDEX}
    with reading(meta.root / OURS):
        header, columns, final = _our_header(meta, chosen, held)
        flat = {entry["path"]: _typed(held[name], entry) for name, entry in columns.items()}
    if header is None:
        flat = to_columns(meta.root, held)
    if text is not None and (header.get("text") if header else any(text)):
        flat["text"] = text
    metadata: dict[str, Any] = {} if final or not any(name.split("/")[0] == "observation" for name in flat) else dict(REPEATED)
    for name in [name for name in flat if name.split("/")[0] == "observation"]:
        flat[name] = np.asarray(with_final(flat[name], lengths, final.get(name)))
    logged = unflatten(flat, lengths, meta.root)
    kept = _kept(meta, features, header is not None)
    metadata |= {"lerobot": kept} if kept else {}
    if header is not None:
        source = from_header(header, logged, meta.root / OURS)
        return replace(source, metadata={**source.metadata, **metadata})
    robot = meta.info.get("robot_type")
    with naming(meta.root):
        name = meta.root.absolute().name
        return Source(logged, name, embodiment=str(robot or "default"), control_hz=float(meta.fps), metadata=metadata)


def _kept(meta: Meta, features: dict[str, np.ndarray], ours: bool) -> dict[str, Any]:
    """What info.json says that a Source has no place for; of our own data only what we would not write by ourselves."""
    left_out = [name for name in meta.features if name not in features]
    kept = {name: value for name, value in meta.info.items() if name not in _GENERATED} | {"not_read": left_out}
    if not ours:
        return kept
    kept["features"] = {
        name: feature for name, feature in meta.features.items() if feature.get("names") and feature["dtype"] != "image"
    }
    return {name: value for name, value in kept.items() if value and name not in _OWN}


def _text(meta: Meta, features: dict[str, np.ndarray]) -> np.ndarray | None:
    column = features.get("task_index")
    if column is None:
        return None
    numbers, which = np.unique(column, return_inverse=True)
    unknown = [number for number in numbers.tolist() if number not in meta.tasks]
    if unknown:
        raise DataError(f"{meta.root}: column 'task_index' has {unknown[0]}, which meta/tasks does not list")
    return np.array([*(meta.tasks[number] for number in numbers.tolist()), None], object)[:-1][which.reshape(-1)]


def _our_header(meta: Meta, chosen: list[int], held: dict[str, np.ndarray]) -> tuple[dict[str, Any] | None, dict, dict]:
    """polyact's own header, columns by feature and last observations; None where others wrote or have since edited the data."""
    path = meta.root / OURS
    header = read_json(path) if path.is_file() else {}
    columns, features = header.get("columns"), meta.features
    if header.get("lengths") != meta.lengths.tolist() or not isinstance(columns, dict):
        return None, {}, {}
    if not all(name in features and features[name]["shape"] == entry["feature"] for name, entry in columns.items()):
        return None, {}, {}
    if not columns.keys() <= held.keys():  # cameras were left out: the space is what remains
        header["observation_space"] = None
        columns = {name: entry for name, entry in columns.items() if name in held}
    final: dict[str, np.ndarray] = {}
    if (meta.root / FINAL).is_file():
        with reading(meta.root / FINAL):
            table = pq.ParquetFile(meta.root / FINAL).read()
            if len(table) != len(meta.lengths):
                raise DataError(f"{meta.root / FINAL}: has {len(table)} rows, expected one per episode ({len(meta.lengths)})")
            for entry in [entry for entry in columns.values() if entry["path"].split("/")[0] == "observation"]:
                array = from_arrow(meta.root / FINAL, entry["path"], table[entry["path"]])
                check_finite(meta.root / FINAL, entry["path"], array)
                final[entry["path"]] = _typed(array, entry)[chosen]
    return header, columns, final


def _typed(column: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    """A feature as the column it was written from: scalars and rows of one number are the same thing to LeRobot."""
    return column.reshape(len(column), *entry["shape"])
