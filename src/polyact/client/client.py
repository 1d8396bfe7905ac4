"""A client of polyact's and openpi's policy servers: one observation in, one reply out, reconnecting when the server goes away."""

import contextlib
import random
import ssl
import time
from collections.abc import Callable
from typing import Any

from polyact.client.codec import packb, unpackb
from polyact.errors import PolyactError, need, one_line

FIRST_WAIT, LONGEST_WAIT = 0.05, 5.0  # seconds between attempts to connect; doubled every time, with jitter


class ServerError(PolyactError):
    """What a server answered instead of an action, or that it could not be reached in time."""


class Client:
    """Asks one server, over one connection, from one thread.

    address: ws://HOST:PORT/RUN, or a host name beside `port`. api_key: sent in the Authorization header. timeout: seconds for an answer,
    reconnecting included; while the server is away the client tries again after 0.05 s, 0.1 s, ... 5 s. tls: for wss:// with a certificate
    that the system does not know. Raises ServerError when nothing answers in time, and at once when the server refuses (a wrong key, an
    unknown run).
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: int | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        tls: ssl.SSLContext | None = None,
    ):
        if not timeout > 0:
            raise PolyactError(f"a timeout must be positive, got {timeout}")
        self.address = _address(address, port)
        self._timeout, self._tls = timeout, tls
        self._headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._connect: Callable[..., Any] = need("websockets.sync.client", "client", "talking to a policy server").connect
        self._errors: Any = need("websockets.exceptions", "client", "talking to a policy server")
        self._connection: Any = None
        self._reset: dict[str, Any] = {}
        self.connections = 0
        self._connected(time.monotonic() + timeout)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the server said of itself when it was last connected to."""
        return self._metadata

    def accepts(self, name: str) -> bool:
        """Whether the server understands an optional key of requests (openpi's servers announce none)."""
        return name in self._metadata.get("accepts", ())

    def infer(self, observation: dict[str, Any], **optional: Any) -> dict[str, Any]:
        """The server's reply: "actions" [horizon, ...] and what it says about them.

        optional: further keys (timestep, timestamp, inference_delay, prev_chunk); what the server does not announce is not sent, and None
        neither. When the connection was lost, the observation is sent again over a new one, where it starts an episode: the reply then has
        "reconnected": True. Raises ServerError with the server's own words when it refuses.
        """
        deadline, before = time.monotonic() + self._timeout, self.connections
        asked = {name: value for name, value in optional.items() if value is not None and self.accepts(name)}
        frame = packb(observation | asked | (self._reset if self.accepts("reset") else {}))
        reply = self._exchange(frame, deadline)
        while reply is None:
            self._connected(deadline)
            reply = self._exchange(frame, deadline)
        if isinstance(reply, str):
            raise ServerError(reply.strip().splitlines()[-1] if reply.strip() else "the server answered with an empty text")
        self._reset = {}
        answer = unpackb(reply)
        return answer | {"reconnected": True} if self.connections > before else answer

    def reset(self, seed: int | None = None) -> None:
        """The next observation starts an episode; seed: what the policy's randomness follows from, None to go on with the connection's."""
        self._reset = {"reset": True} if seed is None else {"reset": True, "seed": seed}

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _exchange(self, frame: bytes, deadline: float) -> bytes | str | None:
        """The answer to a frame; None when the connection is lost."""
        if self._connection is None:
            return None
        try:
            self._connection.send(frame)
            return self._connection.recv(max(0.0, deadline - time.monotonic()))
        except TimeoutError as error:
            self.close()  # an answer that came later would be taken for that to the next observation
            raise ServerError(f"{self.address} gave no answer within {self._timeout:g} s") from error
        except (self._errors.ConnectionClosed, OSError) as error:
            refused = getattr(getattr(error, "rcvd", None), "code", None) in (1008, 1009)
            self.close()
            if refused:
                raise ServerError(f"{self.address} closed the connection: {one_line(error)}") from error
            return None

    def _connected(self, deadline: float) -> None:
        """Connect, again and again until the deadline."""
        wait = FIRST_WAIT
        while True:
            try:
                return self._connect_once(deadline)
            except self._errors.InvalidStatus as error:
                said = (error.response.body or b"").decode("utf-8", "replace").strip()
                if error.response.status_code not in (502, 503, 504):
                    raise ServerError(f"{self.address} refused: {said or one_line(error)}") from error
                reason = said or one_line(error)
            except ssl.SSLCertVerificationError as error:
                raise ServerError(f"{self.address} has a certificate that is not trusted: {error.verify_message}") from error
            except (OSError, TimeoutError, self._errors.WebSocketException, EOFError) as error:
                reason = one_line(error)
            pause = wait * random.uniform(0.5, 1.0)
            if time.monotonic() + pause > deadline:
                raise ServerError(f"{self.address} can't be reached within {self._timeout:g} s: {reason}")
            time.sleep(pause)
            wait = min(2 * wait, LONGEST_WAIT)

    def _connect_once(self, deadline: float) -> None:
        left = max(0.05, deadline - time.monotonic())
        secure = {"ssl": self._tls} if self._tls is not None else {}
        connection = self._connect(
            self.address, compression=None, max_size=None, additional_headers=self._headers, open_timeout=left, **secure
        )
        greeting = connection.recv(left)
        if isinstance(greeting, str):
            connection.close()
            raise ServerError(f"{self.address} refused: {greeting.strip()}")
        self._metadata = unpackb(greeting)
        self._connection = connection
        self.connections += 1


def _address(address: str, port: int | None) -> str:
    address = address if address.startswith(("ws://", "wss://")) else f"ws://{address}"
    bare = address.partition("://")[2]
    if port is None:
        return address if ":" in bare or "/" in bare else f"{address}:8000"
    if "/" in bare:
        raise PolyactError(f"give the port inside the address, as in ws://host:{port}/run, not beside {address}")
    return f"{address}:{port}"
