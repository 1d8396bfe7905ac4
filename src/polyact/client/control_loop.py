"""A robot's control loop around a policy server: every tick gets its action in time, whatever the network and the policy do."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from polyact.client.schedule import Schedule
from polyact.errors import PolyactError, one_line
from polyact.timing import check_rate, in_ticks

REMEMBERED = 20  # latencies of the last inferences, from which the next one's is told


@runtime_checkable
class Infers(Protocol):
    """What a control loop needs of a client."""

    @property
    def metadata(self) -> dict[str, Any]: ...
    def accepts(self, name: str) -> bool: ...
    def infer(self, observation: dict[str, Any], **optional: Any) -> dict[str, Any]: ...
    def reset(self, seed: int | None = None) -> None: ...


@dataclass
class Counts:
    """ticks: actions handed out. late: ticks at which the fallback acted. dropped: control intervals that passed without an action of their
    own, because nobody called or, in "sync", because the robot waited. asked, answered, failed: inferences (an answer that the server
    itself marks as late is a failed one). actions_dropped: planned actions that arrived after their tick."""

    ticks: int = 0
    late: int = 0
    dropped: int = 0
    asked: int = 0
    answered: int = 0
    failed: int = 0
    actions_dropped: int = 0


class ControlLoop:
    """Hands out the action that is due at every control tick, asking the server in a thread of its own.

    control_hz: control rate in Hz. scheme and its settings: see `polyact.client.schedule.Schedule`; the idle action is zeros within the
    bounds that the server announces, and must be given where it announces none. fallback: what acts when nothing is due: hold, zero, or
    chunk. Raises PolyactError when the server can't do what the scheme needs.

        with ControlLoop(client, control_hz=50, scheme="async") as loop:
            loop.run(read_sensors, move, seconds=60)

    or, where the robot has a loop of its own, `loop.act(observation)` once per tick, and `loop.reset()` before an episode.
    """

    def __init__(
        self,
        client: Infers,
        *,
        control_hz: float,
        scheme: str = "async",
        fallback: str = "hold",
        execution_horizon: int | None = None,
        threshold: float | None = None,
        aggregate: str = "latest_only",
        decay: float | None = None,
        idle: np.ndarray | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        check_rate(control_hz)
        if threshold is not None and scheme != "async":
            raise PolyactError(f"threshold has no effect in scheme '{scheme}'")
        if decay is not None and scheme != "ensemble":
            raise PolyactError(f"decay has no effect in scheme '{scheme}'")
        if execution_horizon is not None and scheme not in ("sync", "rtc"):
            raise PolyactError(f"execution_horizon has no effect in scheme '{scheme}'")
        known = client.metadata
        if scheme == "rtc" and not known.get("guided", False):
            raise PolyactError("scheme 'rtc' needs a server that continues chunks; this one does not say that its policy can")
        self.client, self.control_hz, self.counts = client, control_hz, Counts()
        self._clock, self._sleep = clock, sleep
        self.schedule = Schedule(
            scheme,
            idle=_idle(known.get("action_space"), scheme) if idle is None else idle,
            execution_horizon=execution_horizon or (known.get("execution_horizon") if scheme == "sync" else None),
            fallback=fallback,
            threshold=0.5 if threshold is None else threshold,
            aggregate=aggregate,
            decay=0.01 if decay is None else decay,
        )
        self._worker = ThreadPoolExecutor(1, "polyact-control-loop")
        self._running: tuple[Future[Answer], int, float] | None = None
        self.error: str | None = None
        self.latencies: list[float] = []  # seconds, of the last inferences
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Start an episode: plans are forgotten, an inference under way is waited for, and tick 0 is the next call of `act`."""
        if self._running is not None:
            self._running[0].exception()
        self._running, self._tick = None, -1
        self._began: float | None = None
        self.schedule.clear()
        self.client.reset(seed)

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        """The action for the tick that it is now. Only scheme "sync" waits for the server; the others return at once.

        Errors of the server are counted (`counts.failed`, the last one in `error`) and bridged by the fallback, except in "sync", which
        raises them.
        """
        tick = self._arrive_at(self._clock())
        self._collect(tick)
        if self._running is None and self.schedule.wants(tick):
            self._ask(observation, tick)
            if self.schedule.scheme == "sync":
                tick = self._wait()
        found = self.schedule.due(tick)
        self.counts.ticks += 1
        self.counts.late += found.late
        return found.action

    def run(
        self, observe: Callable[[], dict[str, Any]], apply: Callable[[np.ndarray], None], *, seconds: float | None = None
    ) -> Counts:
        """Read, act and apply once per control interval, for so many seconds or until an exception (KeyboardInterrupt) ends it."""
        began, period = self._clock(), 1 / self.control_hz
        while seconds is None or self._clock() - began < seconds - 1e-9:
            apply(self.act(observe()))
            assert self._began is not None
            self._sleep(max(0.0, self._began + (self._tick + 1) * period - self._clock()))
        return self.counts

    def close(self) -> None:
        """End the thread; the client stays open."""
        self._worker.shutdown(wait=True)

    def __enter__(self) -> "ControlLoop":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _arrive_at(self, now: float) -> int:
        """The tick that it is, to the nearest, because callers are a little early or late; ticks that were missed are counted."""
        self._began = now if self._began is None else self._began
        tick = max(self._tick + 1, round((now - self._began) * self.control_hz))
        self.counts.dropped += tick - self._tick - 1
        self._tick = tick
        return tick

    def _ask(self, observation: dict[str, Any], tick: int) -> None:
        now = self._clock()
        optional: dict[str, Any] = {"timestep": tick, "timestamp": now}
        if self.schedule.scheme == "rtc":
            optional |= self._promise(tick)
        self.counts.asked += 1
        self._running = self._worker.submit(self._infer, observation, optional), tick, now

    def _infer(self, observation: dict[str, Any], optional: dict[str, Any]) -> "Answer":
        reply = self.client.infer(observation, **optional)
        if reply.get("late"):
            raise PolyactError("the server's answer was late")
        return Answer(np.asarray(reply["actions"]), self._clock())

    def _promise(self, tick: int) -> dict[str, Any]:
        """What will be done until the answer is there, and how long that takes: the longest of the last inferences."""
        left = self.schedule.left(tick)
        self.schedule.delay = in_ticks(max(self.latencies), self.control_hz) if self.latencies else 0
        return {} if left is None else {"prev_chunk": left, "inference_delay": min(self.schedule.delay, len(left))}

    def _wait(self) -> int:
        """The robot stands still until the answer is there, and the plan is for the tick that it then is. Raises what the client raised."""
        assert self._running is not None
        (future, _, began), self._running = self._running, None
        answer = self._counted(future, began)
        if answer is None:
            raise future.exception() or PolyactError("no answer")
        if round((answer.at - (self._began or 0.0)) * self.control_hz) > self._tick:
            self._arrive_at(answer.at)
            self.counts.dropped += 1  # the tick that asked has no action of its own
        self.schedule.arrive(answer.actions, self._tick, self._tick)
        return self._tick

    def _collect(self, tick: int) -> None:
        """Take the answer, if it has come."""
        if self._running is None or not self._running[0].done():
            return
        (future, asked, began), self._running = self._running, None
        if (answer := self._counted(future, began)) is not None:
            self.counts.actions_dropped += min(tick - asked, len(answer.actions))
            self.schedule.arrive(answer.actions, asked, tick)

    def _counted(self, future: "Future[Answer]", began: float) -> "Answer | None":
        """The answer; None when there is none, with the reason in `error`."""
        if (failure := future.exception()) is not None:
            self.counts.failed += 1
            self.error = one_line(failure)
            return None
        answer = future.result()
        self.counts.answered += 1
        self.latencies = [*self.latencies[1 - REMEMBERED :], answer.at - began]
        return answer


@dataclass(frozen=True)
class Answer:
    """actions [H, ...], and when they were there, on the loop's clock."""

    actions: np.ndarray
    at: float


def _idle(space: dict[str, Any] | None, scheme: str) -> np.ndarray:
    """Zeros within the bounds of an announced action space (in polyact's JSON)."""
    match (space or {}).get("type"):
        case "Box":
            assert space is not None
            zeros = np.zeros(space["shape"], space["dtype"])
            return np.clip(zeros, np.asarray(space["low"]), np.asarray(space["high"])).astype(space["dtype"])
        case "Discrete":
            assert space is not None
            return np.asarray(np.clip(0, space["start"], space["start"] + space["n"] - 1))
        case "MultiDiscrete":
            assert space is not None
            return np.zeros(len(space["nvec"]), np.int32)
        case "MultiBinary":
            assert space is not None
            return np.zeros(space["n"], np.int8)
    if scheme == "sync":
        return np.zeros(())  # never done: the robot waits for its first action
    raise PolyactError("the server does not say what its actions are; give the idle action")
