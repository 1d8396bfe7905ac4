"""From a value to JSON and a table of arrays."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from polyact import spaces
from polyact.errors import PolyactError, SavedError
from polyact.saving.known import DTYPES, FUNCTIONS, class_name, field_names, resolve
from polyact.spaces import Space


class Writer:
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
        names = field_names(resolve(name))
        fields = {field: self.encode(getattr(value, field), f"{path}.{field}") for field in names}
        return {"class": name, "fields": fields}

    def _class(self, kind: type, path: str) -> str:
        name = class_name(kind)
        try:
            resolve(name)
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
