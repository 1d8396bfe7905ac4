"""Pictures inside parquet files, as Hugging Face's `datasets` stores them: a struct of the file's bytes and its path."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from polyact.data.formats.common import PathLike, reason
from polyact.data.formats.lerobot_meta import INFO
from polyact.errors import DataError, need


def is_picture(column: np.ndarray) -> bool:
    """Whether a column holds RGB pictures, uint8 [N, H, W, 3]."""
    return column.dtype == np.uint8 and column.ndim == 4 and column.shape[3] == 3 and 0 not in column.shape


def encode_pictures(column: np.ndarray) -> pa.Array:
    """uint8 [N, H, W, 3] as PNG files, without loss."""
    pillow = need("PIL.Image", "video", "writing pictures")
    files = []
    for picture in column:
        file = io.BytesIO()
        pillow.fromarray(picture).save(file, format="PNG", compress_level=1)
        files.append(file.getvalue())
    return pa.StructArray.from_arrays([pa.array(files, pa.binary()), pa.nulls(len(files), pa.string())], ["bytes", "path"])


def decode_pictures(path: PathLike, name: str, column: pa.ChunkedArray, feature: dict[str, Any], root: Path) -> np.ndarray:
    """Pictures [N, H, W, C] of C channels: uint8 RGB, or what the files hold where they have one channel (grey, depth).

    feature: its shape may have the channels first or last; the names of the axes tell, or else which axis has 1, 3 or 4.
    """
    pillow = need("PIL.Image", "video", f"decoding '{name}' (read with images=False to leave it out)")
    shape, names = feature["shape"], feature.get("names")
    if len(shape) != 3:
        raise DataError(f"{root / INFO}: image feature '{name}' has shape {shape}, expected height, width and channels")
    stated = names if isinstance(names, list) and len(names) == 3 else None
    last = not str(stated[0]).startswith("channel") if stated else shape[2] in (1, 3, 4)
    height, width, channels = shape if last else (*shape[1:], shape[0])
    expected = (height, width, 1 if channels == 1 else 3)
    pictures: list[np.ndarray] = []
    for row, value in enumerate(column):
        cell = value.as_py()
        try:
            inside = root / (cell.get("path") or "")
            data = cell.get("bytes") or (inside.read_bytes() if inside.resolve().is_relative_to(root.resolve()) else b"")
            opened = pillow.open(io.BytesIO(data))
            picture = np.asarray(opened if channels == 1 else opened.convert("RGB"))
        except (AttributeError, OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{path}: column '{name}' has no readable picture in row {row}: {reason(error)}") from error
        picture = picture[..., None] if picture.ndim == 2 else picture
        if picture.shape != expected:
            raise DataError(f"{path}: column '{name}' has a picture of shape {picture.shape} in row {row}, expected {expected}")
        pictures.append(picture)
    return np.stack(pictures)
