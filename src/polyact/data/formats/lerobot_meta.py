"""What a LeRobotDataset says of itself in `meta/`, for v3.0 (episodes and tasks in parquet) and v2.0 / v2.1 (in JSON lines)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from polyact.data.formats.common import read_json, reading
from polyact.errors import DataError

V3, V2 = "v3.0", "v2.1"
READABLE = (V3, V2, "v2.0")  # v2.0 differs from v2.1 in its statistics only
INFO = "meta/info.json"
INDEX = ("timestamp", "frame_index", "episode_index", "index", "task_index")  # features that every data set has


@dataclass(frozen=True)
class Meta:
    """A data set's description, checked. lengths [E]: steps of each episode. episodes: further fields of each. tasks by index."""

    root: Path
    info: dict[str, Any]
    lengths: np.ndarray
    episodes: list[dict[str, Any]]
    tasks: dict[int, str]

    @property
    def version(self) -> str:
        return self.info["codebase_version"]

    @property
    def fps(self) -> float:
        return self.info["fps"]

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        return self.info["features"]

    def names(self, *dtypes: str) -> list[str]:
        """Names of the features of these dtypes."""
        return [name for name, feature in self.features.items() if feature["dtype"] in dtypes]

    def data_file(self, episode: int) -> Path:
        """The parquet file that holds an episode."""
        row = self.episodes[episode]
        return self._file("data_path", "", **_fields(row, "data/chunk_index", "data/file_index"))

    def video_file(self, episode: int, feature: str) -> tuple[Path, float]:
        """The file that holds a feature's frames of an episode, and the time (s) in it at which the episode begins."""
        row, name = self.episodes[episode], f"videos/{feature}"
        if self.version != V3:
            return self._file("video_path", feature, **_fields(row, "", "")), 0.0
        start = row.get(f"{name}/from_timestamp")
        if not isinstance(start, int | float):
            raise DataError(f"{self.root}/meta/episodes: episode {episode} has no '{name}/from_timestamp'")
        return self._file("video_path", feature, **_fields(row, f"{name}/chunk_index", f"{name}/file_index")), float(start)

    def _file(self, template: str, feature: str, **fields: int) -> Path:
        text = self.info.get(template)
        if not isinstance(text, str):
            raise DataError(f"{self.root / INFO}: {template} is {text!r}, expected a path with fields in braces")
        chunk = fields["episode_index"] // self.info.get("chunks_size", 1000)
        with reading(self.root / INFO, template):
            path = self.root / text.format(video_key=feature, episode_chunk=chunk, **fields)
        if ".." in path.parts or not path.is_relative_to(self.root):
            raise DataError(f"{self.root / INFO}: {template} leads out of the data set: {text}")
        return path


def load_meta(root: Path) -> Meta:
    """Read and check `meta/`. Raises DataError that names the file and the field."""
    info = _checked_info(root / INFO)
    modern = info["codebase_version"] == V3
    rows, where = _episode_rows(root, modern)
    for number, row in enumerate(rows):
        if row.get("episode_index") != number:
            raise DataError(f"{where}: row {number} has episode_index {row.get('episode_index')!r}, expected {number}")
        if type(row.get("length")) is not int or row["length"] < 1:
            raise DataError(f"{where}: episode {number} has length {row.get('length')!r}, expected a positive whole number")
        for name in ("data/chunk_index", "data/file_index") if modern else ():
            if type(row.get(name)) is not int:
                raise DataError(f"{where}: episode {number} has {name} {row.get(name)!r}, expected a whole number")
    lengths = np.array([row["length"] for row in rows], np.int64)
    for name, found in {"total_episodes": len(rows), "total_frames": int(lengths.sum())}.items():
        if info.get(name) != found:
            raise DataError(f"{root / INFO}: {name} is {info.get(name)!r}, but {where} has {found}")
    return Meta(root, info, lengths, rows, _tasks(root, modern))


def _checked_info(path: Path) -> dict[str, Any]:
    info = read_json(path)
    version = info.get("codebase_version")
    if version not in READABLE:
        raise DataError(f"{path}: codebase_version is {version!r}, this polyact reads {', '.join(READABLE)}")
    fps = info.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < math.inf:
        raise DataError(f"{path}: fps is {fps!r}, expected a positive number")
    if type(info.get("chunks_size", 1000)) is not int or info.get("chunks_size", 1000) < 1:
        raise DataError(f"{path}: chunks_size is {info['chunks_size']!r}, expected a positive whole number")
    features = info.get("features")
    if not isinstance(features, dict):
        raise DataError(f"{path}: features is {type(features).__name__}, expected an object")
    for name, feature in features.items():
        if not isinstance(feature, dict) or not isinstance(feature.get("dtype"), str):
            raise DataError(f"{path}: feature '{name}' has no dtype")
        shape = feature.get("shape")
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise DataError(f"{path}: feature '{name}' has shape {shape!r}, expected a list of sizes")
    for name in ("episode_index", "frame_index"):
        if name not in features:
            raise DataError(f"{path}: feature '{name}' is missing")
    return info


def _episode_rows(root: Path, modern: bool) -> tuple[list[dict[str, Any]], Path]:
    where = root / "meta" / ("episodes" if modern else "episodes.jsonl")
    rows: list[dict[str, Any]] = [] if modern else _json_lines(where)
    files = sorted(where.glob("*/*.parquet")) if modern else []
    if modern and not files:
        raise DataError(f"{where}: no parquet file here")
    for path in files:
        with reading(path):
            file = pq.ParquetFile(path)
            wanted = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            rows += file.read(columns=wanted).to_pylist()
    return sorted(rows, key=lambda row: row["episode_index"] if type(row.get("episode_index")) is int else -1), where


def _tasks(root: Path, modern: bool) -> dict[int, str]:
    path = root / "meta" / ("tasks.parquet" if modern else "tasks.jsonl")
    if not modern:
        rows = [(row.get("task_index"), row.get("task")) for row in _json_lines(path)]
    else:
        with reading(path):
            table = pq.ParquetFile(path).read()
            text = [name for name in table.column_names if name != "task_index"]  # pandas' index: 'task', or unnamed
            rows = list(zip(table["task_index"].to_pylist(), table[text[0]].to_pylist(), strict=True))
    tasks: dict[int, str] = {}
    for index, task in rows:
        if type(index) is not int or not isinstance(task, str):
            raise DataError(f"{path}: task {index!r} is {task!r}, expected a number and a text")
        tasks[index] = task
    return tasks


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    with reading(path):
        lines = path.read_text("utf-8").split("\n")
    for number, line in enumerate(lines):
        with reading(path, f"line {number + 1}"):
            row = json.loads(line) if line.strip() else {}
            if not isinstance(row, dict):
                raise ValueError("expected a JSON object")
            rows += [row] if row else []
    return rows


def _fields(row: dict[str, Any], chunk: str, file: str) -> dict[str, int]:
    """What a path template may name: v3.0 counts chunks and files, v2.1 episodes."""
    fields = {"episode_index": row["episode_index"]}
    for name, key in {"chunk_index": chunk, "file_index": file}.items():
        if key and type(row.get(key)) is int:
            fields[name] = row[key]
    return fields
