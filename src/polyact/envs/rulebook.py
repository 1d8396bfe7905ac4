"""A small language of compliance rules over the events of an episode, with an exact checker for whole episodes and for prefixes.

    must click notify                    it happens at least once
    must not click delete                it never happens
    click review before click save       no save unless a review came earlier
    no open order-2 unless click verify  the first is allowed only in episodes where the second happens, sooner or later
    at most 2 fill *                     a count

An event is a verb, an object and perhaps a value; `*` in a rule stands for anything, and a rule without a value asks for none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from polyact.errors import PolyactError

Kind = Literal["must", "must not", "before", "unless", "limit"]
KINDS: tuple[Kind, ...] = ("must", "must not", "before", "unless", "limit")
Verdict = Literal["violated", "open", "settled"]  # settled: can no longer be violated
ANY = "*"


class Event(NamedTuple):
    """Something an agent did; words without spaces. As part of a rule: a pattern, where `*` matches anything."""

    verb: str
    object: str = ""
    value: str = ANY

    def matches(self, event: "Event") -> bool:
        """Whether this pattern stands for the event."""
        return all(mine in (ANY, its) for mine, its in zip(self, event, strict=True))

    def __str__(self) -> str:
        return " ".join(word for word in self if word).removesuffix(f" {ANY}") if self.object != ANY else f"{self.verb} {ANY}"


@dataclass(frozen=True)
class Rule:
    """second: of `before` (what needs the first) and `unless` (what excuses the first); limit: of `limit`."""

    kind: Kind
    first: Event
    second: Event | None = None
    limit: int | None = None

    def __post_init__(self):
        if (self.second is not None) != (self.kind in ("before", "unless")) or (self.limit is not None) != (self.kind == "limit"):
            raise PolyactError(f"a rule of kind '{self.kind}' has other parts: second {self.second}, limit {self.limit}")

    def __str__(self) -> str:
        match self.kind:
            case "before":
                return f"{self.first} before {self.second}"
            case "unless":
                return f"no {self.first} unless {self.second}"
            case "limit":
                return f"at most {self.limit} {self.first}"
        return f"{self.kind} {self.first}"


RuleBook = tuple[Rule, ...]


def verdict(rule: Rule, events: Sequence[Event], remaining: int | None = None) -> Verdict:
    """What a prefix says of the whole episode. remaining: the most events that may follow, None when nobody knows, 0 at the end.

    violated: every continuation violates the rule; settled: none does; open: it depends. Exact for events of which some match the
    patterns of the rule and some do not.
    """
    first = [rule.first.matches(event) for event in events]
    second = [rule.second is not None and rule.second.matches(event) for event in events]
    over, count = remaining == 0, sum(first)
    match rule.kind:
        case "must":
            return "settled" if count else ("violated" if over else "open")
        case "must not":
            return "violated" if count else ("settled" if over else "open")
        case "before":
            begun, needed = _place(first), _place(second)
            if needed <= begun and needed < len(events):
                return "violated"
            return "settled" if over or begun < len(events) else "open"
        case "unless":
            if any(second) or (over and not count):
                return "settled"
            return "violated" if over else "open"
    assert rule.limit is not None
    if count > rule.limit:
        return "violated"
    return "settled" if remaining is not None and count + remaining <= rule.limit else "open"


def book_verdict(book: RuleBook, events: Sequence[Event], remaining: int | None = None) -> Verdict:
    """Of all rules together: violated when one is, settled when all are. Where rules exclude each other only later events show it."""
    found = [verdict(rule, events, remaining) for rule in book]
    if "violated" in found:
        return "violated"
    return "open" if "open" in found else "settled"


def violates(book: RuleBook, events: Sequence[Event]) -> bool:
    """Whether a whole episode breaks a rule."""
    return book_verdict(book, events, 0) == "violated"


def parse(text: str) -> RuleBook:
    """The rules of a text, one per line. Raises PolyactError that quotes the line."""
    return tuple(_rule(line) for line in text.splitlines() if line.strip())


def unparse(book: RuleBook) -> str:
    """`parse(unparse(book)) == book`."""
    return "\n".join(str(rule) for rule in book)


def _rule(line: str) -> Rule:
    words = line.split()
    match words:
        case ["must", "not", *event]:
            return Rule("must not", _event(event, line))
        case ["must", *event]:
            return Rule("must", _event(event, line))
        case ["at", "most", count, *event] if count.isdigit():
            return Rule("limit", _event(event, line), limit=int(count))
        case ["no", *rest] if rest.count("unless") == 1:
            place = rest.index("unless")
            return Rule("unless", _event(rest[:place], line), _event(rest[place + 1 :], line))
    if words.count("before") == 1:
        place = words.index("before")
        return Rule("before", _event(words[:place], line), _event(words[place + 1 :], line))
    raise PolyactError(
        f"not a rule: '{line.strip()}' (expected 'must E', 'must not E', 'E before E', 'no E unless E' or 'at most K E')"
    )


def _event(words: Sequence[str], line: str) -> Event:
    if not 1 <= len(words) <= 3:
        raise PolyactError(f"an event is a verb, an object and perhaps a value, got '{' '.join(words)}' in '{line.strip()}'")
    return Event(*words)


def _place(matched: Sequence[bool]) -> int:
    """Where the first match is; the length when there is none."""
    return matched.index(True) if True in matched else len(matched)
