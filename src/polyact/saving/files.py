"""The two files of a saved value: what may be overwritten, and reading with checksums."""

import hashlib
import json
import math
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors

from polyact.errors import PolyactError, SavedError, one_line
from polyact.saving.known import DTYPES

FORMAT, VERSION = "polyact", 1
WEIGHTS, DESCRIPTION = "weights.safetensors", "policy.json"


def check_target(folder: Path, overwrite: bool) -> None:
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise SavedError(f"{folder} exists; choose another folder or overwrite it")
    ours = folder.is_dir() and not folder.is_symlink() and (folder / DESCRIPTION).is_file()
    if not ours or {path.name for path in folder.iterdir()} - {WEIGHTS, DESCRIPTION}:
        raise SavedError(f"{folder} is not (only) a saved policy and is not overwritten")


def read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        content = json.loads(path.read_bytes(), parse_constant=refuse)
    except FileNotFoundError as error:
        raise SavedError(f"{folder} is not a saved policy: it has no {DESCRIPTION}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise SavedError(f"{path} is damaged: {one_line(error)}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SavedError(f"{path} is not a description of a saved policy")
    if content.get("version") != VERSION:
        raise SavedError(f"{path} has version {str(content.get('version'))[:20]}, this polyact reads version {VERSION}")
    if content.pop("sha256", None) != digest(content):
        raise SavedError(f"{path} is damaged or was edited: its checksum does not match")
    if content.keys() != {"format", "version", "weights_sha256", "arrays", "provenance", "value"}:
        raise SavedError(f"{path} has fields {', '.join(sorted(content))[:200]}, which are not those of version {VERSION}")
    return content


def read_weights(folder: Path, content: dict[str, Any]) -> dict[str, np.ndarray]:
    path = folder / WEIGHTS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SavedError(f"{path} can't be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != content["weights_sha256"]:
        raise SavedError(f"{path} is damaged or belongs to another policy: its checksum does not match {DESCRIPTION}")
    names = {dtype.name: dtype for dtype in DTYPES}
    arrays = {}
    try:
        found = dict(safetensors.deserialize(data))
        if found.keys() != content["arrays"].keys():
            raise SavedError(f"its arrays are not those that {DESCRIPTION} lists")
        for name, facts in content["arrays"].items():
            dtype, shape = names[facts["dtype"]], tuple(facts["shape"])
            if tuple(found[name]["shape"]) != shape or len(found[name]["data"]) != dtype.itemsize * math.prod(shape):
                raise SavedError(f"array '{name}' has shape {found[name]['shape']}, {DESCRIPTION} says {dtype.name}{list(shape)}")
            arrays[name] = np.frombuffer(found[name]["data"], dtype).reshape(shape).copy()
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SavedError(f"{path}: {one_line(error)}") from error
    return arrays


def digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def plain(value: Any) -> Any:
    """Provenance as JSON: scalars of NumPy and JAX as numbers, numbers that are not finite as words."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else repr(value)
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case np.generic() | np.ndarray() | jax.Array():
            return plain(np.asarray(value).tolist())
        case Path():
            return str(value)
    raise PolyactError(f"provenance can't hold a {type(value).__name__}: {str(value)[:80]}")


def versions() -> dict[str, str]:
    packages = ("polyact", "jax", "equinox", "numpy", "safetensors")
    return {"python": platform.python_version()} | {package: metadata.version(package) for package in packages}
