"""Policies, environments, learners and training states as folders: arrays in safetensors, everything else in JSON.

Loading never executes what a file says. A file names classes; they are looked up among the modules and dataclasses that polyact
itself defines, optax's optimiser states and those a user has registered with `registered`, and their fields are set without calling
a constructor. Whatever does not match (unknown class, missing or further field, another checksum, shape or dtype) is refused with
one line.
"""

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import math
import os
import platform
import re
import shutil
import sys
import uuid
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from polyact import spaces
from polyact.errors import PolyactError, SavedError
from polyact.spaces import Space

T = TypeVar("T")

FORMAT, VERSION = "polyact", 1
WEIGHTS, DESCRIPTION = "weights.safetensors", "policy.json"
FUNCTIONS: dict[str, Callable] = {
    **{
        f"jax.nn.{n}": getattr(jax.nn, n)
        for n in ("relu", "gelu", "silu", "elu", "selu", "mish", "softplus", "sigmoid", "leaky_relu")
    },
    **{f"jax.numpy.{n}": getattr(jnp, n) for n in ("tanh", "sin", "cos", "exp", "square", "abs")},
}
DTYPES = {np.dtype(kind) for kind in (bool, *"bhilBHIL", np.float16, np.float32, np.float64, np.complex64)} | {
    np.dtype(kind) for kind in (jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2)
}
KEY_KINDS = ("threefry2x32", "rbg", "unsafe_rbg")
CLASS_NAME = re.compile(r"polyact(\.[a-z][a-z0-9_]*)+:[A-Za-z][A-Za-z0-9_]*")
OPTIMISER_NAME = re.compile(r"optax(\.[a-z_]+)*:[A-Za-z]+")  # optax's states are NamedTuples

_REGISTERED: dict[str, type] = {}


def registered(kind: type[T]) -> type[T]:
    """Allow a class outside polyact (an equinox Module, a dataclass or a NamedTuple) to be saved and loaded. Usable as a decorator."""
    _REGISTERED[_class_name(kind)] = kind
    return kind


