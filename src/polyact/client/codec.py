"""Messages of openpi's policy servers: msgpack maps whose arrays are maps themselves, decoded without trusting the sender.

An array is {b"__ndarray__": true, b"data": C-ordered bytes, b"dtype": "<f4", b"shape": [...]}, a NumPy scalar
{b"__npgeneric__": true, b"data": value, b"dtype": "<f4"}. Decoding builds numbers, strings, lists, maps and arrays, never anything
else, and its work is bounded by the length of the message.
"""

import math
import re
from types import ModuleType
from typing import Any

import numpy as np

from polyact.errors import PolyactError, need, one_line

DTYPE = re.compile(r"[<>|=]?[biufSU]\d{1,5}")
MOST_MAPS = 4096  # in one message, arrays included: an observation has dozens
MOST_ENTRIES = 1 << 16  # of one list or map
MOST_AXES = 16


class WireError(PolyactError):
    """A message that is not what the protocol says."""


def packb(message: dict[str, Any]) -> bytes:
    """A message as bytes. Raises WireError for values that have no place in one (complex, structured or object arrays, classes)."""
    try:
        return _msgpack().packb(message, default=_pack)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"the message can't be packed: {one_line(error)}") from error


def unpackb(data: bytes) -> dict[Any, Any]:
    """The map in a binary message; arrays are read-only views of it. Raises WireError with one line that says what is wrong."""
    msgpack = _msgpack()
    try:
        message = msgpack.unpackb(
            data,
            object_hook=_Maps(),
            ext_hook=_no_extension,
            max_array_len=MOST_ENTRIES,
            max_map_len=MOST_ENTRIES,
            max_ext_len=0,
        )
    except WireError:
        raise
    except msgpack.exceptions.StackError as error:
        raise WireError("the message is nested too deeply") from error
    except (msgpack.exceptions.UnpackException, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise WireError(f"the message is no valid msgpack: {one_line(error)}") from error
    if not isinstance(message, dict):
        raise WireError(f"a message is a map of names to values, got {type(message).__name__}")
    return message


def _msgpack() -> ModuleType:
    return need("msgpack", "client", "talking to a policy server")


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        if not DTYPE.fullmatch(value.dtype.str):
            raise WireError(f"the message can't be packed: arrays of {value.dtype} have no place in it")
        if isinstance(value, np.generic):
            return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    raise TypeError(f"{type(value).__name__} has no place in a message")


class _Maps:
    """Turns the maps of one message that stand for arrays and scalars into them, and counts."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, found: dict[Any, Any]) -> Any:
        self.seen += 1
        if self.seen > MOST_MAPS:
            raise WireError(f"the message holds more than {MOST_MAPS} maps")
        if b"__ndarray__" in found:
            return _array(found)
        if b"__npgeneric__" in found:
            return _scalar(found)
        return found


def _array(found: dict[Any, Any]) -> np.ndarray:
    shape, data, dtype = found.get(b"shape"), found.get(b"data"), _dtype(found.get(b"dtype"))
    if found.keys() != {b"__ndarray__", b"data", b"dtype", b"shape"} or found[b"__ndarray__"] is not True:
        raise WireError("an array has exactly the entries __ndarray__ (true), data, dtype and shape")
    whole = isinstance(shape, list) and len(shape) <= MOST_AXES and all(type(n) is int and n >= 0 for n in shape)
    if not whole or not isinstance(shape, list):
        raise WireError(f"the shape of an array is a list of at most {MOST_AXES} whole numbers >= 0, got {_short(shape)}")
    if not dtype.itemsize:
        raise WireError(f"an array can't have dtype {dtype.str}, whose entries are empty")
    if not isinstance(data, bytes):
        raise WireError(f"the data of an array are bytes, got {type(data).__name__}")
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise WireError(f"an array of shape {_short(shape)} and dtype {dtype.str} has {_short(expected)} bytes, got {len(data)}")
    try:
        return np.ndarray(shape, dtype, data)
    except ValueError as error:  # empty, but with axes that are too long
        raise WireError(f"an array of shape {_short(shape)} is too large") from error


def _scalar(found: dict[Any, Any]) -> np.generic:
    if found.keys() != {b"__npgeneric__", b"data", b"dtype"} or found[b"__npgeneric__"] is not True:
        raise WireError("a scalar has exactly the entries __npgeneric__ (true), data and dtype")
    value, dtype = found[b"data"], _dtype(found[b"dtype"])
    kinds = {"b": bool, "i": int, "u": int, "f": int | float, "S": bytes, "U": str}[dtype.kind]
    if not isinstance(value, kinds):
        raise WireError(f"a scalar of dtype {dtype.str} can't hold a {type(value).__name__}")
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise WireError(f"{_short(value)} is no {dtype.name}")
    with np.errstate(over="ignore"):
        return dtype.type(value)


def _dtype(text: Any) -> np.dtype:
    if not isinstance(text, str) or not DTYPE.fullmatch(text):
        raise WireError(f"a dtype is a text like '<f4' of kind bool, integer, float or text, got {_short(text)}")
    try:
        return np.dtype(text)
    except TypeError as error:
        raise WireError(f"there is no dtype {_short(text)}") from error


def _no_extension(code: int, data: bytes) -> Any:
    raise WireError(f"msgpack extension {code} has no place in a message")


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a huge number"
    return text if len(text) <= 80 else text[:77] + "..."
