"""What faults and load do to `polyact serve`: memory over an hour's worth of requests, a crowd, clients that misbehave, kill -9.

The server is a process of its own. Meanwhile one client after another breaks the protocol in every way named below, and each round of good
clients checks every single answer. An hour is what one robot asks in an hour at 50 Hz.
"""

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from common import Json, Options, main, say, significant
from serving_sides import OBSERVATION, connection, flat_out, observation, policies, polyact_serve, resident
from websockets.exceptions import ConnectionClosed

from polyact.client import Client
from polyact.client.codec import packb, unpackb

HOUR, CROWD, ROUNDS, FLAT_MIB = 180_000, 200, 6, 4.0
STATE = "observation/state"
PARTS = ("hour", "crowd", "killed")


def measure(options: Options) -> Json:
    result: Json = {}
    with tempfile.TemporaryDirectory() as place:
        folder = policies(Path(place))["mlp"]
        parts = {"hour": hour, "crowd": crowd, "killed": killed}
        for name in options.only:
            say(name)
            result[name] = parts[name](folder, options)
    return result


def hour(folder: Path, options: Options) -> Json:
    """An hour's worth of requests in rounds, with every fault in every round; resident memory after each."""
    requests = options.pick(HOUR, 600)
    with polyact_serve(folder) as (port, process):
        expected = asyncio.run(_answers(port))
        sizes, wrong, faults = [], 0, 0
        for number in range(ROUNDS):
            say(f"round {number + 1} of {ROUNDS}")
            found = asyncio.run(_round(port, requests // ROUNDS, expected))
            wrong, faults = wrong + found[0], faults + found[1]
            sizes.append(resident(process.pid) / 2**20)
    growth = significant(sizes[-1] - sizes[0], 3)
    return {
        "requests": requests,
        "faults": faults,
        "kinds of faults": len(FAULTS),
        "wrong answers": {"value": wrong, "bar": "<= 0", "met": wrong == 0},
        "resident MiB after each round": [significant(size, 5) for size in sizes],
        "growth after the second round, MiB": significant(sizes[-1] - sizes[1], 3),
        "growth after the first round, MiB": {"value": growth, "bar": f"<= {FLAT_MIB:g}", "met": bool(growth <= FLAT_MIB)},
    }


def crowd(folder: Path, options: Options) -> Json:
    """So many clients at once, all asking again as soon as they are answered."""
    seconds = options.pick(5.0, 0.5)
    with polyact_serve(folder) as (port, process):
        rate = asyncio.run(flat_out(port, CROWD, seconds))
        alive = process.poll() is None
    return {"clients": CROWD, "requests per second": significant(rate), "server alive": {"value": alive, "met": alive}}


def killed(folder: Path, options: Options) -> Json:
    """kill -9 while a client asks, and a new server at the same port: how long the client has no answer, and whether one is wrong."""
    frame = {STATE: np.zeros(OBSERVATION, np.float32)}
    with polyact_serve(folder) as (port, process):
        client = Client("127.0.0.1", port, timeout=120.0)
        expected = client.infer(frame)["actions"]
        times, wrong, over = [], [], threading.Event()

        def ask() -> None:
            while not over.is_set():
                wrong.append(not np.array_equal(client.infer(frame)["actions"], expected))
                times.append(time.perf_counter())

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.5)
        process.kill()
        process.wait()
    with polyact_serve(folder, port=port):
        back = time.perf_counter()
        while client.connections < 2:
            time.sleep(0.01)
        time.sleep(0.2)
        over.set()
        thread.join()
    gap, again = max((later - sooner, later) for sooner, later in pairwise(times))
    return {
        "answers": len(times),
        "wrong answers": {"value": sum(wrong), "bar": "<= 0", "met": not sum(wrong)},
        "seconds without an answer": significant(gap),
        "of those after the new server was ready": significant(max(0.0, again - back)),
        "reconnections": client.connections - 1,
    }


# Faults: each is done over a connection of its own, and must be answered by a line, a close code, or nothing at all.


def _array(**changes: Any) -> bytes:
    array = {b"__ndarray__": True, b"data": b"\0" * 4 * OBSERVATION, b"dtype": "<f4", b"shape": [OBSERVATION]}
    return packb({STATE: array | {name.encode(): value for name, value in changes.items()}})


def _state(value: Any, **more: Any) -> bytes:
    return packb({STATE: value} | more)


FAULTS: dict[str, Callable[[], bytes]] = {
    "no msgpack": lambda: b"\xc1 nothing",
    "truncated": lambda: observation(0)[:-5],
    "deep nesting": lambda: b"\x91" * 5000 + b"\x01",
    "a list of a billion": lambda: b"\xdd\x3f\xff\xff\xff",
    "object dtype": lambda: _array(dtype="O8"),
    "wrong dtype": lambda: _array(dtype="<f8"),
    "negative shape": lambda: _array(shape=[-OBSERVATION]),
    "huge shape": lambda: _array(shape=[2**62, 2**62]),
    "wrong shape": lambda: _state(np.zeros(OBSERVATION + 1, np.float32)),
    "not a number": lambda: _state(np.full(OBSERVATION, np.nan, np.float32)),
    "text for numbers": lambda: _state("left"),
    "unknown name": lambda: _state(np.zeros(OBSERVATION, np.float32), further=1),
    "oversized": lambda: b"\0" * (1 << 20),
}


async def _answers(port: int) -> list[np.ndarray]:
    """What the server says to a few observations: the same for everybody at any time, up to what the size of a batch changes."""
    return [(await _ask(port, [observation(number)]))[0] for number in range(4)]


async def _ask(port: int, frames: list[bytes]) -> list[np.ndarray]:
    async with connection(port) as socket:
        found = []
        for frame in frames:
            await socket.send(frame)
            found.append(unpackb(await socket.recv(decode=False))["actions"])
        return found


async def _round(port: int, requests: int, expected: list[np.ndarray]) -> tuple[int, int]:
    """(wrong answers, faults) while good clients ask and others misbehave."""
    clients, each = 8, requests // 8
    order = [number % 4 for number in range(each)]
    good = [asyncio.create_task(_ask(port, [observation(number) for number in order])) for _ in range(clients)]
    faults = 0
    while not all(task.done() for task in good):
        for frame in FAULTS.values():
            await _misbehave(port, frame())
        await _disconnect(port)
        await _disappear(port)
        faults += len(FAULTS) + 2
    answers = [answer for task in good for answer in zip(await task, order, strict=True)]
    return sum(not np.allclose(found, expected[number], atol=1e-5) for found, number in answers), faults


async def _misbehave(port: int, frame: bytes) -> None:
    async with connection(port) as socket:
        with contextlib.suppress(ConnectionClosed):
            await socket.send(frame)
            said = await socket.recv()
            if not isinstance(said, str) or "Traceback" in said:
                raise RuntimeError(f"a fault was answered by {said[:80]!r}")


async def _disconnect(port: int) -> None:
    """Gone while the policy computes."""
    async with connection(port) as socket:
        await socket.send(observation(0))
        socket.transport.abort()


async def _disappear(port: int) -> None:
    """Half a frame, then gone."""
    async with connection(port) as socket:
        socket.transport.write(b"\x82\xfe\x01\x00\0\0\0\0half")
        socket.transport.abort()


if __name__ == "__main__":
    main("serving_faults", __doc__ or "", measure, PARTS, times_matter=False)
