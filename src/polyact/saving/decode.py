"""From JSON and a table of arrays back to a value; what is not exactly of the known forms is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from polyact import spaces
from polyact.errors import SavedError
from polyact.saving.known import DTYPES, FUNCTIONS, KEY_KINDS, build, resolve


class Reader:
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
                return build(resolve(name), {field: self.decode(value) for field, value in fields.items()})
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
                return resolve(name)
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


def _on_device(array: np.ndarray, name: str) -> jax.Array:
    device = jnp.asarray(array)
    if device.dtype != array.dtype:
        raise SavedError(f"array '{name}' is {array.dtype}, which needs jax_enable_x64")
    return device
