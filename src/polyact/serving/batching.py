"""Requests of many clients in one compiled call: a thread that waits a moment for company, runs, and hands the answers back.

The event loop only queues and delivers; everything that computes happens in the thread, so a slow policy never delays a connection.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from polyact.errors import PolyactError, one_line
from polyact.serving.engine import Engine, Row


class Overloaded(PolyactError):
    """More requests wait than the server is willing to keep."""


class InferenceFailed(PolyactError):
    """The policy raised an error, or gave an action that is not finite; the session must start afresh."""


@dataclass(eq=False)
class Ticket:
    """A row on its way through the thread. done is called on the event loop with the answer, before `answer` wakes whoever waits."""

    row: Row
    done: Callable[["Answer | InferenceFailed"], None]
    answer: asyncio.Future = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True)
class Answer:
    """chunk [H, ...]; seconds that the compiled call took, and how many requests it answered."""

    chunk: np.ndarray
    seconds: float
    batch: int


class Batcher:
    """One thread around one engine.

    window: seconds that a request which finds the thread idle waits for others, unless `company()` says that everybody who could ask has
    asked; what gathers while a batch is computed goes with the next one at once. capacity: requests that may wait; one more raises
    Overloaded. computed(seconds, requests) is told of every compiled call. To be made, asked and closed on
    the event loop.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        window: float,
        capacity: int,
        company: Callable[[], int],
        computed: Callable[[float, int], None],
        name: str,
    ):
        self.engine, self.window, self.capacity, self.company, self.computed = engine, window, capacity, company, computed
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Ticket] = deque()
        self._next: tuple[Engine, asyncio.Future] | None = None
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"polyact-{name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, row: Row, done: Callable[[Answer | InferenceFailed], None]) -> Ticket:
        """Queue a row. Raises Overloaded when too many wait."""
        ticket = Ticket(row, done)
        with self._changed:
            if len(self._waiting) >= self.capacity:
                raise Overloaded(f"overloaded: {len(self._waiting)} requests are waiting already; ask again later")
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    async def swap(self, engine: Engine) -> bool:
        """Answer with another, compiled engine from the next batch on; returns whether the sessions keep their memories."""
        swapped = self._loop.create_future()
        with self._changed:
            self._next = engine, swapped
            self._changed.notify()
        return await swapped

    async def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while True:
            with self._changed:
                busy = bool(self._waiting)
                self._changed.wait_for(lambda: self._waiting or self._closing or self._next)
                if self._closing and not self._waiting:
                    return
                swap, self._next = self._next, None
                if not swap:
                    batch = self._gather(0.0 if busy else self.window)
            if swap:
                kept = swap[0].adopt(self.engine)
                self.engine = swap[0]
                self._loop.call_soon_threadsafe(swap[1].set_result, kept)
            else:
                self._answer(batch)

    def _gather(self, window: float) -> list[Ticket]:
        """The oldest tickets, after waiting for others until the window closes."""
        largest, closes = self.engine.sizes[-1], time.monotonic() + window
        while len(self._waiting) < min(largest, self.company()) and not self._closing:
            if (left := closes - time.monotonic()) <= 0:
                break
            self._changed.wait(left)
        return [self._waiting.popleft() for _ in range(min(largest, len(self._waiting)))]

    def _answer(self, batch: list[Ticket]) -> None:
        began = time.perf_counter()
        answers: list[Answer | InferenceFailed]
        try:
            chunks = self.engine.run([ticket.row for ticket in batch])
        except Exception as error:
            answers = [InferenceFailed(f"the policy failed: {one_line(error)}")] * len(batch)
        else:
            seconds = time.perf_counter() - began
            bad = InferenceFailed("the policy's action is not finite")
            answers = [Answer(chunk, seconds, len(batch)) if np.isfinite(chunk).all() else bad for chunk in chunks]
        self._loop.call_soon_threadsafe(self._deliver, batch, answers, time.perf_counter() - began)

    def _deliver(self, batch: list[Ticket], answers: list[Answer | InferenceFailed], seconds: float) -> None:
        self.computed(seconds, len(batch))
        for ticket, answer in zip(batch, answers, strict=True):
            ticket.done(answer)
            if not ticket.answer.done():
                ticket.answer.set_result(answer)
