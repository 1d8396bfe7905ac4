"""Pictures inside parquet files, as Hugging Face's `datasets` stores them: a struct of the file's bytes and its path."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa

from polyact.data.formats.common import PathLike
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


def decode_pictures(path: PathLike, name: str, column: pa.ChunkedArray, shape: tuple[int, ...], root: Path) -> np.ndarray:
    """Pictures as uint8 [N, H, W, 3]; shape: of a picture as info.json states it, with the channels first or last."""
    pillow = need("PIL.Image", "video", f"decoding '{name}' (read with images=False to leave it out)")
    height, width = (shape[:2] if shape[2] in (1, 3, 4) else shape[1:]) if len(shape) == 3 else (0, 0)
    out = np.empty((len(column), height, width, 3), np.uint8)
    for row, value in enumerate(column):
        cell = value.as_py()
        try:
            inside = root / (cell.get("path") or "")
            data = cell.get("bytes") or (inside.read_bytes() if inside.resolve().is_relative_to(root.resolve()) else b"")
            picture = np.asarray(pillow.open(io.BytesIO(data)).convert("RGB"))
        except (AttributeError, OSError, ValueError) as error:
            raise DataError(f"{path}: column '{name}' has no readable picture in row {row}: {error}") from error
        if picture.shape != out.shape[1:]:
            raise DataError(
                f"{path}: column '{name}' has a picture of shape {picture.shape} in row {row}, expected {out.shape[1:]}"
            )
        out[row] = picture
    return out
