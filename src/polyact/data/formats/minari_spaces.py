"""Minari's spaces: strings of JSON in metadata.json, with tuples and character sets that polyact's columns do not know."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from polyact import spaces
from polyact.data.formats.columns import escape, is_text
from polyact.data.formats.common import parse_json, reading
from polyact.data.source import Source
from polyact.errors import DataError, PolyactError
from polyact.spaces import Space


def read_space(metadata: dict[str, Any], name: str, path: Path) -> Space | None:
    """The space, or None where it is not written down or is of a kind that polyact has no word for (the data then tell)."""
    text = metadata.get(name)
    if text is None:
        return None
    if not isinstance(text, str):
        raise DataError(f"{path}: {name} is of type {type(text).__name__}, expected a string of JSON")
    value = parse_json(text, path, name)
    if "type" not in value:
        raise DataError(f"{path}: {name} has no 'type'")
    with reading(path, name):
        return spaces.from_json(value) if _has_words(value) else None


def _has_words(value: dict[str, Any]) -> bool:
    """Whether polyact has a word for the space; it has none for graphs, sequences, matrices of choices and choices not from 0."""
    match value["type"]:
        case "Dict":
            return all(map(_has_words, value["subspaces"].values()))
        case "Tuple":
            return all(map(_has_words, value["subspaces"]))
        case "MultiDiscrete":
            return np.ndim(value["nvec"]) == 1 and not np.any(value.get("start") or 0)
        case "MultiBinary":
            return np.ndim(value["n"]) == 0
    return value["type"] in ("Box", "Discrete", "Text")


def of_columns(space: Space) -> Space:
    """The space of the columns that hold values of `space`: tuples as dictionaries with the keys "0", "1", ..."""
    match space:
        case spaces.Dict():
            return spaces.Dict({name: of_columns(part) for name, part in space.items})
        case spaces.Tuple():
            return spaces.Dict({str(number): of_columns(part) for number, part in enumerate(space.spaces)})
    return space


def disk_key(key: str) -> str:
    """A key of a dictionary as the files name it: coded where HDF5 would take it for a group or can't hold it."""
    return escape(key) if "/" in key or "%" in key or not key.strip(".") or not key.isprintable() else key


def _on_disk(space: Space) -> Space:
    match space:
        case spaces.Dict():
            return spaces.Dict({disk_key(name): _on_disk(part) for name, part in space.items})
        case spaces.Tuple():
            return spaces.Tuple(tuple(map(_on_disk, space.spaces)))
    return space


def stated_space(source: Source, name: str, original: Any) -> str:
    """The space as metadata.json states it: as it was read where that still fits, else with what Minari asks for added."""
    space = getattr(source, name)
    if space is None:
        space = spaces.Box(-np.inf, np.inf, (1,))
    on_disk = _on_disk(space)
    if isinstance(original, str) and on_disk == space:
        try:
            if of_columns(spaces.from_json(json.loads(original))) == space:
                return original
        except (PolyactError, ValueError):
            pass
    value, column = spaces.to_json(on_disk), source.episodes.observation if name == "observation_space" else source.episodes.action
    characters = "".join(sorted(set(string.ascii_letters + string.digits).union(*_texts(column))))
    return json.dumps(_with_charset(value, characters))


def _with_charset(value: Any, characters: str) -> Any:
    if isinstance(value, dict):
        value = {key: _with_charset(part, characters) for key, part in value.items()}
        return {**value, "charset": characters} if value.get("type") == "Text" else value
    return [_with_charset(part, characters) for part in value] if isinstance(value, list) else value


def _texts(column: Any) -> Iterator[str]:
    if isinstance(column, dict):
        for part in column.values():
            yield from _texts(part)
    elif column is not None and is_text(column):
        yield from map(str, column.tolist())


def parts(space: Space | None) -> Iterator[Space | None]:
    match space:
        case spaces.Dict():
            for _, part in space.items:
                yield from parts(part)
        case spaces.Tuple():
            for part in space.spaces:
                yield from parts(part)
        case _:
            yield space
