"""Recorded answers in the place of a language model: what was once asked gets exactly what was once answered."""

from pathlib import Path
from typing import Any

from polyact.errors import DataError
from polyact.policies.language.backend import Answer, CallError, Completion, LanguageBackend, Request, identity
from polyact.policies.language.calls import CallLog, read_calls


class Recorded(LanguageBackend):
    """Answers from the ledger of another backend (`CallLog.path`). A request that is not in it is an error, never a guess."""

    def __init__(self, path: Path | str, calls: CallLog | None = None):
        self.path, self.calls, self.name = Path(path), calls or CallLog(), "recorded"
        self._answers: dict[str, dict[str, Any]] = {}
        for entry in read_calls(self.path):
            if "completions" in entry:
                self._answers.setdefault(identity(entry["request"]), entry)

    def answer(self, request: Request) -> Answer:
        entry = self._answers.get(identity(request.to_json()))
        if entry is None:
            asked = " ".join(request.messages[-1].content.split())[:80]
            raise CallError(f"{self.path} holds no answer to this request (seed {request.seed}, n {request.n}): '{asked}'")
        try:
            completions = tuple(Completion(**fields) for fields in entry["completions"])
        except TypeError as error:
            raise DataError(f"{self.path}: a completion has other fields than {', '.join(Completion.__annotations__)}") from error
        return Answer(completions, entry["tokens"] - sum(completion.tokens for completion in completions))
