"""The other end of `common.Peer`: one JSON line in, one out, whatever else the peer's library prints."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def serve(setup: Callable[[dict[str, Any]], tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]]) -> None:
    """The first request goes to `setup`, which returns facts to report and what answers all further requests.

    A library that is not installed is reported as missing.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        facts, answer = setup(json.loads(sys.stdin.readline()))
    except ImportError as error:
        facts, answer = {"missing": f"{error.name or error} is not installed"}, None
    _send(answers, facts)
    if answer is not None:
        for line in sys.stdin:
            _send(answers, answer(json.loads(line)))


def _send(answers: Any, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()
