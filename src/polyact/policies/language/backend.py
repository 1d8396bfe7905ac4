"""What answers prompts: one interface for a small model on this machine, a hosted one, recorded answers and scripts.

Every call goes through a `CallLog`, which counts it, writes it down and refuses it when the budget is spent.
"""

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from polyact.errors import PolyactError
from polyact.policies.language.calls import CallLog


class Message(NamedTuple):
    """role: system, user or assistant."""

    role: str
    content: str


Prompt = str | Sequence[Message]


@dataclass(frozen=True)
class Request:
    """All that an answer may depend on. stop: strings before which an answer ends. seed: from 0 to 2^31 - 1."""

    messages: tuple[Message, ...]
    n: int
    temperature: float
    stop: tuple[str, ...]
    seed: int

    def to_json(self) -> dict[str, Any]:
        said = [message._asdict() for message in self.messages]
        return {"messages": said, "n": self.n, "temperature": self.temperature, "stop": list(self.stop), "seed": self.seed}

    @property
    def text(self) -> str:
        """What was said, without roles."""
        return "\n".join(message.content for message in self.messages)


@dataclass(frozen=True)
class Completion:
    """One answer. tokens: written; log_prob: of them all under the distribution they were drawn from, None where it is not told;
    finished: it ended by itself or at a stop, and was not cut; seconds: its share of the call."""

    text: str
    tokens: int
    log_prob: float | None = None
    finished: bool = True
    seconds: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What a call brought. faults: what went wrong before it came; prompt_tokens: read."""

    completions: tuple[Completion, ...]
    prompt_tokens: int
    faults: tuple[str, ...] = ()


class CallError(PolyactError):
    """A call that brought no answer. faults: of every attempt; tokens: what it cost nevertheless."""

    faults: tuple[str, ...] = ()
    tokens: int = 0


class LanguageBackend(ABC):
    """Answers prompts. The same messages and key get the same answers, but for hosted models that ignore the seed."""

    calls: CallLog
    name: str

    @abstractmethod
    def answer(self, request: Request) -> Answer:
        """The answers to a request, not yet counted. Raises CallError when there are none."""

    def propose(
        self, messages: Prompt, key: PRNGKeyArray, n: int = 1, temperature: float = 1.0, stop: Sequence[str] = ()
    ) -> tuple[Completion, ...]:
        """`n` answers to a prompt (a text is a message of the user). Raises PolyactError when the budget is spent."""
        request = request_of(messages, key, n, temperature, stop)
        self.calls.admit()
        began, entry = time.perf_counter(), {"backend": self.name, "request": request.to_json()}
        try:
            found = self.answer(request)
        except CallError as error:
            seconds = time.perf_counter() - began
            failed = {"error": str(error), "faults": list(error.faults), "tokens": error.tokens, "seconds": seconds}
            self.calls.record(entry | failed)
            raise
        seconds = time.perf_counter() - began
        completions = tuple(replace(completion, seconds=seconds / n) for completion in found.completions)
        written = [asdict(completion) for completion in completions]
        tokens = found.prompt_tokens + sum(completion.tokens for completion in completions)
        self.calls.record(entry | {"completions": written, "faults": list(found.faults), "tokens": tokens, "seconds": seconds})
        return completions


class Scripted(LanguageBackend):
    """A function from a request to a text as a simulated model: for tests, controls and agents that are rules. Words count as tokens."""

    def __init__(self, script: Callable[[Request], str], name: str = "scripted", calls: CallLog | None = None):
        self.script, self.name, self.calls = script, name, calls or CallLog()

    def answer(self, request: Request) -> Answer:
        texts = [self.script(request) for _ in range(request.n)]
        return Answer(tuple(Completion(text, len(text.split())) for text in texts), len(request.text.split()))


def request_of(messages: Prompt, key: PRNGKeyArray, n: int, temperature: float, stop: Sequence[str]) -> Request:
    """A checked request. Raises PolyactError for an empty prompt, and numbers that mean nothing."""
    said = (Message("user", messages),) if isinstance(messages, str) else tuple(messages)
    if not said or any(message.role not in ("system", "user", "assistant") for message in said):
        raise PolyactError(f"a prompt needs messages of system, user or assistant, got {[message.role for message in said]}")
    if n < 1 or temperature < 0:
        raise PolyactError(f"a call needs n of at least 1 and a temperature of at least 0, got {n} and {temperature:g}")
    if isinstance(stop, str) or "" in stop:
        raise PolyactError("stop must be a sequence of strings that are not empty")
    seed = int(np.asarray(jax.random.key_data(key)).ravel()[-1]) & 0x7FFFFFFF
    return Request(said, n, float(temperature), tuple(stop), seed)


def identity(request: dict[str, Any]) -> str:
    """A fingerprint of a request's JSON."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop, and whether there was one."""
    places = [text.index(one) for one in stop if one in text]
    return (text[: min(places)], True) if places else (text, False)
