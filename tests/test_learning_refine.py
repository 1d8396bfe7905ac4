"""The refinement loop: budgets are kept, errors are told, only better texts are accepted, and controls see no feedback."""

import jax
import numpy as np
import pytest

from polyact.errors import PolyactError
from polyact.learning.refine import Outcome, RandomEdits, Text, chances, feedback, no_feedback, read, refine, written

KEY = jax.random.key(0)


class Recorded:
    """A proposer that answers from a list and keeps what it was asked."""

    def __init__(self, texts):
        self.texts, self.asked = list(texts), []

    def propose(self, messages, key, n, temperature=1.0, stop=()):
        self.asked.append(messages)
        return [Text(self.texts.pop(0)) for _ in range(min(n, len(self.texts)))]


def number(text):
    if not text.isdigit():
        raise PolyactError(f"'{text}' is no number")
    return int(text)


def digits(values):
    return [Outcome(np.full(4, float(value)), {"digits": len(str(value))}, f"it is {value}") for value in values]


def test_better_texts_are_accepted_and_the_budget_is_spent_exactly():
    ledger = refine(Recorded(["3", "5", "4", "9", "1"]), feedback("task"), number, digits, budget=5, key=KEY, batch=2)
    assert [trial.artefact for trial in ledger.accepted] == [3, 5, 9]
    assert (ledger.spent, ledger.calls, ledger.best) == (5, 3, 3)
    assert [trial.parent for trial in ledger.trials] == [None, None, 1, 1, 3]


def test_errors_and_repetitions_cost_calls_only_and_are_told():
    proposer = Recorded(["two", "3", "3", "4"])
    ledger = refine(proposer, feedback("task"), number, digits, budget=2, key=KEY)
    assert (ledger.spent, ledger.calls) == (2, 4)
    assert "refused: 'two' is no number" in proposer.asked[1]
    assert "refused: this text was tried before" in proposer.asked[3]


def test_what_a_prompt_tells_can_be_read_again():
    ledger = refine(Recorded(["3", "5", "4"]), feedback("task"), number, digits, budget=3, key=KEY)
    told, best = read(feedback("task")(ledger))
    assert best == 1
    assert [(t.text, t.score, t.parent, t.facts) for t in told.values()] == [
        ("3", 3.0, None, {"digits": 1.0}),
        ("5", 5.0, 0, {"digits": 1.0}),
        ("4", 4.0, 1, {"digits": 1.0}),
    ]
    assert "critic: it is 5" in written(ledger)
    assert told[1].notes == "it is 5"
    assert set(read(written(ledger, trials=1))[0]) == {1, 2}


def test_without_feedback_every_prompt_is_the_same():
    proposer = Recorded(["3", "5", "4"])
    refine(proposer, no_feedback("task"), number, digits, budget=3, key=KEY)
    assert set(proposer.asked) == {"task"}


def test_random_edits_begin_at_the_best():
    edits = RandomEdits(lambda chance: "7", lambda text, chance: str(int(text) + chance.choice((-1, 1))))
    ledger = refine(edits, feedback("task"), number, digits, budget=6, key=KEY)
    assert ledger.trials[0].artefact == 7
    for trial in ledger.trials[1:]:
        assert abs(trial.artefact - ledger.trials[trial.parent].artefact) == 1


def test_one_key_gives_one_stream_of_chances():
    assert chances(KEY).random() == chances(KEY).random() != chances(jax.random.key(1)).random()


def test_a_proposer_that_never_succeeds_is_given_up():
    with pytest.raises(PolyactError, match="20 calls of the proposer in a row"):
        refine(Recorded(["no"] * 99), feedback("task"), number, digits, budget=1, key=KEY)


def test_other_games_are_refused():
    sizes = iter((4, 3))
    with pytest.raises(PolyactError, match="same games"):
        refine(
            Recorded(["1", "2"]),
            feedback("task"),
            number,
            lambda values: [Outcome(np.zeros(next(sizes))) for _ in values],
            budget=2,
            key=KEY,
        )
