"""Words and rules of a world that does not wait, the same for simulated latency, served policies and the control loop of a robot.

A plan is a chunk of actions [H, ...] (H = 1 for ordinary policies) that answers the observation of one control tick: its first action is
for that tick. It can be used from the tick at which it arrives.
"""

import math
from typing import Any

from polyact.errors import PolyactError

FALLBACKS = ("hold", "zero", "chunk")
SCHEMES = ("sync", "async", "ensemble", "rtc")


def check_word(kind: str, word: str, words: tuple[str, ...]) -> None:
    """Raise PolyactError when `word` is none of `words`."""
    if word not in words:
        raise PolyactError(f"{kind} is '{word}', expected one of {', '.join(words)}")


def check_rate(control_hz: float) -> None:
    """Raise PolyactError when a control rate (Hz) is no positive finite number."""
    if not (isinstance(control_hz, int | float) and 0 < control_hz < math.inf):
        raise PolyactError(f"control_hz must be positive, got {control_hz}")


def in_ticks(seconds: float, control_hz: float) -> int:
    """Control intervals after which something that takes this long has arrived."""
    return math.ceil(seconds * control_hz - 1e-6)


def due(numbers: Any, fallback: str, age: Any, since: Any, ready: Any, length: int) -> tuple[Any, Any, Any]:
    """What the newest plan that arrived says about this tick: (place in the plan, whether that action is taken, whether the tick is late).

    numbers: the array library (numpy or jax.numpy) of the other arguments, scalars or arrays alike. age: ticks since the observation
    that the plan answers; since: ticks since it arrived; ready: whether there is a plan at all; length: H. Where no action is taken,
    "zero" gives zeros and the others repeat the last action. A plan that arrives when all its ticks are over is spent at once: "zero"
    takes its last action for that one tick, "hold" until a newer one arrives, "chunk" not at all.
    """
    playing = ready & (age < length)
    fresh = playing | (ready & (since == 0))
    taken, late = {"hold": (ready, ~fresh), "zero": (fresh, ~fresh), "chunk": (playing, ~playing)}[fallback]
    return numbers.clip(age, 0, length - 1), taken, late
