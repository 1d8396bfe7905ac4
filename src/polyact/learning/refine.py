"""Improve a text by asking for better ones: propose, check, evaluate, reflect, accept, under a budget of evaluations.

The text may be anything that can be checked and played: a behaviour tree, a program, a prompt, a schedule. Nothing here knows what
proposes: a hosted language model, a small one, or a grammar. Two controls belong to every claim about feedback: `no_feedback` asks the
same proposer again and again without telling it anything, and `RandomEdits` changes the best text by chance.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from polyact.errors import PolyactError, one_line

FRUITLESS_CALLS = 20  # in a row without one text that passes the check, after which the loop gives up
TOLD_ERRORS = 3


@runtime_checkable
class Sample(Protocol):
    """One answer of a proposer."""

    @property
    def text(self) -> str: ...


@runtime_checkable
class Proposer(Protocol):
    """What writes texts: from a prompt to `n` answers. `stop`: strings at which an answer ends."""

    def propose(
        self, messages: str, key: PRNGKeyArray, n: int, temperature: float = 1.0, stop: Sequence[str] = ()
    ) -> Sequence[Sample]: ...


@dataclass(frozen=True)
class Text:
    """A sample that is nothing but its text."""

    text: str


@dataclass(frozen=True)
class Outcome:
    """What an evaluation found. scores [G]: one per game, of the same games for every text; facts: numbers; notes: words of a critic."""

    scores: np.ndarray
    facts: Mapping[str, float] = field(default_factory=dict)
    notes: str = ""

    @property
    def score(self) -> float:
        return float(np.mean(self.scores))


@dataclass(frozen=True)
class Trial:
    """One evaluated text. parent: the number of the trial that was best when it was proposed; accepted: it became the best."""

    text: str
    artefact: Any
    outcome: Outcome
    parent: int | None
    accepted: bool


@dataclass
class Ledger:
    """What a run has spent and found. refused: texts that did not pass the check, and why; they cost calls, not evaluations."""

    budget: int
    trials: list[Trial] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    calls: int = 0

    @property
    def spent(self) -> int:
        return len(self.trials)

    @property
    def best(self) -> int | None:
        """The number of the last accepted trial."""
        return max((number for number, trial in enumerate(self.trials) if trial.accepted), default=None)

    @property
    def accepted(self) -> list[Trial]:
        """The trials that were best in their time, the best last."""
        return [trial for trial in self.trials if trial.accepted]


def refine(
    proposer: Proposer,
    prompt: Callable[[Ledger], str],
    check: Callable[[str], Any],
    evaluate: Callable[[Sequence[Any]], Sequence[Outcome]],
    *,
    budget: int,
    key: PRNGKeyArray,
    batch: int = 1,
    temperature: float = 1.0,
) -> Ledger:
    """Spend `budget` evaluations, `batch` at a time, and return the ledger.

    prompt(ledger) -> what the proposer reads: the task and the reflection on what was found. check(text) -> the artefact, or a
    PolyactError that the next prompt can tell. evaluate(artefacts) -> an outcome for each, all on the same games. A text that scores
    more than the best one becomes the best; a text that was tried before is refused. Raises PolyactError when the proposer goes on
    without a valid text, or an outcome has other games than the first one.
    """
    if min(budget, batch) < 1:
        raise PolyactError(f"refine needs a budget and a batch of at least 1, got {budget} and {batch}")
    ledger, fruitless = Ledger(budget), 0
    while ledger.spent < budget:
        samples = proposer.propose(
            prompt(ledger), jax.random.fold_in(key, ledger.calls), min(batch, budget - ledger.spent), temperature, ()
        )
        ledger.calls += 1
        valid = _checked(ledger, [sample.text for sample in samples], check)
        fruitless = 0 if valid else fruitless + 1
        if fruitless == FRUITLESS_CALLS:
            raise PolyactError(
                f"{fruitless} calls of the proposer in a row brought no valid text; the last one: {ledger.refused[-1][1]}"
            )
        if valid:
            _accept(ledger, valid, evaluate([artefact for _, artefact in valid]))
    return ledger


def no_feedback(task: str) -> Callable[[Ledger], str]:
    """The control without a loop: every prompt is the task alone."""
    return lambda ledger: task


def feedback(task: str, trials: int | None = None) -> Callable[[Ledger], str]:
    """The task, what was tried and found (the last `trials`, all by default), the best text, and the latest errors."""
    return lambda ledger: f"{task}\n\n{written(ledger, trials)}"


def written(ledger: Ledger, trials: int | None = None) -> str:
    """A ledger as text that people, language models and `read` can read."""
    best = ledger.best
    shown = [number for number in range(ledger.spent) if trials is None or number >= ledger.spent - trials or number == best]
    lines = [line for number in shown for line in _lines(number, ledger.trials[number])]
    lines += [f"refused: {one_line(ValueError(why))}" for _, why in ledger.refused[-TOLD_ERRORS:]]
    return "\n".join([*lines, *([] if best is None else [f"best: trial {best}", "Propose something better."])])


@dataclass(frozen=True)
class Told:
    """What a prompt says of one trial."""

    text: str
    score: float
    parent: int | None
    facts: dict[str, float]
    notes: str = ""


def read(prompt: str) -> tuple[dict[int, Told], int | None]:
    """The trials that a prompt of `feedback` tells by number, and which is the best: what a proposer that is no language model needs."""
    told = {}
    pattern = r"^trial (\d+) \(from (\w+)\) scored (\S+)\n(.*)\nfacts:(.*)(?:\ncritic: (.*))?$"
    for number, parent, score, text, facts, notes in re.findall(pattern, prompt, re.MULTILINE):
        pairs = (pair.split("=") for pair in facts.split())
        from_whom = None if parent == "nothing" else int(parent)
        told[int(number)] = Told(text, float(score), from_whom, {name: float(value) for name, value in pairs}, notes)
    best = re.search(r"^best: trial (\d+)$", prompt, re.MULTILINE)
    return told, int(best.group(1)) if best else None


class RandomEdits:
    """The control without understanding: a proposer that changes the best text of the prompt by chance, or writes a first one."""

    def __init__(self, first: Callable[[random.Random], str], edit: Callable[[str, random.Random], str]):
        self.first, self.edit = first, edit

    def propose(
        self, messages: str, key: PRNGKeyArray, n: int, temperature: float = 1.0, stop: Sequence[str] = ()
    ) -> Sequence[Text]:
        chance = chances(key)
        told, best = read(messages)
        return [Text(self.first(chance) if best is None else self.edit(told[best].text, chance)) for _ in range(n)]


def chances(key: PRNGKeyArray) -> random.Random:
    """Python's random numbers from a key."""
    return random.Random(np.asarray(jax.random.key_data(key)).tobytes())


