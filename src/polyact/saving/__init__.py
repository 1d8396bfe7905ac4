"""Policies, environments, learners and training states as folders: arrays in safetensors, everything else in JSON.

Loading never executes what a file says. A file names classes; they are looked up among the modules and dataclasses that polyact
itself defines, optax's optimiser states and those a user has registered with `registered`, and their fields are set without calling
a constructor. Whatever does not match (unknown class, missing or further field, another checksum, shape or dtype) is refused with
one line.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar, overload

import safetensors.numpy

from polyact.errors import SavedError, one_line
from polyact.files import whole_folder
from polyact.saving.decode import Reader
from polyact.saving.encode import Writer
from polyact.saving.files import (
    DESCRIPTION,
    FORMAT,
    VERSION,
    WEIGHTS,
    check_target,
    digest,
    plain,
    read_description,
    read_weights,
    versions,
)
from polyact.saving.known import registered as registered

T = TypeVar("T")


def save(value: Any, folder: str | Path, provenance: dict[str, Any] | None = None, *, overwrite: bool = False) -> Path:
    """Write `value` (a policy, or any tree of polyact's modules) to a folder; returns it.

    provenance: JSON values that say where it comes from (data fingerprints, seed, metrics); versions are added. Raises SavedError when
    the folder exists (unless `overwrite`, and then only a folder that `save` wrote is replaced), PolyactError naming the field when
    something in `value` can't be saved.
    """
    folder = Path(folder)
    check_target(folder, overwrite)
    writer = Writer()
    described = writer.encode(value, "value")
    weights = safetensors.numpy.save(writer.arrays)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "arrays": {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in writer.arrays.items()},
        "provenance": {"versions": versions()} | plain(provenance or {}),
        "value": described,
    }
    text = json.dumps(content | {"sha256": digest(content)}, indent=1, allow_nan=False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(folder) as aside:
        (aside / WEIGHTS).write_bytes(weights)
        (aside / DESCRIPTION).write_bytes(text.encode())
    return folder


@overload
def load(folder: str | Path) -> Any: ...
@overload
def load(folder: str | Path, kind: type[T]) -> T: ...
def load(folder: str | Path, kind: type = object) -> Any:
    """Read what `save` wrote; `kind` is the class it is expected to be. Raises SavedError with one line that says what is wrong."""
    folder = Path(folder)
    content = read_description(folder)
    arrays = read_weights(folder, content)
    reader = Reader(arrays)
    try:
        value = reader.decode(content["value"])
    except Exception as error:  # a class's own checks raise whatever they like on fields of the wrong kind
        raise SavedError(f"{folder / DESCRIPTION}: {one_line(error)}") from error
    if unused := arrays.keys() - reader.used:
        raise SavedError(f"{folder}: array '{min(unused)}' belongs to nothing")
    if not isinstance(value, kind):
        raise SavedError(f"{folder} holds a {type(value).__name__}, expected a {kind.__name__}")
    return value


def read_provenance(folder: str | Path) -> dict[str, Any]:
    """Where a saved value comes from: "versions" and what was given to `save`. Reads no arrays."""
    return read_description(Path(folder))["provenance"]
