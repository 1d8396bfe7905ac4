"""The offline proposer of trees: writes valid trees, learns from prompts alone, and edits with what it learned."""

import jax
import numpy as np

from polyact.learning.refine import Outcome, Told, feedback, refine
from polyact.learning.tree_editor import TreeEditor, ticked
from polyact.policies.behaviour_tree.check import Fact, Vocabulary, check
from polyact.policies.behaviour_tree.syntax import parse, unparse

WORDS = Vocabulary({"near": Fact("near"), "health": Fact("left", 0, 10)}, {name: name for name in "abcdefgh"}, nodes=12, depth=4)
KEY = jax.random.key(0)


def liking(trees):
    """A game in which task `a` is worth a tenth each time it is written, up to three times."""
    counts = [min(sum(node.name == "a" for node in tree.walk()), 3) for tree in trees]
    return [Outcome(np.full(4, 0.1 * count), {"won": 0.5}) for count in counts]


def test_proposals_are_valid_distinct_and_reproducible():
    editor = TreeEditor(WORDS, first=4, candidates=5)
    ledger = refine(editor, feedback("task"), lambda text: check(parse(text), WORDS), liking, budget=12, key=KEY, batch=4)
    prompt = feedback("task")(ledger)
    one, again = ([sample.text for sample in editor.propose(prompt, KEY, 4)] for _ in range(2))
    assert one == again
    assert len(set(one)) == 4
    assert all(check(parse(text), WORDS) for text in one)


def test_the_regression_finds_the_word_that_helps():
    editor = TreeEditor(WORDS, noise=0.001)
    parent = Told("(selector (task b) (task c))", 0.5, None, {"won": 0.5})
    texts = {name: f"(selector (task b) (task c) (task {name}))" for name in "adef"}
    trials = [Told(text, 0.6 if name == "a" else 0.5, 0, {"won": 0.5}) for name, text in texts.items()]
    told = dict(enumerate([parent, *trials]))
    rows = np.stack(
        [editor._row(parse(f"(selector (task b) (task {name}))"), parse("(selector (task b) (task d))"), parent) for name in "aef"]
    )
    gains = editor._drawn(rows, trials, told, 0.0, 0)
    assert gains[0] > 0.05
    assert np.all(np.abs(gains[1:]) < 0.02)


def test_a_run_with_feedback_ends_above_its_random_beginning():
    editor = TreeEditor(WORDS, first=10, candidates=10)
    ledger = refine(editor, feedback("task"), lambda text: check(parse(text), WORDS), liking, budget=40, key=KEY, batch=5)
    assert ledger.trials[ledger.best].outcome.score >= max(trial.outcome.score for trial in ledger.trials[:10])
    assert ledger.trials[ledger.best].outcome.score > 0.25


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