def save(value: Any, folder: str | Path, provenance: dict[str, Any] | None = None, *, overwrite: bool = False) -> Path:
    """Write `value` (a policy, or any tree of polyact's modules) to a folder; returns it.

    provenance: JSON values that say where it comes from (data fingerprints, seed, metrics); versions are added. Raises SavedError when
    the folder exists (unless `overwrite`, and then only a folder that `save` wrote is replaced), PolyactError naming the field when
    something in `value` can't be saved.
    """
    folder = Path(folder)
    _check_target(folder, overwrite)
    writer = _Writer()
    described = writer.encode(value, "value")
    weights = safetensors.numpy.save(writer.arrays)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "arrays": {name: {"dtype": array.dtype.name, "shape": list(array.shape)} for name, array in writer.arrays.items()},
        "provenance": {"versions": _versions()} | _plain(provenance or {}),
        "value": described,
    }
    text = json.dumps(content | {"sha256": _digest(content)}, indent=1, allow_nan=False)
    aside = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    aside.mkdir(parents=True)
    try:
        _write(aside / WEIGHTS, weights)
        _write(aside / DESCRIPTION, text.encode())
        _put(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


@overload
def load(folder: str | Path) -> Any: ...
@overload
def load(folder: str | Path, kind: type[T]) -> T: ...
def load(folder: str | Path, kind: type = object) -> Any:
    """Read what `save` wrote; `kind` is the class it is expected to be. Raises SavedError with one line that says what is wrong."""
    folder = Path(folder)
    content = _read_description(folder)
    arrays = _read_weights(folder, content)
    reader = _Reader(arrays)
    try:
        value = reader.decode(content["value"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise SavedError(f"{folder / DESCRIPTION}: {_line(error)}") from error
    if unused := arrays.keys() - reader.used:
        raise SavedError(f"{folder}: array '{min(unused)}' belongs to nothing")
    if not isinstance(value, kind):
        raise SavedError(f"{folder} holds a {type(value).__name__}, expected a {kind.__name__}")
    return value


def read_provenance(folder: str | Path) -> dict[str, Any]:
    """Where a saved value comes from: "versions" and what was given to `save`. Reads no arrays."""
    return _read_description(Path(folder))["provenance"]


class _Writer:
    """Turns a value into JSON, putting arrays aside under the path at which they were found."""

    def __init__(self):
        self.arrays: dict[str, np.ndarray] = {}

    def encode(self, value: Any, path: str) -> Any:
        match value:
            case None | bool() | str():
                return value
            case np.generic():
                return {"scalar": self._keep(np.asarray(value), path)}
            case int():
                return value
            case float():
                return value if math.isfinite(value) else {"float": repr(value)}
            case jax.Array() if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
                return {"key": self._keep(np.asarray(jax.random.key_data(value)), path), "kind": str(jax.random.key_impl(value))}
            case jax.Array():
                return {"array": self._keep(np.asarray(value), path)}
            case np.ndarray():
                return {"numpy": self._keep(value, path)}
            case np.dtype():
                return {"dtype": value.name}
            case list():
                return [self.encode(item, f"{path}.{i}") for i, item in enumerate(value)]
            case dict():
                return {"dict": [[self.encode(k, path), self.encode(v, f"{path}.{k}")] for k, v in value.items()]}
            case type():
                return {"type": self._class(value, path)}
            case Space():
                return {"space": _compact(spaces.to_json(value))}
        if type(value) is tuple:
            return {"tuple": [self.encode(item, f"{path}.{i}") for i, item in enumerate(value)]}
        for name, function in FUNCTIONS.items():
            if value is function:
                return {"function": name}
        name = self._class(type(value), path)
        names = _field_names(_resolve(name))
        fields = {field: self.encode(getattr(value, field), f"{path}.{field}") for field in names}
        return {"class": name, "fields": fields}

    def _class(self, kind: type, path: str) -> str:
        name = _class_name(kind)
        try:
            _resolve(name)
        except SavedError as error:
            raise PolyactError(f"can't save {path}: {error}") from error
        return name

    def _keep(self, array: np.ndarray, path: str) -> str:
        if array.dtype not in DTYPES:
            raise PolyactError(f"can't save {path}: arrays of dtype {array.dtype} have no safe form")
        name = path
        while name in self.arrays:
            name += "'"
        self.arrays[name] = np.array(array, order="C")
        return name


class _Reader:
    """The inverse, which remembers which arrays it used."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays
        self.used: set[str] = set()

    def decode(self, node: Any) -> Any:
        match node:
            case None | bool() | int() | float() | str():
                return node
            case list():
                return [self.decode(item) for item in node]
            case {"class": str(name), "fields": dict(fields), **rest} if not rest:
                return _build(_resolve(name), {field: self.decode(value) for field, value in fields.items()})
            case {"key": str(name), "kind": str(kind), **rest} if not rest and kind in KEY_KINDS:
                return jax.random.wrap_key_data(jnp.asarray(self._take(name)), impl=kind)
            case {"array": str(name), **rest} if not rest:
                return _on_device(self._take(name), name)
            case {"numpy": str(name), **rest} if not rest:
                return self._take(name)
            case {"scalar": str(name), **rest} if not rest:
                return self._take(name)[()]
            case {"tuple": list(items), **rest} if not rest:
                return tuple(self.decode(item) for item in items)
            case {"dict": list(items), **rest} if not rest:
                return {self.decode(key): self.decode(value) for key, value in items}
            case {"space": dict(space), **rest} if not rest:
                return spaces.from_json(space)
            case {"float": "nan" | "inf" | "-inf" as text, **rest} if not rest:
                return float(text)
            case {"type": str(name), **rest} if not rest:
                return _resolve(name)
            case {"dtype": str(name), **rest} if not rest and name in {dtype.name for dtype in DTYPES}:
                return np.dtype(name)
            case {"function": str(name), **rest} if not rest and name in FUNCTIONS:
                return FUNCTIONS[name]
        raise SavedError(f"nothing polyact knows looks like {str(node)[:80]}")

    def _take(self, name: str) -> np.ndarray:
        if name not in self.arrays or name in self.used:
            raise SavedError(f"array '{name}' is {'used twice' if name in self.used else 'missing'}")
        self.used.add(name)
        return self.arrays[name]


def _class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _resolve(name: str) -> type:
    """The class of that name, if it is one that may be built from a file."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    module_name, _, class_name = name.partition(":")
    if OPTIMISER_NAME.fullmatch(name):
        importlib.import_module("optax")
        kind = getattr(sys.modules.get(module_name), class_name, None)
        if isinstance(kind, type) and kind.__module__ == module_name and _is_named_tuple(kind):
            return kind
    if not CLASS_NAME.fullmatch(name):
        raise SavedError(f"unknown class '{name[:80]}': only polyact's own classes and registered ones are built from files")
    try:
        if importlib.util.find_spec(module_name) is None:
            raise SavedError(f"unknown class '{name}': this polyact has no module {module_name}")
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SavedError(f"unknown class '{name}': {_line(error)}") from error
    kind = getattr(module, class_name, None)
    if not isinstance(kind, type) or kind.__module__ != module_name or not _is_plain_data(kind):
        raise SavedError(f"unknown class '{name}': {module_name} defines no module or dataclass of that name")
    return kind


def _is_plain_data(kind: type) -> bool:
    return issubclass(kind, eqx.Module) or dataclasses.is_dataclass(kind) or _is_named_tuple(kind)


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def _field_names(kind: type) -> tuple[str, ...]:
    return kind._fields if issubclass(kind, tuple) else tuple(field.name for field in dataclasses.fields(kind))  # pyright: ignore


def _build(kind: type, fields: dict[str, Any]) -> Any:
    names = _field_names(kind)
    if missing := [name for name in names if name not in fields]:
        raise SavedError(f"{kind.__name__} lacks its field '{missing[0]}'")
    if further := [name for name in fields if name not in names]:
        raise SavedError(f"{kind.__name__} has no field '{further[0]}'")
    if issubclass(kind, tuple):
        return tuple.__new__(kind, [fields[name] for name in names])
    value = object.__new__(kind)
    for name in names:
        object.__setattr__(value, name, fields[name])
    for base in reversed(kind.__mro__):
        if "__check_init__" in vars(base):
            vars(base)["__check_init__"](value)
    return value


def _on_device(array: np.ndarray, name: str) -> jax.Array:
    device = jnp.asarray(array)
    if device.dtype != array.dtype:
        raise SavedError(f"array '{name}' is {array.dtype}, which needs jax_enable_x64")
    return device


def _compact(space: dict[str, Any]) -> dict[str, Any]:
    """Equal bounds once instead of for every entry, and infinities as words, which JSON can hold."""
    if space["type"] == "Box":
        return space | {side: _bound(space[side]) for side in ("low", "high")}
    match space.get("subspaces"):
        case dict(parts):
            return space | {"subspaces": {name: _compact(part) for name, part in parts.items()}}
        case list(parts):
            return space | {"subspaces": [_compact(part) for part in parts]}
    return space


def _bound(bound: Any) -> Any:
    array = np.asarray(bound)
    if array.size and (array == array.flat[0]).all():
        bound = array.flat[0].item()
    return jax.tree.map(lambda x: x if math.isfinite(x) else str(x), bound)


def _check_target(folder: Path, overwrite: bool) -> None:
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise SavedError(f"{folder} exists; choose another folder or overwrite it")
    ours = folder.is_dir() and not folder.is_symlink() and (folder / DESCRIPTION).is_file()
    if not ours or {path.name for path in folder.iterdir()} - {WEIGHTS, DESCRIPTION}:
        raise SavedError(f"{folder} is not (only) a saved policy and is not overwritten")


def _put(aside: Path, folder: Path) -> None:
    """Rename into place; an old folder is moved out first and restored if that fails."""
    if not folder.exists():
        os.rename(aside, folder)
        return
    old = aside.with_name(aside.name + ".old")
    os.rename(folder, old)
    try:
        os.rename(aside, folder)
    except OSError:
        os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        content = json.loads(path.read_bytes(), parse_constant=refuse)
    except FileNotFoundError as error:
        raise SavedError(f"{folder} is not a saved policy: it has no {DESCRIPTION}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise SavedError(f"{path} is damaged: {_line(error)}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SavedError(f"{path} is not a description of a saved policy")
    if content.get("version") != VERSION:
        raise SavedError(f"{path} has version {str(content.get('version'))[:20]}, this polyact reads version {VERSION}")
    if content.pop("sha256", None) != _digest(content):
        raise SavedError(f"{path} is damaged or was edited: its checksum does not match")
    if content.keys() != {"format", "version", "weights_sha256", "arrays", "provenance", "value"}:
        raise SavedError(f"{path} has fields {', '.join(sorted(content))[:200]}, which are not those of version {VERSION}")
    return content


def _read_weights(folder: Path, content: dict[str, Any]) -> dict[str, np.ndarray]:
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
        raise SavedError(f"{path}: {_line(error)}") from error
    return arrays


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Provenance as JSON: scalars of NumPy and JAX as numbers, numbers that are not finite as words."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else repr(value)
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case np.generic() | np.ndarray() | jax.Array():
            return _plain(np.asarray(value).tolist())
        case Path():
            return str(value)
    raise PolyactError(f"provenance can't hold a {type(value).__name__}: {str(value)[:80]}")


def _versions() -> dict[str, str]:
    packages = ("polyact", "jax", "equinox", "numpy", "safetensors")
    return {"python": platform.python_version()} | {package: metadata.version(package) for package in packages}


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
