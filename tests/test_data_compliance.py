"""Pairs of policies and trajectories: balanced, split by both, and encoded without loss."""

import random

import numpy as np

from polyact.data.compliance import LINES, encode, is_held_out, numbers, pairs, word_codes
from polyact.envs.gridweb import HOME
from polyact.envs.gridweb_sites import SITES
from polyact.envs.rulebook import KINDS, unparse, violates

TRAIN = pairs(SITES, 400, False, random.Random(0))
TEST = pairs(SITES, 200, True, random.Random(0))


def log_text(pair):
    return " ".join(map(str, pair.log))


def test_labels_are_the_checkers():
    assert all(pair.violated == violates(pair.book, pair.log) for pair in TRAIN + TEST)


def test_violations_are_as_frequent_among_short_policies_as_among_long_ones():
    for rules in (1, 2):
        assert abs(np.mean([pair.violated for pair in TRAIN if len(pair.book) == rules]) - 0.42) < 0.01


def test_neither_policies_nor_trajectories_cross_the_split():
    assert not {unparse(pair.book) for pair in TRAIN} & {unparse(pair.book) for pair in TEST}
    assert not {log_text(pair) for pair in TRAIN} & {log_text(pair) for pair in TEST}
    assert all(is_held_out(log_text(pair)) and is_held_out(unparse(pair.book)) for pair in TEST)


def test_policies_are_about_the_trajectorys_site():
    for pair in TRAIN:
        words = next(site.words for site in SITES if site.name == pair.site) | {HOME}
        assert all(rule.first.object in words for rule in pair.book)


def test_arrays_hold_the_pair():
    data = encode([(pair.book, pair.log, pair.violated) for pair in TRAIN[:50]])
    for i, pair in enumerate(TRAIN[:50]):
        assert [KINDS[kind] for kind in data.rules[i, :, 0] if kind >= 0] == [rule.kind for rule in pair.book]
        assert data.rules[i, 0, 1:4].tolist() == numbers(pair.book[0].first)
        assert data.lines[i, : len(pair.log)].tolist() == [numbers(event) for event in pair.log]
        assert data.length[i] == len(pair.log) <= LINES
        assert data.violated[i] == pair.violated


def test_codes_of_words_are_unit_vectors_that_differ():
    codes = word_codes()
    assert np.all(codes[:2] == 0)
    likeness = codes[2:] @ codes[2:].T
    np.testing.assert_allclose(np.diag(likeness), 1, atol=1e-5)
    assert np.abs(likeness - np.eye(len(likeness))).max() < 0.9
