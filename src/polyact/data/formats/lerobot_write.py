"""Writing a LeRobotDataset: `meta/` and parquet files, in v3.0 (many episodes per file) or v2.1 (a file per episode)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyact.data.formats.arrow import to_arrow
from polyact.data.formats.columns import REPEATED, encode_text, flatten, is_text, without_final
from polyact.data.formats.common import dump_json, header
from polyact.data.formats.lerobot_columns import feature_names
from polyact.data.formats.lerobot_meta import INDEX, INFO, V2, V3
from polyact.data.formats.lerobot_pictures import encode_pictures, is_picture
from polyact.data.formats.lerobot_write_meta import MB, Frames, spread, write_meta_v2, write_meta_v3
from polyact.data.source import Source
from polyact.errors import DataError, unknown

OURS = "meta/polyact.json"
FINAL = "meta/polyact_final.parquet"

_PATHS = {
    V3: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    V2: "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
}
_VIDEO_MB = 200
_ROWS = 1 << 14  # per row group


def write_dataset(source: Source, root: Path, version: str, fps: int | None, chunks_size: int, size_in_mb: float) -> None:
    """Write a source into the empty folder `root`. Raises DataError for what LeRobot can't hold."""
    if version not in _PATHS:
        raise unknown("LeRobotDataset version", version, _PATHS)
    if fps is None:
        fps = max(1, round(source.control_hz or 1))
    if type(fps) is not int or fps < 1 or chunks_size < 1 or not size_in_mb > 0:
        raise DataError(f"fps, chunks_size and data_files_size_in_mb must be positive, got {fps}, {chunks_size}, {size_in_mb}")
    lengths = source.episodes.lengths
    if not len(lengths):
        raise DataError(f"source '{source.name}' has no episodes; LeRobot has no empty data sets")
    columns, final, text = _columns(source)
    known = source.metadata.get("lerobot")
    known = known if isinstance(known, dict) else {}
    pictures = {path for path, column in columns.items() if path.split("/")[0] == "observation" and is_picture(column)}
    names = feature_names(columns, pictures, known.get("features", {}))
    index, tasks = _index(lengths, text, fps)
    data = {names[path]: column for path, column in columns.items()}
    done = [columns[path] for path in ("terminated", "truncated") if path in columns]
    data |= {"next.done": np.logical_or.reduce(done)} if done else {}
    data |= index
    shown = {names[path] for path in pictures}
    features = {name: _feature(name, column, name in shown, known) for name, column in data.items()}
    frames = Frames(data, features, lengths, tasks)
    places = _places(frames, version, chunks_size, size_in_mb)
    _write_data(root, frames, places, version)
    info = {
        **{key: value for key, value in known.items() if key not in ("not_read", "features", "video_path")},
        "codebase_version": version,
        "robot_type": source.embodiment if source.embodiment != "default" else None,
        "total_episodes": len(lengths),
        "total_frames": int(lengths.sum()),
        "total_tasks": len(tasks),
        "chunks_size": chunks_size,
        "fps": fps,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": _PATHS[version],
        "video_path": None,
        "features": features,
    }
    if version == V3:
        info |= {"data_files_size_in_mb": size_in_mb, "video_files_size_in_mb": _VIDEO_MB}
    else:
        info |= {"total_videos": 0, "total_chunks": -(-len(lengths) // chunks_size)}
    (root / "meta").mkdir()
    (root / INFO).write_text(dump_json(info), "utf-8")
    if version == V3:
        write_meta_v3(root, frames, places, chunks_size, size_in_mb)
    else:
        write_meta_v2(root, frames)
    _write_ours(root, source, columns, names, features, final)


def _columns(source: Source) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray | None]:
    """Columns by path with a row per step, the observations that episodes ended in, and the text of the steps."""
    flat = flatten(source.episodes)
    text = flat.pop("text", None)
    columns: dict[str, Any] = {}
    final: dict[str, Any] = {}
    for path, column in flat.items():
        if column.ndim > 6:
            raise DataError(f"column '{path}' has {column.ndim - 1} dimensions per step, LeRobot has at most 5")
        if path.split("/")[0] == "observation":
            columns[path], final[path] = without_final(column, source.episodes.lengths)
        else:
            columns[path] = column
    repeated = source.metadata.get("final_observation") == REPEATED["final_observation"]
    return columns, {} if repeated else final, text


def _index(lengths: np.ndarray, text: np.ndarray | None, fps: int) -> tuple[dict[str, np.ndarray], list[str]]:
    steps = np.concatenate([np.arange(length) for length in lengths])
    task, tasks = (np.zeros(len(steps), np.int64), [""]) if text is None else encode_text("text", text)
    values = {
        "timestamp": (steps / fps).astype(np.float32),
        "frame_index": steps,
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
        "index": np.arange(len(steps)),
        "task_index": task.astype(np.int64),
    }
    return {name: values[name] for name in INDEX}, tasks


def _feature(name: str, column: np.ndarray, picture: bool, known: dict[str, Any]) -> dict[str, Any]:
    shape = list(column.shape[1:]) or [1]
    before = known.get("features", {}).get(name, {})
    given = before.get("names") if before.get("shape") == shape else None
    if picture:
        return {"dtype": "image", "shape": shape, "names": given or ["height", "width", "channels"]}
    return {"dtype": "string" if is_text(column) else column.dtype.name, "shape": shape, "names": given}


def _places(frames: Frames, version: str, chunks_size: int, size_in_mb: float) -> list[dict[str, int]]:
    """For each episode the fields of its file's path."""
    lengths = frames.lengths
    if version == V2:
        return [{"episode_chunk": episode // chunks_size, "episode_index": episode} for episode in range(len(lengths))]
    per_step = sum(column.nbytes for column in frames.data.values()) / max(1, int(lengths.sum()))
    return spread(lengths * per_step / MB, chunks_size, size_in_mb)


def _write_data(root: Path, frames: Frames, places: list[dict[str, int]], version: str) -> None:
    kinds = {name: _hugging_face(feature) for name, feature in frames.features.items()}
    metadata = {b"huggingface": json.dumps({"info": {"features": kinds}}).encode()}
    ends = np.cumsum(frames.lengths).tolist()
    begin = 0
    for episode, end in enumerate(ends):
        if episode + 1 < len(ends) and places[episode + 1] == places[episode]:
            continue
        path = root / _PATHS[version].format(**places[episode])
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            name: encode_pictures(column[begin:end]) if frames.is_image(name) else to_arrow(column[begin:end])
            for name, column in frames.data.items()
        }
        table = pa.table(arrays).replace_schema_metadata(metadata)
        pq.write_table(table, path, compression="snappy", row_group_size=_ROWS)
        begin = end


def _hugging_face(feature: dict[str, Any]) -> dict[str, Any]:
    """A feature as the `datasets` library describes it in a parquet file's schema."""
    shape, value = feature["shape"], {"dtype": feature["dtype"], "_type": "Value"}
    if feature["dtype"] == "image":
        return {"_type": "Image"}
    if shape == [1]:
        return value
    if len(shape) == 1:
        return {"feature": value, "length": shape[0] or -1, "_type": "Sequence"}
    return {"shape": shape, "dtype": feature["dtype"], "_type": f"Array{len(shape)}D"}


def _write_ours(
    root: Path,
    source: Source,
    columns: dict[str, np.ndarray],
    names: dict[str, str],
    features: dict[str, dict[str, Any]],
    final: dict[str, np.ndarray],
) -> None:
    kept = {key: value for key, value in source.metadata.items() if key not in ("lerobot", *REPEATED)}
    entries = {
        names[path]: {"path": path, "shape": list(column.shape[1:]), "feature": features[names[path]]["shape"]}
        for path, column in columns.items()
    }
    top = {**header(source), "metadata": kept, "text": source.episodes.text is not None, "columns": entries}
    (root / OURS).write_text(dump_json({**top, "lengths": source.episodes.lengths}), "utf-8")
    if final:
        pq.write_table(pa.table({path: to_arrow(column) for path, column in final.items()}), root / FINAL)
