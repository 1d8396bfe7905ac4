"""What breaks on the way stays with whoever broke it: around every fault here a client is served as if nothing had been."""

import contextlib
import socket as sockets
import time
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
import websockets.exceptions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_examples import STATE, Sum, ask, connection, counted, offer, served, wire_pack, wire_unpack

from polyact.client import Client, ServerError
from polyact.policies.base import Policy
from polyact.serving.hosted import Options
from polyact.serving.limits import Limits
from polyact.serving.running import background
from polyact.serving.server import Server
from polyact.spaces import Box

ONES = np.ones(3, "f4")
GOOD = {STATE: ONES}
WIDTH = 20_000


@pytest.fixture(scope="module")
def address():
    with served(Sum(), Options(largest_batch=4), Limits(message_bytes=1 << 20)) as at:
        yield at


@pytest.fixture(autouse=True)
def a_good_client_is_served_throughout(address):
    """One conversation around every fault: its memory and answers are what they would be without it."""
    with connection(address) as socket:
        assert ask(socket, ONES)["actions"][0, 0] == 1
        yield
        assert ask(socket, ONES)["actions"][0, 0] == 2


def answer_to(address, frame):
    """What a connection of its own is told; the close code when there is no frame."""
    with connection(address) as socket:
        socket.send(frame)
        try:
            return socket.recv(10)
        except websockets.exceptions.ConnectionClosed as closed:
            return closed.rcvd.code


def array(dtype="<f4", shape=(3,), data=b"\0" * 12):
    return msgpack.packb({STATE: {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": list(shape)}})


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (wire_pack(GOOD)[:-3], "no valid msgpack"),
        (b"\xc1\xff\x00", "no valid msgpack"),
        (b"\x91" * 3000 + b"\x01", "nested too deeply"),
        (array(dtype="O8"), "a dtype is a text"),
        (array(dtype="<f8"), "has 24 bytes, got 12"),
        (array(shape=(-3,)), "whole numbers >= 0"),
        (array(shape=(2**62, 2**62)), "got 12"),
        (array(shape=(0,), data=b""), "has shape [0], expected [3]"),
        (wire_pack({STATE: np.full(3, np.nan, "f4")}), "is not finite"),
        (wire_pack({STATE: np.zeros(3, "<U1")}), "has dtype str"),
        (wire_pack({STATE: {"nested": [1, {"deep": 2}]}}), "got dict"),
        (wire_pack({}), "is missing"),
        (wire_pack(GOOD | {"__class__": "os.system"}), "unknown name '__class__'"),
        (b"\0" * (1 << 21), 1009),
    ],
)
def test_a_malformed_message_gets_its_own_answer(address, frame, said):
    found = answer_to(address, frame)
    assert found == said or said in found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=64), st.integers(0, 200))
def test_fuzzed_frames_are_answered_by_actions_or_a_line(address, noise, place):
    frame = bytearray(wire_pack(GOOD | {"timestep": 3}))
    place %= len(frame)
    frame[place : place + len(noise)] = noise
    found = answer_to(address, bytes(frame))
    assert isinstance(wire_unpack(found) if isinstance(found, bytes) else found, dict | str)
    assert not isinstance(found, str) or "Traceback" not in found


def test_a_client_that_goes_away_in_the_middle_of_a_message(address):
    for amount in (0, 3, 40):
        raw = handshaken(address)
        raw.sendall(masked_header(200) + b"\0" * amount)
        raw.close()


def test_a_client_that_writes_too_slowly_is_closed():
    with served(Sum(), limits=Limits(idle=0.3)) as address:
        raw = handshaken(address)
        raw.sendall(masked_header(200) + b"\0" * 10)
        received = b""
        raw.settimeout(10)
        while b"no whole message for 0.3 s" not in received:
            received += raw.recv(4096)
        raw.close()


class Wide(Policy):
    """Says so much that a few answers fill the buffers on the way."""

    def start(self, key):
        return None

    def act(self, observation, memory, key):
        return jnp.zeros(WIDTH), memory


def test_a_client_that_never_reads_is_cut_off_and_others_are_served():
    source = offer(Wide(), done=Box(-1, 1, (WIDTH,)))
    server = Server({"wide": source}, Options(largest_batch=1), Limits(rate=1e6, sending=0.3), port=0)
    with background(server) as address, connection(address) as good:
        raw = handshaken(address, small_buffer=True)
        frame = wire_pack(GOOD)
        with contextlib.suppress(OSError):
            raw.sendall((masked_header(len(frame)) + frame) * 200)
        deadline = time.monotonic() + 20
        while not counted(address, 'polyact_errors_total{kind="not reading"}') and time.monotonic() < deadline:
            assert ask(good, ONES)["actions"].shape == (1, WIDTH)
        assert counted(address, 'polyact_errors_total{kind="not reading"}') == 1
        raw.close()


def test_something_that_does_not_speak_http(address):
    for noise in (b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n" + b"A: " + b"a" * 100_000, b"\0" * 64):
        raw = plain(address)
        raw.settimeout(5)
        with contextlib.suppress(OSError):
            raw.sendall(noise)
            raw.shutdown(sockets.SHUT_WR)
            while raw.recv(4096):
                pass
        raw.close()


@pytest.mark.parametrize("clients", [60])
def test_many_clients_at_once_all_get_their_own_answers(address, clients):
    def converse(number):
        with connection(address) as socket:
            return [ask(socket, np.full(3, number))["actions"][0, 0] for _ in range(3)]

    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(converse, range(clients)))
    assert found == [[number, 2 * number, 3 * number] for number in range(clients)]


def test_what_a_server_refuses_a_client_raises(address):
    with Client(address) as client, pytest.raises(ServerError, match=r"has shape \[4\], expected \[3\]"):
        client.infer({STATE: np.zeros(4)})


def plain(address):
    host, _, port = address.removeprefix("ws://").partition(":")
    return sockets.create_connection((host, int(port)))


def handshaken(address, *, small_buffer=False):
    """A raw socket after the websocket handshake; nothing behind it reads."""
    raw = plain(address)
    if small_buffer:
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 2048)
    raw.sendall(
        b"GET / HTTP/1.1\r\nHost: robot\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    received = b""
    while b"\r\n\r\n" not in received:
        received += raw.recv(1024)
    assert b"101 Switching" in received
    return raw


def masked_header(length):
    """Of a binary frame whose mask is zero, so that its bytes follow as they are."""
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return b"\x82" + size + b"\0\0\0\0"
