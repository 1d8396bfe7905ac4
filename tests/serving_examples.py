"""Policies, servers and raw connections for the serving tests: small networks, two batch sizes, ports that the system chooses."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import websockets.sync.client
from policy_examples import filled

from polyact.policies.base import Policy
from polyact.policies.chunk import ChunkRegression
from polyact.policies.deterministic import Deterministic
from polyact.policies.generative.flow import Flow
from polyact.policies.recurrent import Recurrent
from polyact.policies.spec import Spec
from polyact.serving.hosted import Offer, Options, Source
from polyact.serving.limits import Limits
from polyact.serving.running import background
from polyact.serving.server import Server
from polyact.spaces import Box

SEEN, DONE = Box(-9, 9, (3,)), Box(-2, 2, (2,))
SPEC = Spec.of(SEEN, DONE, 10)
MLP = filled(Deterministic.create, SPEC)
CHUNKS = filled(ChunkRegression.create, SPEC, horizon=4, history=2)
GRU = filled(Recurrent.create, SPEC)
FLOW = filled(Flow.create, SPEC, horizon=6, steps=3, denoiser="mlp")
QUICK = Options(largest_batch=2)
STATE = "observation/state"


class Sum(Policy):
    """Adds up what it has seen, and forgets nothing."""

    def start(self, key):
        return jnp.zeros(2)

    def act(self, observation, memory, key):
        memory = memory + observation[:2]
        return memory, memory


class Draws(Policy):
    """A memory and actions that are random numbers: what shows whose randomness it is."""

    def start(self, key):
        return jax.random.normal(key, (2,))

    def act(self, observation, memory, key):
        return memory + jax.random.normal(key, (2,)), memory + 1


class Waits(Policy):
    """Computes on the host with `call(observation [B, 3]) -> [B, 2]`, which may take its time or fail."""

    call: Any = eqx.field(static=True)

    def start(self, key):
        return jnp.zeros(())

    def act(self, observation, memory, key):
        shape = jax.ShapeDtypeStruct((2,), jnp.float32)
        return jax.pure_callback(self.call, shape, observation, vmap_method="expand_dims"), memory + 1


def offer(policy: Policy, seen: Any = SEEN, done: Any = DONE) -> Source:
    return Source(lambda: Offer(policy, seen, done))


@contextmanager
def served(runs: Any, options: Options = QUICK, limits: Limits | None = None, **more: Any) -> Iterator[str]:
    """The address of a server of one policy, or of several by name."""
    sources = {name: offer(policy) for name, policy in runs.items()} if isinstance(runs, dict) else {"run": offer(runs)}
    with background(Server(sources, options, limits, port=0, **more)) as address:
        yield address


def wire_pack(value: Any) -> bytes:
    """A message as openpi's client packs it, written from the protocol's description alone."""

    def array(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
        if isinstance(value, np.generic):
            return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
        return value

    return msgpack.packb(value, default=array)


def wire_unpack(frame: bytes) -> Any:
    """A message as openpi's client unpacks it."""

    def array(found: Any) -> Any:
        if b"__ndarray__" in found:
            return np.ndarray(buffer=found[b"data"], dtype=np.dtype(found[b"dtype"]), shape=found[b"shape"])
        if b"__npgeneric__" in found:
            return np.dtype(found[b"dtype"]).type(found[b"data"])
        return found

    return msgpack.unpackb(frame, object_hook=array)


@contextmanager
def connection(address: str, **options: Any) -> Iterator[Any]:
    """A websocket as openpi's client opens it, after the metadata frame."""
    with websockets.sync.client.connect(address, compression=None, max_size=None, **options) as socket:
        assert isinstance(socket.recv(), bytes)
        yield socket


def ask(socket: Any, state: Any, **more: Any) -> Any:
    """The reply to one observation: a map, or the text of an error."""
    socket.send(wire_pack({STATE: np.asarray(state, np.float32)} | more))
    reply = socket.recv(20)
    return reply if isinstance(reply, str) else wire_unpack(reply)


def get(address, page, **headers):
    """(status, text) of a page."""
    request = urllib.request.Request(address.replace("ws", "http", 1) + page, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def counted(address, name):
    """The value of a metric."""
    return sum(float(line.rpartition(" ")[2]) for line in get(address, "/metrics")[1].splitlines() if line.startswith(name))
