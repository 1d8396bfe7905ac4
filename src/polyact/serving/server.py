"""The server: websocket connections that speak openpi's protocol, and three HTTP pages for those who operate it.

A connection first gets one binary frame of metadata; then every request is answered by one frame, in order: binary, or a text that says in
one line what was wrong. After a wrong request the connection stays open; after a frame that is no message of the protocol it closes (1011).
"""

import asyncio
import contextlib
import http
import logging
import ssl
import time
from collections.abc import Mapping
from typing import Any

from polyact.client.codec import WireError, packb, unpackb
from polyact.errors import PolyactError, need, unknown
from polyact.serving.batching import InferenceFailed, Overloaded
from polyact.serving.hosted import Hosted, Options, Source
from polyact.serving.limits import Limits, TokenBucket, authorised, check_binding
from polyact.serving.logs import LOGGER, event
from polyact.serving.metrics import Metrics
from polyact.serving.session import Reply, Session

GOING_AWAY, UNSUPPORTED, POLICY, INTERNAL, LATER = 1001, 1003, 1008, 1011, 1013
STARTING = 8.0  # seconds that a client which comes too early waits for the server to be ready
ROOM = 1 << 16  # bytes of a message for all that is not the observation


class Server:
    """Serves runs by name: the first one at /, each one at /NAME.

    key: what clients must send as `Authorization: Api-Key KEY`; needed where `host` lets other machines in. reload: seconds between looks
    at whether a run has changed, None not to look. Raises PolyactError for a binding that is not safe, and from `start` for runs that
    can't be served.
    """

    def __init__(
        self,
        runs: Mapping[str, Source],
        options: Options | None = None,
        limits: Limits | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        key: str | None = None,
        tls: ssl.SSLContext | None = None,
        reload: float | None = None,
    ):
        check_binding(host, key)
        if not runs:
            raise PolyactError("there is no run to serve")
        self._websockets = need("websockets.asyncio.server", "serve", "serving")
        self._closed: Any = need("websockets.exceptions", "serve", "serving").ConnectionClosed
        self.host, self.port, self.key, self.tls, self.reload = host, port, key, tls, reload
        self.limits = limits or Limits()
        self.metrics = Metrics(lambda: len(self._open), self._waiting, lambda: self._ready.is_set() and not self._draining)
        self.runs = {name: Hosted(name, source, options or Options(), self.limits, self.metrics) for name, source in runs.items()}
        self._open: dict[Any, bool] = {}  # connection -> whether a request of it is being answered
        self._draining = False

    async def start(self) -> None:
        """Load, listen, compile; whoever connects meanwhile waits. Afterwards `port` is the port in use."""
        self._ready, self._reader = asyncio.Event(), None
        for run in self.runs.values():
            await run.load()
        needed = ROOM + 2 * max(run.message_bytes for run in self.runs.values())
        self._server = await self._websockets.serve(
            self._connected,
            self.host,
            self.port,
            process_request=self._requested,
            origins=[None],  # no browser page may speak to a robot's policy
            compression=None,
            max_size=self.limits.message_bytes or needed,
            max_queue=4,
            write_limit=1 << 18,
            open_timeout=STARTING + 2,
            close_timeout=2,
            server_header=None,
            ssl=self.tls,
            logger=_quiet(),
        )
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            for run in self.runs.values():
                await run.start()
        except BaseException:
            await self.stop()
            raise
        self._ready.set()
        if self.reload:
            self._reader = asyncio.create_task(self._reload_regularly())
        event("serving", host=self.host, port=self.port, runs=list(self.runs), tls=self.tls is not None, key=self.key is not None)

    async def stop(self) -> None:
        """Take no new connections, answer what is in flight, close with 1001; what takes longer than the grace period is cut off."""
        self._draining = True
        event("stopping", connections=len(self._open))
        self._server.close(close_connections=False)
        if self._reader is not None:
            self._reader.cancel()
        idle = [connection.close(GOING_AWAY, "the server is shutting down") for connection, busy in self._open.items() if not busy]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.grace):
                await asyncio.gather(*idle, return_exceptions=True)
                while self._open:
                    await asyncio.sleep(0.005)
        for connection in list(self._open):
            connection.transport.abort()
        for run in self.runs.values():
            await run.stop()
        await self._server.wait_closed()
        event("stopped")

    async def reload_now(self) -> None:
        """Look at once whether a run has changed."""
        for run in self.runs.values():
            await run.reload_if_changed()

    async def _reload_regularly(self) -> None:
        while True:
            await asyncio.sleep(self.reload or 0)
            await self.reload_now()

    def _waiting(self) -> int:
        return sum(run.batcher.waiting for run in self.runs.values() if run.batcher is not None)

    # HTTP

    async def _requested(self, connection: Any, request: Any) -> Any:
        """The answer to an HTTP request; None to go on with a websocket."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if path == "/readyz":
            ready = self._ready.is_set() and not self._draining
            return connection.respond(*((200, "ready\n") if ready else (503, "not ready\n")))
        if not authorised(request.headers.get("Authorization"), self.key):
            self.metrics.refused("key")
            response = connection.respond(http.HTTPStatus.UNAUTHORIZED, "the API key is missing or wrong\n")
            response.headers["WWW-Authenticate"] = "Api-Key"
            return response
        if path == "/metrics":
            response = connection.respond(http.HTTPStatus.OK, self.metrics.text().decode())
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = self.metrics.content_type
            return response
        if path != "/" and path[1:] not in self.runs:
            self.metrics.refused("run")
            return connection.respond(http.HTTPStatus.NOT_FOUND, f"{unknown('run', path[1:80], self.runs)}\n")
        return await self._admitted(connection)

    async def _admitted(self, connection: Any) -> Any:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), STARTING)
        if not self._ready.is_set():
            self.metrics.refused("starting")
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "the server is still compiling; come back later\n")
        if len(self._open) >= self.limits.connections:
            self.metrics.refused("connections")
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{self._full()}\n")
        return None

    def _full(self) -> str:
        return f"the server is full: {self.limits.connections} connections are open"

    # Websockets

    async def _connected(self, connection: Any) -> None:
        run = self.runs.get(connection.request.path.partition("?")[0][1:], next(iter(self.runs.values())))
        if self._draining or len(self._open) >= self.limits.connections:
            await connection.close(LATER, self._full())
            return
        self._open[connection] = False
        began, asked = time.monotonic(), 0
        event("connected", run=run.name, client=connection.remote_address)
        try:
            with run.session() as session:
                if session is not None:
                    await self._send(connection, packb(run.metadata(list(self.runs))))
                    try:
                        await self._converse(connection, run, session)
                    finally:
                        asked = session.requests
        except (self._closed, ConnectionAbortedError):
            pass
        finally:
            del self._open[connection]
            facts = {"code": connection.close_code, "requests": asked, "seconds": round(time.monotonic() - began, 3)}
            event("disconnected", run=run.name, client=connection.remote_address, **facts)

    async def _converse(self, connection: Any, run: Hosted, session: Session) -> None:
        """Answer until somebody ends it."""
        bucket, previous = TokenBucket(self.limits.rate), 0.0
        while not self._draining:
            try:
                async with asyncio.timeout(self.limits.idle):
                    frame = await connection.recv()
            except TimeoutError:
                self.metrics.refused("idle")
                await connection.close(POLICY, f"no whole message for {self.limits.idle:g} s")
                return
            received, self._open[connection] = time.perf_counter(), True
            session.requests += 1
            code, kind = None, "request"
            try:
                if not bucket.take():
                    kind = "rate"
                    raise PolyactError(f"too many requests: at most {self.limits.rate:g} per second on a connection")
                if isinstance(frame, str):
                    raise WireError("a request is a binary frame, got a text")
                answer = await self._answer(run, session, frame, received, previous)
            except (PolyactError, WireError) as error:
                kind = _kind(error, kind)
                code = INTERNAL if kind == "frame" else None
                self.metrics.refused(kind)
                answer = str(error)
            except Exception as error:
                code, answer = INTERNAL, "internal error; the server's log says more"
                self.metrics.refused("internal")
                LOGGER.error("internal error", exc_info=error)
            await self._send(connection, answer)
            previous, self._open[connection] = time.perf_counter() - received, False
            if code is not None:
                event("refused", logging.WARNING, run=run.name, client=connection.remote_address, kind=kind, reason=answer)
                await connection.close(code)
                return
        await connection.close(GOING_AWAY, "the server is shutting down")

    async def _answer(self, run: Hosted, session: Session, frame: bytes, received: float, previous: float) -> bytes:
        request = run.read(unpackb(frame))
        assert run.batcher is not None
        reply = await session.answer(request, run.batcher, received)
        seconds = time.perf_counter() - received
        self.metrics.of(run.name).answered(seconds, reply.late)
        return packb(_message(reply, run.clock.fallback, request.timestamp, seconds, previous))

    async def _send(self, connection: Any, message: str | bytes) -> None:
        """Send; a client that does not read for too long is cut off."""
        try:
            async with asyncio.timeout(self.limits.sending):
                await connection.send(message)
        except TimeoutError:
            self.metrics.refused("not reading")
            event("cut off", logging.WARNING, client=connection.remote_address, reason="the client does not read its answers")
            connection.transport.abort()
            raise ConnectionAbortedError from None


def _message(reply: Reply, fallback: str, timestamp: float | None, seconds: float, previous: float) -> dict[str, Any]:
    message: dict[str, Any] = {
        "actions": reply.chunk,
        "timestep": reply.tick,
        "late": reply.late,
        "staleness": reply.staleness,
        "server_timing": {"infer_ms": 1000 * seconds} | ({"prev_total_ms": 1000 * previous} if previous else {}),
    }
    if reply.answer is not None:
        message["policy_timing"] = {"infer_ms": 1000 * reply.answer.seconds}
    else:
        message["fallback"] = fallback
    return message if timestamp is None else message | {"timestamp": timestamp}


def _kind(error: PolyactError, otherwise: str) -> str:
    """Under which word an error is counted."""
    words = {WireError: "frame", Overloaded: "overloaded", InferenceFailed: "inference"}
    return next((word for kind, word in words.items() if isinstance(error, kind)), otherwise)


def _quiet() -> logging.Logger:
    """The websocket library's own words are of no use to operators; ours say what happened."""
    logger = logging.getLogger("polyact.serving.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger
