"""The record as documentation: a page of all verdicts with a forest plot, and a page per system. Markdown text; nothing is written here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from polyact.claims.card import FAMILIES, Card
from polyact.claims.record import Json, effect_line
from polyact.evaluation.report.plots import draw
from polyact.evaluation.report.report import Effect, Forest
from polyact.evaluation.statistics.estimate import Estimate

REACH = 12.0  # half-widths; what lies beyond is drawn at the edge
AXIS = "beyond the smallest effect of interest, in half-widths of the 95 % interval"


def claims_page(lines: Mapping[tuple[str, str], Json], cards: Mapping[str, Card]) -> str:
    """Every recorded verdict: counts, the forest plot, a table per family."""
    known = {key: line for key, line in lines.items() if key[0] in cards}
    parts = [
        "# Claims",
        "Every system states what its paper claims as an experiment that can fail. These are the last recorded verdicts, on test "
        "seeds that nothing was tuned on; `polyact claim SLUG` measures one again. *holds*: the 95 % interval of system minus every "
        "named rival lies beyond the smallest effect of interest; *fails*: it lies on the wrong side of zero; *not shown*: neither.",
        _counts(known),
        _forest(known),
    ]
    for family in FAMILIES:
        own = {key: line for key, line in known.items() if cards[key[0]].family == family}
        if own:
            parts += [f"## {family.capitalize()}", _table(own)]
    return "\n\n".join(part for part in parts if part) + "\n"


def systems_page(cards: Mapping[str, Card]) -> str:
    """All systems by family, each with a link to its page."""
    parts = ["# Systems", "One paper, one file. `polyact systems show SLUG` says the same in a terminal."]
    for family in FAMILIES:
        rows = [
            (f"[{card.name}]({family}/{slug}.md)", card.kind, card.summary) for slug, card in cards.items() if card.family == family
        ]
        if rows:
            parts += [f"## {family.capitalize()}", markdown_table(("system", "kind", "what it does"), rows)]
    return "\n\n".join(parts) + "\n"


def system_page(card: Card, about: str, lines: Mapping[tuple[str, str], Json], module: str) -> str:
    """What a system is, how to use it, what was measured, and its classes and functions."""
    own = {key: line for key, line in lines.items() if key[0] == card.slug}
    source = f"{card.title}{f' ([arXiv {card.arxiv}](https://arxiv.org/abs/{card.arxiv}))' if card.arxiv else ''}"
    parts = [
        f"# {card.name}",
        f"*{source}*",
        about,
        "## Use",
        f"```python\n{card.usage.strip()}\n```",
        "## Claims",
        _table(own) if own else "No verdict is recorded.",
        f"Run it: `polyact claim {card.slug}`",
        "## Reference",
        f"::: {module}\n    options:\n      show_root_heading: false\n      show_docstring_description: true",
    ]
    return "\n\n".join(parts) + "\n"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose cells may hold anything but line breaks and bars, which are replaced."""
    body = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", "<br>") for cell in row) + " |" for row in body)


def _counts(lines: Mapping[tuple[str, str], Json]) -> str:
    found = {verdict: sum(line["verdict"] == verdict for line in lines.values()) for verdict in ("holds", "fails", "not shown")}
    heads = [line for line in lines.values() if line["headline"]]
    hold = sum(line["verdict"] == "holds" for line in heads)
    return (
        f"{len(lines)} claims of {len({slug for slug, _ in lines})} systems: "
        + ", ".join(f"{count} *{verdict}*" for verdict, count in found.items())
        + f". The first claim of a system is its headline; it holds for {hold} of {len(heads)}."
    )


def _table(lines: Mapping[tuple[str, str], Json]) -> str:
    rows = [
        (
            slug,
            claim,
            f"**{line['verdict']}**",
            "\n".join(effect_line(line, effect) for effect in line["effects"]),
            f"{line['seeds']} from {line['first_seed']}",
            f"{line['seconds']:.0f}",
            f"{line['scale']}, {line['version']['commit'] or line['version']['polyact']}",
        )
        for (slug, claim), line in lines.items()
    ]
    return markdown_table(("system", "claim", "verdict", "effect [95 %]", "seeds", "s", "scale, code"), rows)


def _forest(lines: Mapping[tuple[str, str], Json]) -> str:
    effects = [
        Effect(f"{slug}: {claim} (over {effect['rival']})", placed)
        for (slug, claim), line in lines.items()
        if line["test"]["kind"] == "beats"
        for effect in line["effects"]
        if (placed := in_half_widths(effect)) is not None
    ]
    if not effects:
        return ""
    return f'<div class="forest">{draw(Forest("Effects of all claims", AXIS, tuple(effects)), 720)}</div>'


def in_half_widths(effect: Json) -> Estimate | None:
    """How far an effect lies beyond its margin, as a multiple of half its interval; None when it has no interval."""
    low, high = effect["low"], effect["high"]
    if low is None or high is None or not high > low:
        return None
    half = (high - low) / 2
    value, low, high = (float(min(max((end - effect["margin"]) / half, -REACH), REACH)) for end in (effect["value"], low, high))
    return Estimate(value, low, high, 0.95, 1, "mean", "seeds") if math.isfinite(value) else None
