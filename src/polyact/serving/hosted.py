"""A run behind a name: loaded, compiled, asked, and loaded again when it changes."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from polyact import spaces
from polyact.envs.wrappers import idle_action
from polyact.errors import PolyactError
from polyact.policies.base import Policy
from polyact.policies.fitting import alike
from polyact.serving.batching import Batcher
from polyact.serving.engine import Engine, batch_sizes
from polyact.serving.limits import Limits
from polyact.serving.logs import event
from polyact.serving.metrics import Metrics
from polyact.serving.requests import OPTIONAL, Request, read_request
from polyact.serving.session import Clock, Session
from polyact.spaces import Space
from polyact.timing import FALLBACKS, check_rate, check_word


@dataclass(frozen=True)
class Offer:
    """A policy to serve, what it observes and does, and JSON facts about where it comes from, for the metadata."""

    policy: Policy
    observation_space: Space
    action_space: Space
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Where a run's offer comes from. load: read it, slowly and anew; stamp: a value that changes when `load` would give another one."""

    load: Callable[[], Offer]
    stamp: Callable[[], Any] = lambda: None


@dataclass(frozen=True)
class Options:
    """How runs are served.

    control_hz: the clients' control rate; an answer that takes longer than one interval is late, and `fallback` (see `polyact.timing`)
    answers instead. window: seconds that a request waits for others to share its compiled call. largest_batch: requests per compiled call.
    seed: what the randomness of sessions follows from when clients give no seed.
    """

    control_hz: float | None = None
    fallback: str = "hold"
    window: float = 0.001
    largest_batch: int = 32
    seed: int = 0

    def __post_init__(self):
        check_word("fallback", self.fallback, FALLBACKS)
        if self.control_hz is not None:
            check_rate(self.control_hz)
        elif self.fallback != "hold":
            raise PolyactError(f"fallback '{self.fallback}' has no effect without control_hz: no answer is late then")
        if not 0 <= self.window < 1:
            raise PolyactError(f"a window lasts 0 to 1 s, got {self.window}")
        if not 0 <= self.seed < 1 << 32:
            raise PolyactError(f"a seed lies in 0 .. 2^32 - 1, got {self.seed}")
        batch_sizes(self.largest_batch)


class Hosted:
    """One run. First `load`, then `start`; to be used on the event loop, which what takes long does not hold up."""

    def __init__(self, name: str, source: Source, options: Options, limits: Limits, metrics: Metrics):
        self.name, self.source, self.options, self.limits, self.metrics = name, source, options, limits, metrics
        self.clock = Clock(None if options.control_hz is None else 1 / options.control_hz, options.fallback)
        self.batcher: Batcher | None = None
        self._free = list(range(limits.connections))
        self._sessions: set[Session] = set()
        self._opened = 0
        self._stamp: Any = None

    async def load(self) -> None:
        """Read the run. Raises PolyactError when it can't be served."""
        self._stamp = self.source.stamp()
        self.offer, self._loaded = await asyncio.to_thread(self._read)

    async def start(self) -> None:
        """Compile, and be ready to answer."""
        await asyncio.to_thread(self._loaded.compile)
        self.batcher = Batcher(
            self._loaded,
            window=self.options.window,
            capacity=self.limits.queue,
            company=lambda: len(self._sessions),
            computed=lambda seconds, batch: self.metrics.computed(self.name, seconds, batch),
            name=self.name,
        )

    async def stop(self) -> None:
        """Answer what waits and end the thread."""
        if self.batcher is not None:
            await self.batcher.close()

    @property
    def engine(self) -> Engine:
        return self._loaded if self.batcher is None else self.batcher.engine

    @property
    def message_bytes(self) -> int:
        """Of the largest sensible request."""
        action = self.offer.action_space
        return self.engine.signature.bytes + 8 * self.engine.horizon * int(np.prod(_shape(action), dtype=np.int64))

    @contextmanager
    def session(self) -> Iterator[Session | None]:
        """A session for a new connection while it lasts; None when there is no room. Its seed is the server's plus its number."""
        if not self._free:
            yield None
            return
        slot = self._free.pop()
        shape, action = (self.engine.horizon, *_shape(self.offer.action_space)), np.asarray(idle_action(self.offer.action_space))
        session = Session(slot, (self.options.seed + self._opened) % (1 << 32), np.broadcast_to(action, shape), self.clock)
        self._opened += 1
        self._sessions.add(session)
        try:
            yield session
        finally:
            self._sessions.discard(session)
            session.close(lambda: self._free.append(slot))

    def read(self, message: dict[Any, Any]) -> Request:
        """A checked request."""
        return read_request(message, self.engine.signature, self.offer.action_space, self.engine.horizon)

    def metadata(self, runs: list[str]) -> dict[str, Any]:
        """What a client is told when it connects."""
        engine, space = self.engine, self.offer.action_space
        return {
            "server": f"polyact {version('polyact')}",
            "run": self.name,
            "runs": runs,
            "policy": type(engine.policy).__name__,
            "observation": engine.signature.describe(),
            "observation_space": spaces.to_json(self.offer.observation_space),
            "action_space": spaces.to_json(space),
            "horizon": engine.horizon,
            "execution_horizon": engine.execute or engine.horizon,
            "accepts": list(OPTIONAL),
            "guided": engine.guided,
            "control_hz": self.options.control_hz,
            "fallback": self.options.fallback if self.options.control_hz else None,
        } | self.offer.facts

    async def reload_if_changed(self) -> None:
        """Serve the run as it is now, if it has changed; connections stay. What can't be loaded is logged, and the old one stays."""
        try:
            stamp = await asyncio.to_thread(self.source.stamp)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            offer, engine = await asyncio.to_thread(self._read)
            _check_replaceable(self.offer, offer, self.engine, engine)
            await asyncio.to_thread(engine.compile)
        except (PolyactError, OSError) as error:
            self.metrics.reloaded(self.name, "failed")
            event("reload failed", logging.ERROR, run=self.name, reason=str(error))
            return
        assert self.batcher is not None
        kept = await self.batcher.swap(engine)
        self.offer = offer
        if not kept:
            for session in self._sessions:
                session.lose_memory()
        self.metrics.reloaded(self.name, "done")
        event("reloaded", run=self.name, memories="kept" if kept else "lost")

    def _read(self) -> tuple[Offer, Engine]:
        offer = self.source.load()
        engine = Engine(
            offer.policy,
            offer.observation_space,
            offer.action_space,
            sizes=batch_sizes(self.options.largest_batch),
            sessions=self.limits.connections,
        )
        if self.options.fallback == "zero" and not isinstance(offer.action_space, spaces.Box):
            raise PolyactError(f"fallback 'zero' needs continuous actions, got {offer.action_space}")
        if self.options.fallback == "chunk" and engine.horizon == 1:
            raise PolyactError(f"fallback 'chunk' needs a policy that plans chunks, {type(engine.policy).__name__} does not")
        return offer, engine


def _check_replaceable(old: Offer, new: Offer, before: Engine, after: Engine) -> None:
    """Clients were told what they may send and will get: that can't change under them."""
    same = alike(old.observation_space, new.observation_space) and alike(old.action_space, new.action_space)
    if not same or before.horizon != after.horizon or before.guided != after.guided:
        raise PolyactError("the run now has other observations, actions or chunks; restart the server to serve it")


def _shape(space: Space) -> tuple[int, ...]:
    return space.shape  # pyright: ignore[reportAttributeAccessIssue]
