"""Compliance rules: the checker against temporal logic evaluated by brute force, prefixes against all their continuations."""

import itertools
import random

import pytest

from polyact.envs.rulebook import KINDS, Event, Rule, book_verdict, parse, unparse, verdict, violates
from polyact.errors import PolyactError

ALPHABET = (Event("click", "a", ""), Event("click", "b", ""), Event("fill", "a", "x"))
PATTERNS = (Event("click", "a"), Event("click", "b"), Event("fill"), Event("click"), Event("fill", "a", "x"))
PATTERNS = tuple(Event(p.verb, p.object or "*", p.value) for p in PATTERNS)


def holds(formula, trace, i):
    """Linear temporal logic on finite traces, by its definition: formulas are nested tuples."""
    match formula:
        case ("atom", pattern):
            return i < len(trace) and pattern.matches(trace[i])
        case ("not", inner):
            return not holds(inner, trace, i)
        case ("and", left, right):
            return holds(left, trace, i) and holds(right, trace, i)
        case ("or", left, right):
            return holds(left, trace, i) or holds(right, trace, i)
        case ("next", inner):
            return i + 1 < len(trace) and holds(inner, trace, i + 1)
        case ("eventually", inner):
            return any(holds(inner, trace, j) for j in range(i, len(trace)))
        case ("always", inner):
            return all(holds(inner, trace, j) for j in range(i, len(trace)))
        case ("weak until", left, right):
            for j in range(i, len(trace)):
                if holds(right, trace, j):
                    return True
                if not holds(left, trace, j):
                    return False
            return True
    raise AssertionError(formula)


def formula(rule):
    first, second = ("atom", rule.first), ("atom", rule.second)
    match rule.kind:
        case "must":
            return ("eventually", first)
        case "must not":
            return ("always", ("not", first))
        case "before":
            return ("weak until", ("not", second), ("and", first, ("not", second)))
        case "unless":
            return ("or", ("always", ("not", first)), ("eventually", second))
    many = first
    for _ in range(rule.limit):
        many = ("and", first, ("next", ("eventually", many)))
    return ("not", ("eventually", many))


def random_rule(chance):
    kind = chance.choice(KINDS)
    first, second = chance.sample(PATTERNS, 2)
    return Rule(kind, first, second if kind in ("before", "unless") else None, chance.randint(1, 3) if kind == "limit" else None)


def test_verdicts_are_those_of_temporal_logic_on_ten_thousand_random_traces():
    chance = random.Random(0)
    for _ in range(10_000):
        rule, trace = random_rule(chance), chance.choices(ALPHABET, k=chance.randint(0, 8))
        assert violates((rule,), trace) == (not holds(formula(rule), trace, 0)), (rule, trace)


def test_a_book_is_violated_when_a_rule_is():
    chance = random.Random(1)
    for _ in range(1000):
        book, trace = tuple(random_rule(chance) for _ in range(3)), chance.choices(ALPHABET, k=chance.randint(0, 8))
        assert violates(book, trace) == any(violates((rule,), trace) for rule in book)
        assert book_verdict(book, trace, 0) in ("violated", "settled")


EVERY_RULE = [
    *(Rule(kind, first) for kind in ("must", "must not") for first in PATTERNS),
    *(Rule(kind, first, second) for kind in ("before", "unless") for first, second in itertools.permutations(PATTERNS, 2)),
    *(Rule("limit", first, limit=limit) for first in PATTERNS for limit in (1, 2)),
]


@pytest.mark.parametrize("more", [0, 1, 2, 3])
def test_violated_and_settled_prefixes_never_flip(more):
    """Exhaustive over prefixes of up to 3 events and all their continuations of up to `more`."""
    after = [end for count in range(more + 1) for end in itertools.product(ALPHABET, repeat=count)]
    prefixes = [trace for length in range(4) for trace in itertools.product(ALPHABET, repeat=length)]
    for rule, prefix in itertools.product(EVERY_RULE, prefixes):
        outcomes = {violates((rule,), (*prefix, *end)) for end in after}
        said = verdict(rule, prefix, more)
        assert said != "violated" or outcomes == {True}, (rule, prefix)
        assert said != "settled" or outcomes == {False}, (rule, prefix)


def test_open_prefixes_can_go_either_way():
    """For patterns that leave some events unmatched, three more events suffice to show both."""
    after = [end for count in range(4) for end in itertools.product(ALPHABET, repeat=count)]
    apart = [
        rule
        for rule in EVERY_RULE
        if rule.second is None or not any(rule.first.matches(e) and rule.second.matches(e) for e in ALPHABET)
    ]
    for rule in apart:
        for prefix in itertools.product(ALPHABET, repeat=2):
            if verdict(rule, prefix, 3) == "open":
                assert {violates((rule,), (*prefix, *end)) for end in after} == {True, False}, (rule, prefix)


def test_without_a_bound_prefixes_that_say_something_are_right():
    after = [end for count in range(4) for end in itertools.product(ALPHABET, repeat=count)]
    for rule, prefix in itertools.product(EVERY_RULE, itertools.product(ALPHABET, repeat=2)):
        said = verdict(rule, prefix)
        if said != "open":
            assert {violates((rule,), (*prefix, *end)) for end in after} == {said == "violated"}


def test_the_text_of_a_book_is_the_book():
    text = "must click a\nmust not click b\nclick a before fill a x\nno fill * unless click b\nat most 2 fill a"
    assert unparse(parse(text)) == text
    for rule in EVERY_RULE:
        assert parse(unparse((rule,))) == (rule,)


@pytest.mark.parametrize("line", ["may click a", "click a", "at most some click a", "no click a", "must a b c d", "before click a"])
def test_what_is_no_rule_is_quoted(line):
    with pytest.raises(PolyactError, match=line.split()[0]):
        parse(line)


def test_rules_have_the_parts_of_their_kind():
    with pytest.raises(PolyactError, match="has other parts"):
        Rule("before", Event("click", "a"))
