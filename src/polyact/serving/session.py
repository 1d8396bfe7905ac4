"""What belongs to one connection: its episode, its running chunk, and what is done when an answer is late.

The policy's own memory lies in the engine's table, in the row that the session holds.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from polyact.errors import PolyactError
from polyact.serving.batching import Answer, Batcher, InferenceFailed, Ticket
from polyact.serving.engine import Row
from polyact.serving.requests import Request
from polyact.timing import due


@dataclass(frozen=True)
class Reply:
    """chunk [H, ...] for the ticks from `tick` on. answer: where it comes from; None when that was late and the fallback acts instead.

    staleness: age in ticks of the observation behind the chunk; None when nothing has arrived yet.
    """

    chunk: np.ndarray
    tick: int
    answer: Answer | None
    staleness: int | None

    @property
    def late(self) -> bool:
        return self.answer is None


@dataclass(frozen=True)
class Plan:
    """A chunk that arrived: the tick it answers, and the first tick at which it could be used."""

    chunk: np.ndarray
    asked: int
    arrived: int


@dataclass(frozen=True)
class Clock:
    """period: seconds from a request to when its answer is late, None to wait for it. fallback: see `polyact.timing`."""

    period: float | None
    fallback: str


class Session:
    """One client's episodes. Asked one request at a time; an inference that was late may still run when the next request comes.

    idle [H, ...]: a chunk of doing nothing.
    """

    def __init__(self, slot: int, seed: int, idle: np.ndarray, clock: Clock):
        self.slot, self.seed, self.idle, self.clock = slot, seed, idle, clock
        self.episode, self.tick, self.requests = 0, -1, 0
        self.fresh = True  # the next inference starts the episode
        self._forget()
        self._running: Ticket | None = None
        self._asking = False

    async def answer(self, request: Request, batcher: Batcher, received: float) -> Reply:
        """The reply to a request that came at `received` (time.perf_counter). Raises Overloaded, InferenceFailed, and PolyactError for a
        timestep that falls within an episode."""
        if request.reset:
            self._next_episode(request.seed)
        self.tick = self._tick_of(request)
        deadline = None if self.clock.period is None else received + self.clock.period
        self._asking = True
        try:
            return await self._answer(request, batcher, deadline)
        finally:
            self._asking = False

    def close(self, release: Callable[[], None]) -> None:
        """Call `release` when no inference of this session is under way any more: its row of the table is free then."""
        if self._running is None:
            release()
        else:
            self._running.answer.add_done_callback(lambda _: release())

    def lose_memory(self) -> None:
        """The policy's memory is gone: the next inference starts an episode of its own."""
        if not self.fresh:
            self._next_episode(None, self.tick)

    async def _answer(self, request: Request, batcher: Batcher, deadline: float | None) -> Reply:
        if self._running is not None and not await _in_time(self._running, deadline):
            return self._fallback()
        ticket = self._submit(request, batcher)
        if not await _in_time(ticket, deadline):
            return self._fallback()
        answer = ticket.answer.result()
        if isinstance(answer, InferenceFailed):
            raise answer
        self.applied = answer.chunk[0]
        return Reply(answer.chunk, self.tick, answer, 0)

    def _next_episode(self, seed: int | None, tick: int = -1) -> None:
        if seed is not None:
            self.seed, self.episode = seed, 0
        elif not self.fresh:
            self.episode += 1
        self.fresh, self.tick = True, tick
        self._forget()

    def _forget(self) -> None:
        self.newest: Plan | None = None
        self.applied = self.idle[0]

    def _tick_of(self, request: Request) -> int:
        if request.timestep is None:
            return self.tick + 1
        if request.timestep < self.tick:
            raise PolyactError(f"'timestep' is {request.timestep}, but {self.tick} was before; it rises until 'reset'")
        return request.timestep

    def _submit(self, request: Request, batcher: Batcher) -> Ticket:
        tick, episode = self.tick, (self.seed, self.episode)
        previous, delay = self._promised(request)
        row = Row(self.slot, self.fresh, self.seed, self.episode, tick, request.observation, previous, delay)
        self._running = batcher.submit(row, lambda answer: self._arrived(answer, tick, episode))
        self.fresh = False
        return self._running

    def _promised(self, request: Request) -> tuple[np.ndarray | None, int]:
        """What will be done meanwhile: what the client says, or else the rest of the chunk that it was sent last."""
        delay, previous = request.inference_delay, request.prev_chunk
        if previous is None and delay is not None and self.newest is not None:
            previous = self.newest.chunk[self.tick - self.newest.asked :]
        if previous is None or not len(previous):
            return None, 0
        return previous, min(delay or 0, len(previous))

    def _arrived(self, answer: Answer | InferenceFailed, tick: int, episode: tuple[int, int]) -> None:
        self._running = None
        if episode != (self.seed, self.episode):
            return
        if isinstance(answer, InferenceFailed):
            self.lose_memory()
        else:
            self.newest = Plan(answer.chunk, tick, self.tick if self._asking else self.tick + 1)

    def _fallback(self) -> Reply:
        """What the fallback makes of the newest plan: for this tick and, as if nothing more arrived, for those after it.

        As in `polyact.acting.realtime`, only "chunk" plays on in a plan; to the others a plan is its first action.
        """
        plan, tick = self.newest, self.tick
        if plan is None:
            chunk = self.idle if self.clock.fallback == "zero" else np.broadcast_to(self.applied, self.idle.shape)
            return Reply(np.array(chunk), tick, None, None)
        actions = plan.chunk if self.clock.fallback == "chunk" else plan.chunk[:1]
        ahead = np.arange(len(self.idle))
        age, since, ready = tick - plan.asked + ahead, tick - plan.arrived + ahead, np.ones(len(ahead), bool)
        place, taken, _ = due(np, self.clock.fallback, age, since, ready, len(actions))
        chunk, last = [], self.applied
        for step in ahead:
            idle = self.idle[step] if self.clock.fallback == "zero" else last
            last = actions[place[step]] if taken[step] else idle
            chunk.append(last)
        self.applied = chunk[0]
        return Reply(np.stack(chunk), tick, None, tick - plan.asked)


async def _in_time(ticket: Ticket, deadline: float | None) -> bool:
    if deadline is None:
        await ticket.answer
    elif not ticket.answer.done():
        await asyncio.wait([ticket.answer], timeout=max(0.0, deadline - time.perf_counter()))
    return ticket.answer.done()
