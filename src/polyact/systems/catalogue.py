"""Which systems there are. Cards are read from the files' text, so listing a hundred systems imports none of them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from polyact.claims.card import FAMILIES, Card
from polyact.claims.claim import Claim
from polyact.errors import PolyactError, unknown

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class System:
    """A system that was imported: its card, its claims and its module."""

    card: Card
    claims: tuple[Claim, ...]
    module: ModuleType


def files() -> dict[str, Path]:
    """The file of every system, by slug, in the order of families and names."""
    found = [path for family in FAMILIES for path in sorted((FOLDER / family).glob("*.py")) if path.stem != "__init__"]
    return {path.stem.replace("_", "-"): path for path in found}


def cards(family: str | None = None) -> dict[str, Card]:
    """The card of every system (of a family). Raises PolyactError for a family that does not exist and a file without a proper card."""
    if family is not None and family not in FAMILIES:
        raise unknown("family", family, FAMILIES)
    return {slug: _card(slug, path) for slug, path in files().items() if family in (None, path.parent.name)}


def system(slug: str) -> System:
    """Import a system. Raises PolyactError with the nearest match when there is none of that name."""
    path = place(slug)
    module = import_module(f"polyact.systems.{path.parent.name}.{path.stem}")
    return System(module.CARD, tuple(module.CLAIMS), module)


def place(slug: str) -> Path:
    """The file of a system."""
    known = files()
    if slug not in known:
        raise unknown("system", slug, known)
    return known[slug]


def docstring(slug: str) -> str:
    """What a system's file says of itself."""
    return ast.get_docstring(ast.parse(place(slug).read_text("utf-8"))) or ""


def _card(slug: str, path: Path) -> Card:
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["CARD"]:
            card = Card(**_literals(node.value, path))
            if (card.slug, card.family) != (slug, path.parent.name):
                raise PolyactError(f"{path}: its card says {card.family}/{card.slug}")
            return card
    raise PolyactError(f"{path} has no CARD")


def _literals(call: ast.expr, path: Path) -> dict[str, Any]:
    try:
        assert isinstance(call, ast.Call)
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, AssertionError) as error:
        raise PolyactError(f"{path}: CARD must be Card(field='text', ...) of plain texts") from error
