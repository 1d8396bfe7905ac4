"""A hosted language model behind an OpenAI-compatible HTTP endpoint (chat completions), with retries.

The key comes from the environment, is sent in a header alone, and is taken out of whatever the server says before that is written down.
"""

import http.client
import itertools
import json
import math
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from polyact.errors import PolyactError, one_line
from polyact.policies.language.backend import Answer, CallError, Completion, LanguageBackend, Request
from polyact.policies.language.calls import CallLog

KEY = "OPENAI_API_KEY"
TRANSIENT = {408, 409, 425, 429}  # and everything from 500 on
HIDDEN = "[key]"


@dataclass(frozen=True)
class Patience:
    """How long one call is tried. timeout (s): per attempt; first, longest (s): the wait after the first fault, doubled after each
    further one up to the longest; a server's Retry-After is heeded up to the longest."""

    attempts: int = 6
    timeout: float = 120.0
    first: float = 1.0
    longest: float = 60.0


class Endpoint(LanguageBackend):
    """url: up to and without `/chat/completions`, for instance http://localhost:8000/v1. longest: tokens of an answer.

    variable: the environment variable that holds the key; a server without keys needs none. A token budget cuts `longest` to what is
    left of it. sleep: how to wait (s).
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        longest: int = 512,
        variable: str = KEY,
        patience: Patience | None = None,
        calls: CallLog | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        if not url.startswith(("http://", "https://")):
            raise PolyactError(f"an endpoint's address begins with http:// or https://, got '{url}'")
        self.url, self.model, self.longest, self.variable = url.rstrip("/") + "/chat/completions", model, longest, variable
        self.patience, self.calls, self.sleep = patience or Patience(), calls or CallLog(), sleep
        self.name = model

    def answer(self, request: Request) -> Answer:
        """Asks until there are n answers: some servers give one at a time."""
        completions, read, faults = [], 0, []
        while len(completions) < request.n:
            try:
                found, prompt_tokens = _completions(self._reply(self._body(request, len(completions)), faults))
            except CallError as error:
                error.tokens = read + sum(completion.tokens for completion in completions)
                raise
            completions += found
            read += prompt_tokens
        return Answer(tuple(completions[: request.n]), read, tuple(faults))

    def _body(self, request: Request, have: int) -> dict[str, Any]:
        left = self.calls.tokens_left
        wanted = request.n - have
        longest = self.longest if left is None else max(1, min(self.longest, left // wanted))
        body = {"model": self.model, "messages": [message._asdict() for message in request.messages], "n": wanted}
        body |= {"temperature": request.temperature, "seed": request.seed + have, "max_tokens": longest}
        return body | ({"stop": list(request.stop)} if request.stop else {})

    def _reply(self, body: dict[str, Any], faults: list[str]) -> dict[str, Any]:
        """The server's answer. Raises CallError at once when asking again is no use, and after the last attempt."""
        for attempt in range(1, self.patience.attempts + 1):
            try:
                return self._post(body)
            except _Fault as fault:
                faults.append(self._hidden(str(fault)))
                if fault.final or attempt == self.patience.attempts:
                    error = CallError(f"{self.model} at {self.url} gave no answer in {attempt} attempts: {faults[-1]}")
                    error.faults = tuple(faults)
                    raise error from None
                self.sleep(self._wait(attempt, fault.retry_after))
        raise PolyactError(f"patience needs at least one attempt, got {self.patience.attempts}")

    def _wait(self, attempt: int, retry_after: float) -> float:
        """Exponential, with jitter so that many clients do not come back at once."""
        backoff = self.patience.first * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
        return min(max(backoff, retry_after), self.patience.longest)

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        key = os.environ.get(self.variable, "")
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        asked = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        try:
            with _OPENER.open(asked, timeout=self.patience.timeout) as response:
                reply = json.loads(response.read())
            _completions(reply)
            return reply
        except urllib.error.HTTPError as error:
            raise _Fault.of(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise _Fault(f"{type(error).__name__}: {one_line(error)}") from None
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise _Fault("the answer is no chat completion") from None

    def _hidden(self, text: str) -> str:
        key = os.environ.get(self.variable, "")
        return text.replace(key, HIDDEN) if key else text


class _Fault(Exception):
    """An attempt that failed. final: asking again is no use; retry_after (s): what the server asked for."""

    final: bool = False
    retry_after: float = 0.0

    @classmethod
    def of(cls, error: urllib.error.HTTPError) -> "_Fault":
        try:
            said = one_line(ValueError(error.read(2000).decode("utf-8", "replace")))
        except (OSError, http.client.HTTPException):
            said = ""
        fault = cls(f"HTTP {error.code}: {said}")
        fault.final = error.code < 500 and error.code not in TRANSIENT
        try:
            wait = float(error.headers.get("Retry-After", "0"))
        except ValueError:  # a date
            wait = 0.0
        fault.retry_after = wait if math.isfinite(wait) else 0.0
        return fault


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another server."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _completions(reply: dict[str, Any]) -> tuple[list[Completion], int]:
    """The answers in a chat completion, and how many tokens were read. Words are counted where the server does not tell tokens."""
    choices = reply["choices"]
    texts = [choice["message"].get("content") or "" for choice in choices]
    usage = reply.get("usage") or {}
    total = usage.get("completion_tokens")
    counts = [len(text.split()) for text in texts] if total is None else _shares(int(total), [len(text) for text in texts])
    found = [
        Completion(text, count, _log_prob(choice), choice.get("finish_reason") != "length")
        for text, count, choice in zip(texts, counts, choices, strict=True)
    ]
    if not found:
        raise ValueError("no choices")
    return found, int(usage.get("prompt_tokens", 0))


def _shares(total: int, lengths: list[int]) -> list[int]:
    """A whole number in parts proportional to lengths."""
    ends = [round(total * sum(lengths[:i]) / max(1, sum(lengths))) for i in range(len(lengths))] + [total]
    return [end - begin for begin, end in itertools.pairwise(ends)]


def _log_prob(choice: dict[str, Any]) -> float | None:
    told = (choice.get("logprobs") or {}).get("content")
    return sum(token["logprob"] for token in told) if told else None
