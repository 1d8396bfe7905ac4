"""`polyact systems`: what there is, and what is known of one."""

from typing import Any

from polyact.app.arguments import Systems
from polyact.app.show import print_json, print_table, say
from polyact.claims import record
from polyact.claims.record import Json
from polyact.errors import PolyactError
from polyact.systems import catalogue


def run(command: Systems) -> None:
    match command.words:
        case ():
            _all(command)
        case ("show", slug):
            if command.family:
                raise PolyactError("--family has no effect on 'systems show SLUG'")
            _one(slug, command.json)
        case _:
            raise PolyactError("write 'polyact systems' to list them or 'polyact systems show SLUG' for one")


def _all(command: Systems) -> None:
    cards, kept = catalogue.cards(command.family), record.latest()
    rows = [(card.family, slug, card.kind, card.summary, _verdicts(slug, kept)) for slug, card in cards.items()]
    if command.json:
        columns = ("family", "slug", "kind", "summary", "verdicts")
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    table = [(*row[:4], ", ".join(f"{count} {verdict}" for verdict, count in row[4].items()) or "none recorded") for row in rows]
    print_table("Systems", ("family", "slug", "kind", "what it does", "claims"), table)
    say("polyact systems show SLUG says more; polyact claim SLUG runs its experiment.")


def _one(slug: str, as_json: bool) -> None:
    system = catalogue.system(slug)
    card, kept = system.card, record.latest()
    last = {claim.name: kept.get((slug, claim.name)) for claim in system.claims}
    current = record.text_hash(catalogue.place(slug))
    if as_json:
        claims = [{"claim": claim.name, "says": claim.says, "last": last[claim.name]} for claim in system.claims]
        print_json(vars(card) | {"about": catalogue.docstring(slug), "claims": claims})
        return
    say(f"{card.name} ({card.family}, {card.kind})\n{card.title}{f', arXiv {card.arxiv}' if card.arxiv else ''}\n")
    say(catalogue.docstring(slug) + "\n")
    say("Use:\n\n    " + card.usage.strip().replace("\n", "\n    ") + "\n")
    rows = [(claim.name, claim.says, *_last(last[claim.name], current)) for claim in system.claims]
    print_table("Claims", ("claim", "what must come out", "last verdict", "effect"), rows)
    say(f"polyact claim {slug} measures again.")


def _last(line: Json | None, current: str) -> tuple[str, str]:
    if line is None:
        return "none recorded", ""
    changed = "" if line["version"]["file"] == current else ", file changed since"
    run = f"{line['verdict']} ({line['seeds']} seeds, {line['scale']}, {line['date']}{changed})"
    return run, "\n".join(record.effect_line(line, effect) for effect in line["effects"])


def _verdicts(slug: str, kept: dict[tuple[str, str], Json]) -> dict[str, int]:
    found: dict[str, Any] = {}
    for (owner, _), line in kept.items():
        if owner == slug:
            found[line["verdict"]] = found.get(line["verdict"], 0) + 1
    return found
