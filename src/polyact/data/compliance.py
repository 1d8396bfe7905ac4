"""Pairs of a written policy and what an agent did, with the exact verdict: data for judges of compliance on `envs.gridweb` sites.

Nothing that a judge is tested on stands in its training data: policies and trajectories are each split by a fingerprint of their text.
"""

import random
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from polyact.envs.gridweb import HOME, VERBS, Site
from polyact.envs.gridweb_sites import SITES, habits, random_task, visit
from polyact.envs.rulebook import ANY, KINDS, Event, Rule, RuleBook, unparse, violates

LINES, RULES, LIMITS = 12, 2, 3  # the longest trajectory, the most rules of a policy, the largest limit
WIDTH = 24
HELD_OUT = 4  # one policy and one trajectory in so many are for tests
_WORDS = (ANY, "", HOME, *sorted(set[str]().union(*(site.words for site in SITES))))
_NUMBERS = {word: number for number, word in enumerate(_WORDS)}


class Pair(NamedTuple):
    """site: where the trajectory is from; book: the policy; log: the calls; violated: by the whole of it."""

    site: str
    book: RuleBook
    log: tuple[Event, ...]
    violated: bool


class Encoded(NamedTuple):
    """Numbers of words. rules: kind (-1: no rule), two patterns (verb, object, value), limit; lines: verb, object, value."""

    rules: Int[np.ndarray, "B R 8"]
    lines: Int[np.ndarray, "B L 3"]
    length: Int[np.ndarray, " B"]
    violated: Float[np.ndarray, " B"]


def write_policy(site: Site, seen: Sequence[Event], chance: random.Random) -> RuleBook:
    """One or two rules about a site, more often than not about what was seen there."""
    return tuple(_write_rule(site, seen, chance) for _ in range(chance.randint(1, RULES)))


def trajectories(site: Site, count: int, held_out: bool, chance: random.Random) -> list[tuple[Event, ...]]:
    """Logs of visitors of mixed quality with random tasks."""
    found: list[tuple[Event, ...]] = []
    while len(found) < count:
        log = visit(site, random_task(site, chance), habits(chance), chance, LINES).log
        if is_held_out(" ".join(map(str, log))) == held_out:
            found.append(log)
    return found


def pairs(sites: Sequence[Site], count: int, held_out: bool, chance: random.Random, share: float = 0.42) -> list[Pair]:
    """`share` of the pairs violate, among policies of every length. Half of the policies are grounded in the trajectory itself, half in
    another one of the site."""
    logs = {site.name: trajectories(site, count // (2 * len(sites)) + 20, held_out, chance) for site in sites}
    need = {
        (rules, bad): round(count / RULES * (share if bad else 1 - share)) for rules in range(1, RULES + 1) for bad in (True, False)
    }
    found: list[Pair] = []
    while any(need.values()):
        site = chance.choice(sites)
        log, other = chance.choice(logs[site.name]), chance.choice(logs[site.name])
        book = write_policy(site, log if chance.random() < 0.5 else other, chance)
        bad = violates(book, log)
        if need[len(book), bad] and is_held_out(unparse(book)) == held_out:
            need[len(book), bad] -= 1
            found.append(Pair(site.name, book, log, bad))
    chance.shuffle(found)
    return found


def is_held_out(text: str) -> bool:
    """Whether a policy or trajectory is for tests."""
    return zlib.crc32(text.encode()) % HELD_OUT == 0


def encode(found: Sequence[tuple[RuleBook, Sequence[Event], bool]]) -> Encoded:
    """Arrays of (policy, log, violated)."""
    rules = np.full((len(found), RULES, 8), -1, np.int32)
    lines = np.zeros((len(found), LINES, 3), np.int32)
    for i, (book, log, _) in enumerate(found):
        for j, rule in enumerate(book):
            second = rule.second or Event(ANY, ANY)
            rules[i, j] = [KINDS.index(rule.kind), *numbers(rule.first), *numbers(second), rule.limit or 0]
        for j, event in enumerate(log):
            lines[i, j] = numbers(event)
    length, violated = [len(log) for _, log, _ in found], [bad for _, _, bad in found]
    return Encoded(rules, lines, np.array(length, np.int32), np.array(violated, np.float32))


def numbers(event: Event) -> list[int]:
    """Verb, object and value; the verb beyond the last is `*`."""
    verb = len(VERBS) if event.verb == ANY else VERBS.index(event.verb)
    return [verb, _NUMBERS[event.object], _NUMBERS[event.value]]


def word_codes() -> Float[np.ndarray, "words W"]:
    """A fixed random unit vector per word, drawn from the word itself, so that words never seen in training have one; 0 for `*` and ''."""
    codes = np.stack([np.random.default_rng(zlib.crc32(word.encode())).normal(size=WIDTH) for word in _WORDS])
    codes[:2] = 0
    return (codes / np.maximum(np.linalg.norm(codes, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def _write_rule(site: Site, seen: Sequence[Event], chance: random.Random) -> Rule:
    kind = chance.choice(KINDS)
    first, second = _pattern(site, seen, chance), _pattern(site, seen, chance)
    while second == first:
        second = _pattern(site, seen, chance)
    two = kind in ("before", "unless")
    return Rule(kind, first, second if two else None, chance.choice((1, 1, 2, LIMITS)) if kind == "limit" else None)


def _pattern(site: Site, seen: Sequence[Event], chance: random.Random) -> Event:
    if chance.random() < 0.6:
        event = chance.choice(seen[:-1] or _patterns(site))  # without the stop
        return event if event.verb == "fill" and chance.random() < 0.5 else Event(event.verb, event.object)
    return chance.choice(_patterns(site))


def _patterns(site: Site) -> list[Event]:
    """What a rule about a site may name."""
    clicks = [Event("click", button) for button in (*site.steps, *site.commits, site.delete)]
    ways = [Event(verb, item) for item in site.items for verb in ("search", "open")]
    fields = [Event("fill", name) for name, _ in site.fields]
    fills = [Event("fill", name, value) for name, values in site.fields for value in values[1:]]
    return clicks + ways + [Event("goto", name) for name, _ in site.lists] + fields + fills
