"""The offline proposer of trees: writes valid trees, learns from prompts alone, and proposes what it believes in."""

import random

import jax
import numpy as np
import pytest

from polyact.errors import PolyactError
from polyact.learning.refine import Ledger, Outcome, Told, Trial, feedback, no_feedback, refine
from polyact.learning.tree_belief import Belief, Traits, explained
from polyact.learning.tree_editor import TreeEditor, ticked
from polyact.policies.behaviour_tree.check import Fact, Vocabulary, check
from polyact.policies.behaviour_tree.habits import habits
from polyact.policies.behaviour_tree.sample import random_tree
from polyact.policies.behaviour_tree.syntax import parse, unparse

WORDS = Vocabulary({"near": Fact("near"), "health": Fact("left", 0, 10)}, {name: name for name in "abcdefgh"}, nodes=12, depth=4)
KEY = jax.random.key(0)


def liking(trees):
    """A game of doing `a` and `b` and neither `c` nor `d`, as often as the board allows."""
    often = habits(trees, WORDS)[:, : len(WORDS.tasks)]
    return [Outcome(np.full(4, score), {"won": 0.5}) for score in (often @ [1, 1, -1, -1, 0, 0, 0, 0]).round(3)]


def test_proposals_are_valid_distinct_and_reproducible():
    editor = TreeEditor(WORDS, first=4, fresh=5, edits=10)
    ledger = refine(editor, feedback("task"), lambda text: check(parse(text), WORDS), liking, budget=12, key=KEY, batch=4)
    prompt = feedback("task")(ledger)
    one, again = ([sample.text for sample in editor.propose(prompt, KEY, 4)] for _ in range(2))
    assert one == again
    assert len(set(one)) == 4
    assert all(check(parse(text), WORDS) for text in one)


def test_a_language_that_is_used_up_is_said_to_be():
    tried = [Trial(text, None, Outcome(np.zeros(1)), None, True) for text in ("(task a)", "(condition near)")]
    small = Vocabulary({"near": Fact("near")}, {"a": "a"}, nodes=1, depth=2)
    with pytest.raises(PolyactError, match="all of 9 new trees and 0 changes of the best were tried before"):
        TreeEditor(small, first=1, fresh=9, edits=0).propose(feedback("task")(Ledger(2, tried)), KEY, 1)


def test_the_belief_finds_the_task_that_helps():
    texts = [f"(parallel 1 (task b) (task c) (task {name}))" for name in "adefgh"]
    seen = Traits.of([parse(text) for text in texts], WORDS)
    belief = Belief(seen, np.array([0.9, 0.3, 0.3, 0.3, 0.3, 0.3]), spread=0.3, noise=0.01)
    assert belief.mean(seen) == pytest.approx(belief.scores, abs=0.01)
    fresh = Traits.of([parse(f"(parallel 1 (task b) (task {name}))") for name in "aef"], WORDS)
    mean = belief.mean(fresh)
    assert mean[0] > max(mean[1:]) + 0.1


def test_draws_scatter_as_the_posterior_does():
    chance = np.random.default_rng(0)
    trees = {unparse(tree): tree for tree in (random_tree(WORDS, random.Random(i)) for i in range(40))}
    traits = Traits.of(list(trees.values()), WORDS)
    seen, scores = Traits(traits.habits[:10], traits.words[:10]), chance.random(10)
    belief = Belief(seen, scores, spread=0.3, noise=0.05)
    drawn = belief.draws(traits, 4000, 1.0, chance)
    prior, across = belief._prior(traits, traits), belief._prior(traits, seen)
    exact = prior - across @ np.linalg.inv(belief._prior(seen, seen) + 0.05**2 * np.eye(10)) @ across.T
    assert np.allclose(drawn.mean(0), belief.mean(traits), atol=0.03)
    assert np.allclose(np.cov(drawn.T), exact, atol=0.01)
    assert np.allclose(belief.draws(traits, 2, 0.0, chance), belief.mean(traits))


def test_luck_is_taken_out_of_scores_as_far_as_facts_explain_them():
    chance = np.random.default_rng(0)
    damage, luck = chance.random(200), 0.1 * chance.standard_normal(200)
    facts = [{"damage": value, "idle": 1.0} for value in damage]
    cleared = explained(list(damage + luck), facts, noise=0.1)
    assert np.std(cleared - damage) < 0.3 * np.std(luck)
    silent = [{"idle": 1.0} for _ in facts]
    assert np.corrcoef(explained(list(damage), silent, noise=0.1), damage)[0, 1] == pytest.approx(1)
    assert np.allclose(explained(list(damage), silent, noise=0.0), damage)


def test_a_run_with_feedback_ends_above_as_many_trees_without():
    ends = {}
    for tell in (feedback, no_feedback):
        editor = TreeEditor(WORDS, first=10, noise=0.01)
        ledger = refine(editor, tell("task"), lambda text: check(parse(text), WORDS), liking, budget=40, key=KEY, batch=5)
        ends[tell] = ledger.trials[ledger.best].outcome.score
    assert ends[feedback] > ends[no_feedback]
    assert ends[feedback] > 1.5


def test_what_was_never_ticked_is_cut_off():
    text = "(selector (sequence (condition near) (parallel 2 (task a) (task b))) (sequence (task c) (task d)) (task e))"
    notes = "most shots miss; " + "; ".join(f"never ticked: (task {name})" for name in "abde")
    assert unparse(ticked(Told(text, 0.5, None, {}, notes))) == "(selector (condition near) (task c))"
    twice = Told(
        "(selector (task a) (parallel 2 (task b) (task a)))", 0.5, None, {}, "never ticked: (task b); never ticked: (task a)"
    )
    assert unparse(ticked(twice)) == "(selector (task a) (parallel 1 (task a)))"
    whole = Told("(task a)", 0.5, None, {}, "never ticked: (task a)")
    assert ticked(whole) == parse("(task a)")
