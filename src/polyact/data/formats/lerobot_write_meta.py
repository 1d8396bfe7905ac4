"""`meta/` of a LeRobotDataset, written: episodes, tasks and statistics, as v3.0 and v2.1 want them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyact.data.formats.columns import is_text
from polyact.data.formats.common import dump_json
from polyact.data.formats.lerobot_stats import QUANTILES, episode_stats, total_stats

MB = 1 << 20
_EPISODES = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


@dataclass(frozen=True)
class Frames:
    """What is written: columns by feature, a row per step; the features as info.json describes them; lengths [E]; tasks."""

    data: dict[str, np.ndarray]
    features: dict[str, dict[str, Any]]
    lengths: np.ndarray
    tasks: list[str]

    def is_image(self, name: str) -> bool:
        """Whether the feature is stored as pictures."""
        return self.features[name]["dtype"] == "image"

    def stats(self) -> dict[str, dict[str, np.ndarray]]:
        """Statistics of every feature that holds numbers, for each episode."""
        numbers = {name: column for name, column in self.data.items() if not is_text(column)}
        return {name: episode_stats(column, self.lengths, self.is_image(name)) for name, column in numbers.items()}

    def tasks_of_episodes(self) -> list[list[str]]:
        """The different tasks in each episode."""
        parts = np.split(self.data["task_index"], np.cumsum(self.lengths)[:-1])
        return [[self.tasks[index] for index in np.unique(part).tolist()] for part in parts]


def spread(sizes: np.ndarray, chunks_size: int, limit: float) -> list[dict[str, int]]:
    """Chunk and file for things of these sizes: a new file where the limit would be passed, a new chunk after chunks_size files."""
    places, number, filled = [], 0, 0.0
    for size in sizes.tolist():
        if filled and filled + size > limit:
            number, filled = number + 1, 0.0
        filled += size
        places.append({"chunk_index": number // chunks_size, "file_index": number % chunks_size})
    return places


def write_meta_v3(root: Path, frames: Frames, places: list[dict[str, int]], chunks_size: int, size_in_mb: float) -> None:
    """`meta/episodes`, `meta/tasks.parquet` and `meta/stats.json`. places: chunk and file of each episode's data."""
    lengths = frames.lengths
    ends = np.cumsum(lengths)
    columns: dict[str, Any] = {
        "episode_index": np.arange(len(lengths)),
        "tasks": frames.tasks_of_episodes(),
        "length": lengths,
        **{f"data/{field}": [place[field] for place in places] for field in ("chunk_index", "file_index")},
        "dataset_from_index": ends - lengths,
        "dataset_to_index": ends,
    }
    for name, stats in frames.stats().items():
        columns |= {f"stats/{name}/{key}": values.tolist() for key, values in stats.items()}
    table = pa.table(columns)
    where = spread(np.full(len(lengths), table.nbytes / len(lengths) / MB), chunks_size, size_in_mb)
    for field in ("chunk_index", "file_index"):
        table = table.append_column(f"meta/episodes/{field}", pa.array([place[field] for place in where]))
    for number, place in enumerate(where):
        if not number or place != where[number - 1]:
            path = root / _EPISODES.format(**place)
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table.slice(number, where.count(place)), path, compression="snappy")
    _write_tasks(root / "meta" / "tasks.parquet", frames.tasks)
    total = {name: total_stats(column, frames.is_image(name)) for name, column in frames.data.items() if not is_text(column)}
    (root / "meta" / "stats.json").write_text(dump_json(total), "utf-8")


def write_meta_v2(root: Path, frames: Frames) -> None:
    """`meta/episodes.jsonl`, `meta/episodes_stats.jsonl` and `meta/tasks.jsonl`."""
    numbers, in_episodes, stats = range(len(frames.lengths)), frames.tasks_of_episodes(), frames.stats()
    lines: dict[str, list[dict[str, Any]]] = {
        "tasks": [{"task_index": number, "task": task} for number, task in enumerate(frames.tasks)],
        "episodes": [{"episode_index": n, "tasks": in_episodes[n], "length": int(frames.lengths[n])} for n in numbers],
        "episodes_stats": [
            {
                "episode_index": n,
                "stats": {
                    name: {key: values[n].tolist() for key, values in of.items() if key not in QUANTILES}
                    for name, of in stats.items()
                },
            }
            for n in numbers
        ],
    }
    for name, rows in lines.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (root / "meta" / f"{name}.jsonl").write_text(text, "utf-8")


def _write_tasks(path: Path, tasks: list[str]) -> None:
    """As pandas writes a frame whose index is the task."""
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    described = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, (kind, numpy) in kinds.items()
    ]
    index = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": {"encoding": "UTF-8"}}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [index],
        "columns": described,
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    pq.write_table(table.replace_schema_metadata({b"pandas": json.dumps(pandas).encode()}), path, compression="snappy")
