"""Settings as text, read by the annotation of the field they are for: a value of another type is refused in one line."""

import ast
import math
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from polyact.errors import PolyactError

_WORDS = {"true": True, "false": False, "none": None}
_NAMES = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", NoneType: "none"}


def annotation(owner: Any, name: str) -> Any:
    """The annotation of a class's field, or of a function's parameter; Any where there is none."""
    return get_type_hints(owner).get(name, Any)


def parsed(kind: Any, text: str, field: str) -> Any:
    """The value of type `kind` that `text` stands for. Raises PolyactError that names the field, the text and what was expected."""
    kinds, value = _members(kind), _literal(text)
    if value is None and NoneType in kinds:
        return None
    if str in kinds:
        return text
    for one in kinds:
        if _is(one, value):
            return _as(one, value)
    raise PolyactError(f"{field} is '{text}', expected {_expected(kinds)}")


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _is(kind: Any, value: Any) -> bool:
    if kind is Any:
        return True
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        parts = _parts(kind, value)
        return isinstance(value, tuple) and len(parts) == len(value) and all(map(_is, parts, value))
    return kind in _NAMES and type(value) is kind


def _as(kind: Any, value: Any) -> Any:
    if get_origin(kind) is tuple:
        return tuple(map(_as, _parts(kind, value), value))
    return float(value) if kind is float else value


def _parts(kind: Any, value: Any) -> tuple[Any, ...]:
    parts = get_args(kind)
    if len(parts) == 2 and parts[1] is Ellipsis:
        return parts[:1] * (len(value) if isinstance(value, tuple) else 0)
    return parts


def _expected(kinds: tuple[Any, ...]) -> str:
    *names, last = map(_name, kinds)
    return f"{', '.join(names)}{',' if ',' in names[-1] else ''} or {last}" if names else last


def _name(kind: Any) -> str:
    if kind in _NAMES:
        return _NAMES[kind]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        return f"({', '.join('...' if part is Ellipsis else _name(part) for part in parts)})"
    return f"an object of class {getattr(get_origin(kind) or kind, '__name__', kind)}, which has no text"


def _literal(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
