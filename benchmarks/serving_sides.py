"""What the serving benchmarks share: policies, servers as processes of their own, and clients that ask at a rate or flat out."""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
from common import HERE
from websockets.asyncio.client import ClientConnection, connect

from polyact.client.codec import packb, unpackb

OBSERVATION, ACTION = 17, 6


def policies(place: Path) -> dict[str, Path]:
    """An MLP of two layers of 256 and a flow policy of ten steps for chunks of 16, with fresh weights, saved."""
    import jax

    from polyact import saving
    from polyact.nets.mlp import Network
    from polyact.policies.deterministic import Deterministic
    from polyact.policies.generative.flow import Flow
    from polyact.policies.spec import Spec
    from polyact.spaces import Box

    spec = Spec.of(Box(-10, 10, (OBSERVATION,)), Box(-1, 1, (ACTION,)), 1)
    network, key = Network(width=256, depth=2), jax.random.key(0)
    made = {"mlp": Deterministic.create(spec, network, key), "flow": Flow.create(spec, network, key, horizon=16, steps=10)}
    return {name: saving.save(policy, place / name) for name, policy in made.items()}


@contextlib.contextmanager
def polyact_serve(folder: Path, *options: str, port: int = 0) -> Iterator[tuple[int, subprocess.Popen]]:
    """The port and the process of a `polyact serve`, ready."""
    command = [sys.executable, "-m", "polyact", "serve", str(folder), "--port", str(port), "--rate", "1000000", "--json", *options]
    with _process(command) as running:
        said = ""
        while not said.endswith("}\n}\n"):
            said += _line(running)
        yield int(json.loads(said)["address"].rpartition(":")[2]), running


@contextlib.contextmanager
def plain_server(folder: Path, how: str) -> Iterator[int]:
    """The port of a `plain_server.py`, ready."""
    with _process([sys.executable, str(HERE / "plain_server.py"), str(folder), how]) as running:
        yield int(_line(running))


async def at_rate(port: int, clients: int, hz: float, seconds: float) -> list[float]:
    """Latencies in ms of clients that ask every 1 / hz seconds, each from a moment of its own on."""
    found = await asyncio.gather(*(_steady(port, hz, seconds, random.Random(number).random() / hz) for number in range(clients)))
    return [latency for own in found for latency in own]


async def flat_out(port: int, clients: int, seconds: float) -> float:
    """Requests per second of clients that ask again as soon as they are answered."""
    ends = time.perf_counter() + seconds
    return sum(await asyncio.gather(*(_greedy(port, ends) for _ in range(clients)))) / seconds


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncIterator[ClientConnection]:
    """A client after the metadata frame."""
    async with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None, ping_interval=None) as socket:
        await socket.recv()
        yield socket


def observation(seed: int) -> bytes:
    """A request of random numbers."""
    return packb({"observation/state": np.random.default_rng(seed).normal(size=OBSERVATION).astype(np.float32)})


def resident(process: int) -> int:
    """Bytes of a process that are in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _steady(port: int, hz: float, seconds: float, offset: float) -> list[float]:
    async with connection(port) as socket:
        frame, found = observation(0), []
        began = time.perf_counter() + offset
        for number in range(round(hz * seconds)):
            await asyncio.sleep(max(0.0, began + number / hz - time.perf_counter()))
            sent = time.perf_counter()
            await socket.send(frame)
            unpackb(await socket.recv(decode=False))
            found.append(1000 * (time.perf_counter() - sent))
        return found


async def _greedy(port: int, ends: float) -> int:
    async with connection(port) as socket:
        frame, number = observation(0), 0
        while time.perf_counter() < ends:
            await socket.send(frame)
            await socket.recv(decode=False)
            number += 1
        return number


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen]:
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def _line(running: subprocess.Popen) -> str:
    assert running.stdout is not None
    if line := running.stdout.readline():
        return line
    raise RuntimeError(f"a server ended before it was ready: {' '.join(running.args)}")
