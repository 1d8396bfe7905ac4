"""Reports as strict JSON, both ways, driven by the types of their fields: nothing in a file decides what code runs."""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from polyact.errors import PolyactError
from polyact.evaluation.report.report import Report

VERSION = 1


def dump(report: Report) -> str:
    """A report as JSON text."""
    return json.dumps({"polyact_report": VERSION, **_plain(report)}, ensure_ascii=False, allow_nan=False, indent=1)


def load(text: str) -> Report:
    """A report from JSON text. Raises PolyactError in one line."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolyactError(f"not a report: {error}") from error
    if not isinstance(value, dict) or value.pop("polyact_report", None) != VERSION:
        raise PolyactError(f"not a report of version {VERSION} (no field polyact_report: {VERSION})")
    return _read(Report, value, "report")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(kind: Any, value: Any, place: str) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _read(_chosen(parts, value, place), value, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(place, "a list", value)
        kinds = parts[:1] * len(value) if len(parts) == 2 and parts[1] is Ellipsis else parts
        if len(kinds) != len(value):
            raise _wrong(place, f"{len(kinds)} entries", value)
        return tuple(_read(k, v, f"{place}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if is_dataclass(kind):
        return _read_object(kind, value, place)
    return _read_scalar(kind, value, place)


def _read_object(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict) or value.get("type") != kind.__name__:
        raise _wrong(place, f"an object of type {kind.__name__}", value)
    hints, names = get_type_hints(kind), [f.name for f in fields(kind)]
    for name in value.keys() - {"type", *names}:
        raise PolyactError(f"{place}: unknown field '{name}' (known: {', '.join(names)})")
    for name in names:
        if name not in value:
            raise PolyactError(f"{place}: field '{name}' is missing")
    return kind(**{name: _read(hints[name], value[name], f"{place}.{name}") for name in names})


def _read_scalar(kind: Any, value: Any, place: str) -> Any:
    if kind is float and (value is None or (isinstance(value, int | float) and not isinstance(value, bool))):
        return math.nan if value is None else float(value)
    if kind is bytes and isinstance(value, dict):
        try:
            return base64.b64decode(value.get("base64", ""), validate=True)
        except (binascii.Error, TypeError) as error:
            raise PolyactError(f"{place}: damaged base64: {error}") from error
    if type(value) is not kind:
        raise _wrong(place, kind.__name__, value)
    return value


def _chosen(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    """The member of a union that a JSON value stands for."""
    if isinstance(value, dict) and "base64" in value and bytes in kinds:
        return bytes
    named = {str(kind.__name__): kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)}
    if isinstance(value, dict) and value.get("type") in named:
        return named[value["type"]]
    kind = NoneType if value is None else type(value)
    if kind in kinds:
        return kind
    raise _wrong(place, " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds), value)


def _wrong(place: str, expected: str, value: Any) -> PolyactError:
    return PolyactError(f"{place}: expected {expected}, got {' '.join(repr(value).split())[:80]}")