def _checked(ledger: Ledger, texts: Sequence[str], check: Callable[[str], Any]) -> list[tuple[str, Any]]:
    valid: list[tuple[str, Any]] = []
    known = {trial.text for trial in ledger.trials}
    for text in texts:
        one = " ".join(text.split())
        try:
            if one in known:
                raise PolyactError("this text was tried before")
            valid.append((one, check(one)))
            known.add(one)
        except PolyactError as error:
            ledger.refused.append((text, str(error)))
    return valid


def _accept(ledger: Ledger, valid: Sequence[tuple[str, Any]], outcomes: Sequence[Outcome]) -> None:
    parent = ledger.best
    for (text, artefact), outcome in zip(valid, outcomes, strict=True):
        best = None if ledger.best is None else ledger.trials[ledger.best].outcome
        if best is not None and len(best.scores) != len(outcome.scores):
            raise PolyactError(f"every text must play the same games, got {len(outcome.scores)} scores after {len(best.scores)}")
        accepted = best is None or outcome.score > best.score
        ledger.trials.append(Trial(text, artefact, outcome, parent, accepted))


def _lines(number: int, trial: Trial) -> list[str]:
    facts = " ".join(f"{name}={value:.3f}" for name, value in trial.outcome.facts.items())
    parent = "nothing" if trial.parent is None else trial.parent
    lines = [f"trial {number} (from {parent}) scored {trial.outcome.score:.4f}", trial.text, f"facts: {facts}"]
    return lines + ([f"critic: {trial.outcome.notes}"] if trial.outcome.notes else [])
