"""One request of a client, read and checked: the observation and the optional words beside it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyact import spaces
from polyact.errors import PolyactError, unknown
from polyact.serving.signature import Part, Signature, checked
from polyact.spaces import Space

OPTIONAL = ("timestep", "timestamp", "inference_delay", "prev_chunk", "reset", "seed", "prompt")
MOST_TICKS = 1 << 30
LONGEST_PROMPT = 4096


@dataclass(frozen=True)
class Request:
    """observation: arrays in the order of the signature. timestep: the control tick of the observation; None: one after the last.

    reset: a new episode starts with this observation; seed: what its randomness follows from, None to go on with the session's.
    prev_chunk [L, ...]: what the client will do from this tick on until an answer arrives (its actions for this tick and later);
    inference_delay: how many of them will have been done by then, in ticks. timestamp: the client's clock, handed back.
    """

    observation: list[np.ndarray]
    timestep: int | None
    timestamp: float | None
    inference_delay: int | None
    prev_chunk: np.ndarray | None
    reset: bool
    seed: int | None


def read_request(message: dict[Any, Any], signature: Signature, action_space: Space, horizon: int) -> Request:
    """Raises PolyactError with one line for names, shapes, dtypes and values that the run does not know or want.

    A prompt is accepted from every client, because openpi's always send one, and read by no policy that can be served.
    """
    known = signature.known()
    for name in message:
        if name not in known and name not in OPTIONAL:
            shown = name if isinstance(name, str) else repr(name)
            raise unknown("name", shown[:80], known.union(OPTIONAL))
    prompt = message.get("prompt")
    if "prompt" not in known and prompt is not None and not (isinstance(prompt, str) and len(prompt) <= LONGEST_PROMPT):
        raise PolyactError(f"'prompt' is a text of at most {LONGEST_PROMPT} characters")
    reset = _flag(message, "reset")
    seed = _whole(message, "seed", (1 << 32) - 1)
    if seed is not None and not reset:
        raise PolyactError("'seed' starts an episode and needs 'reset'")
    previous = _previous(message.get("prev_chunk"), action_space, horizon)
    delay = _whole(message, "inference_delay", horizon)
    if previous is not None and delay is not None and delay > len(previous):
        raise PolyactError(f"'inference_delay' is {delay}, but 'prev_chunk' has only {len(previous)} actions left")
    return Request(
        signature.read(message),
        _whole(message, "timestep", MOST_TICKS),
        _number(message, "timestamp"),
        delay,
        previous,
        reset,
        seed,
    )


def _flag(message: dict[Any, Any], name: str) -> bool:
    value = message.get(name)
    if value is None or isinstance(value, bool | np.bool_):
        return bool(value)
    raise PolyactError(f"'{name}' is true or false, got {type(value).__name__}")


def _whole(message: dict[Any, Any], name: str, most: int) -> int | None:
    value = message.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value <= most:
        raise PolyactError(f"'{name}' is a whole number in 0 .. {most}, got {_shown(value)}")
    return int(value)


def _number(message: dict[Any, Any], name: str) -> float | None:
    value = message.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not _finite(value):
        raise PolyactError(f"'{name}' is a finite number of seconds, got {_shown(value)}")
    return float(value)


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _previous(value: Any, action_space: Space, horizon: int) -> np.ndarray | None:
    if value is None:
        return None
    assert isinstance(action_space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    array = np.asarray(value) if isinstance(value, np.ndarray) else None
    if array is None or array.ndim == 0 or not 1 <= len(array) <= horizon:
        raise PolyactError(f"'prev_chunk' is an array of 1 to {horizon} actions")
    part = Part(("prev_chunk",), action_space, action_space.dtype)
    return np.stack([checked(part, action) for action in array])


def _shown(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, int | float | str | np.generic) and not _huge(value) else type(value).__name__


def _huge(value: Any) -> bool:
    return isinstance(value, int) and abs(value) >= 1 << 64
