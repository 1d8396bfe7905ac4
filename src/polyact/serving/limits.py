"""What a server allows: how much, how often, from whom."""

import hmac
import ipaddress
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from polyact.errors import PolyactError

KEY_VARIABLE = "POLYACT_API_KEY"
SHORTEST_KEY = 16


@dataclass(frozen=True)
class Limits:
    """connections: open at once over all runs. message_bytes: of one message; None: what the largest run's observation needs, with room to
    spare. rate: requests per second and connection. idle: seconds without a whole message after which a connection is closed. queue:
    requests per run that may wait. sending: seconds that a client may take to read an answer. grace: seconds that a shutdown waits for what
    is in flight.
    """

    connections: int = 256
    message_bytes: int | None = None
    rate: float = 1000.0
    idle: float = 600.0
    queue: int = 256
    sending: float = 10.0
    grace: float = 10.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if value is not None and not 0 < value < float("inf"):
                raise PolyactError(f"the limit '{name}' must be positive, got {value}")


class TokenBucket:
    """Allows `rate` requests per second on average, and a tenth of a second's worth (at least 10) at once."""

    def __init__(self, rate: float):
        self.rate, self.room = rate, max(10.0, rate / 10)
        self.tokens, self.updated = self.room, time.monotonic()

    def take(self) -> bool:
        """Whether one more request is allowed now."""
        now = time.monotonic()
        self.tokens = min(self.room, self.tokens + (now - self.updated) * self.rate)
        self.updated = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def read_key(file: Path | None) -> str | None:
    """The API key in a file, or else in the environment; None when there is none. Raises PolyactError for a short one."""
    source = f"{file}" if file else f"${KEY_VARIABLE}"
    key = (file.read_text("utf-8") if file else os.environ.get(KEY_VARIABLE, "")).strip()
    if not key and not file:
        return None
    if len(key) < SHORTEST_KEY or not key.isascii():
        raise PolyactError(f"the API key in {source} must have at least {SHORTEST_KEY} ASCII characters")
    return key


def check_binding(host: str, key: str | None) -> None:
    """Raise PolyactError when others than this machine could reach a server that asks for no key."""
    if key is None and not _loopback(host):
        raise PolyactError(
            f"serving at {host} lets other machines in and needs an API key: --api-key-file FILE or the variable {KEY_VARIABLE}"
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def authorised(header: str | None, key: str | None) -> bool:
    """Whether an Authorization header carries the key; compared in a time that does not depend on where they differ."""
    if key is None:
        return True
    return hmac.compare_digest((header or "").encode("utf-8", "replace"), f"Api-Key {key}".encode())


def tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """TLS from PEM files; None without a certificate. Raises PolyactError naming the file when they are no pair."""
    if certificate is None:
        if key is not None:
            raise PolyactError("a TLS key needs its certificate too (--tls-cert)")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except FileNotFoundError as error:
        missing = certificate if not certificate.exists() else key
        raise PolyactError(f"there is no TLS file {missing}") from error
    except ssl.SSLError as error:
        raise PolyactError(f"{certificate} and its key are no TLS certificate: {error.reason or error}") from error
    return context
