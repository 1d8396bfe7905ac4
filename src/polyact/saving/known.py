"""What may stand in a saved file: polyact's own classes, optax's states, those a user has registered; some functions and dtypes."""

import dataclasses
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from polyact.errors import SavedError, one_line

T = TypeVar("T")

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
    _REGISTERED[class_name(kind)] = kind
    return kind


def class_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def resolve(name: str) -> type:
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
        raise SavedError(f"unknown class '{name}': {one_line(error)}") from error
    kind = getattr(module, class_name, None)
    if not isinstance(kind, type) or kind.__module__ != module_name or not _is_plain_data(kind):
        raise SavedError(f"unknown class '{name}': {module_name} defines no module or dataclass of that name")
    return kind


def _is_plain_data(kind: type) -> bool:
    return issubclass(kind, eqx.Module) or dataclasses.is_dataclass(kind) or _is_named_tuple(kind)


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def field_names(kind: type) -> tuple[str, ...]:
    return kind._fields if issubclass(kind, tuple) else tuple(field.name for field in dataclasses.fields(kind))  # pyright: ignore


def build(kind: type, fields: dict[str, Any]) -> Any:
    names = field_names(kind)
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
