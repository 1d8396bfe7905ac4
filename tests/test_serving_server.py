"""The server from outside: openpi's protocol rebuilt from its description, and what operators and attackers meet."""

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import jax
import numpy as np
import pytest
import websockets.exceptions
import websockets.sync.client
from serving_examples import (
    CHUNKS,
    DONE,
    GRU,
    MLP,
    QUICK,
    SEEN,
    STATE,
    Draws,
    Sum,
    Waits,
    ask,
    connection,
    counted,
    get,
    offer,
    served,
    wire_unpack,
)

from polyact.errors import PolyactError
from polyact.serving.hosted import Offer, Options, Source
from polyact.serving.limits import Limits, authorised, check_binding, read_key
from polyact.serving.logs import LOGGER, Lines
from polyact.serving.running import background
from polyact.serving.server import Server
from polyact.spaces import Box, Dict

ZEROS, ONES = np.zeros(3, "f4"), np.ones(3, "f4")


@pytest.fixture(scope="module")
def address():
    with served({"sum": Sum(), "mlp": MLP, "gru": GRU, "chunks": CHUNKS, "draws": Draws()}) as at:
        yield at


def test_the_first_frame_says_what_to_send_and_what_comes_back(address):
    with websockets.sync.client.connect(address + "/chunks", compression=None) as socket:
        found = wire_unpack(socket.recv())
    assert found["observation"] == {STATE: {"shape": [3], "dtype": "float32"}}
    assert (found["run"], found["horizon"], found["policy"]) == ("chunks", 4, "ChunkRegression")
    assert found["runs"] == ["sum", "mlp", "gru", "chunks", "draws"]
    assert {"timestep", "timestamp", "inference_delay", "prev_chunk", "reset"} <= set(found["accepts"])


def test_an_observation_is_answered_by_actions_and_timings(address):
    with connection(address + "/mlp") as socket:
        first = ask(socket, ONES, prompt="pick up the cup")
        second = ask(socket, ONES, timestep=7, timestamp=1.5)
    np.testing.assert_allclose(first["actions"], MLP.act(ONES, None, jax.random.key(0))[0][None], atol=1e-6)
    assert first["server_timing"].keys() == {"infer_ms"}
    assert second["server_timing"].keys() == {"infer_ms", "prev_total_ms"}
    assert first["policy_timing"]["infer_ms"] <= first["server_timing"]["infer_ms"]
    assert (second["timestep"], second["timestamp"], second["late"]) == (7, 1.5, False)


def test_every_connection_has_its_own_memory_and_reset_starts_an_episode(address):
    with connection(address) as one, connection(address) as other:
        assert [ask(one, ONES)["actions"][0, 0] for _ in range(3)] == [1, 2, 3]
        assert ask(other, ONES)["actions"][0, 0] == 1
        assert ask(one, ONES, reset=True)["actions"][0, 0] == 1
        assert ask(other, ONES)["actions"][0, 0] == 2


def test_a_seed_makes_an_episode_again_and_connections_differ(address):
    with connection(address + "/draws") as one, connection(address + "/draws") as other:
        assert not np.array_equal(ask(one, ZEROS)["actions"], ask(other, ZEROS)["actions"])
        first = [ask(one, ZEROS, reset=True, seed=5)["actions"], ask(one, ZEROS)["actions"]]
        again = [ask(other, ZEROS, reset=True, seed=5)["actions"], ask(other, ZEROS)["actions"]]
        following = ask(one, ZEROS, reset=True)["actions"]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], following)


def test_a_wrong_request_is_answered_by_a_line_and_the_next_one_by_actions(address):
    with connection(address) as socket:
        ask(socket, ONES)
        said = ask(socket, np.zeros(4))
        assert said == "'observation/state' has shape [4], expected [3]"
        assert "is not finite" in ask(socket, [0, np.nan, 0])
        assert ask(socket, ONES, timestep=5)["actions"][0, 0] == 2
        assert ask(socket, ONES, timestep=3) == "'timestep' is 3, but 5 was before; it rises until 'reset'"
        assert ask(socket, ONES)["actions"][0, 0] == 3


def test_a_frame_that_is_no_message_is_answered_and_ends_the_connection(address):
    for frame in (b"\xc1", b"", "text"):
        with connection(address) as socket:
            socket.send(frame)
            said = socket.recv(10)
            assert isinstance(said, str)
            assert "Traceback" not in said
            with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
                socket.recv(10)
            assert closed.value.rcvd.code == 1011


def test_pages_for_operators(address):
    assert get(address, "/healthz") == (200, "OK\n")
    assert get(address, "/readyz") == (200, "ready\n")
    status, said = get(address, "/sun")
    assert status == 404
    assert "did you mean 'sum'" in said
    text = get(address, "/metrics")[1]
    for name in ("request_seconds_bucket", "batch_size_bucket", "late_share", "errors_total", "connections", "inference_seconds"):
        assert f"polyact_{name}" in text


def test_a_browser_page_is_refused(address):
    with pytest.raises(websockets.exceptions.InvalidStatus, match="403"):
        websockets.sync.client.connect(address, origin="https://example.com")


def test_concurrent_clients_share_compiled_calls_and_nothing_is_compiled(monkeypatch):
    compiled, clients = [], 8

    def converse(socket):
        return [ask(socket, np.full(3, 2.0))["actions"][0, 0] for _ in range(10)]

    options = Options(largest_batch=8, window=0.2)
    with served(Sum(), options) as address:
        jax.monitoring.register_event_duration_secs_listener(
            lambda name, *_, **__: compiled.append(name) if name.endswith("backend_compile_duration") else None
        )
        try:
            with ExitStack() as stack, ThreadPoolExecutor(clients) as pool:
                sockets = [stack.enter_context(connection(address)) for _ in range(clients)]
                for found in pool.map(converse, sockets):
                    assert found == [2.0 * (tick + 1) for tick in range(10)]
        finally:
            jax.monitoring.clear_event_listeners()
        assert compiled == []
        assert counted(address, "polyact_batch_size_sum") == 10 * clients
        assert counted(address, "polyact_batch_size_count") < 10 * clients / 2


def test_the_event_loop_answers_while_a_policy_computes():
    go = threading.Event()

    def blocked(seen):
        go.wait(20)
        return np.zeros((*seen.shape[:-1], 2), np.float32)

    go.set()
    with served(Waits(blocked)) as address, connection(address) as socket, ThreadPoolExecutor(1) as pool:
        go.clear()
        asked = pool.submit(ask, socket, ZEROS)
        time.sleep(0.02)
        assert get(address, "/healthz") == (200, "OK\n")
        assert not asked.done()
        go.set()
        assert asked.result()["late"] is False


@pytest.mark.parametrize(("fallback", "held"), [("hold", 1.0), ("zero", 0.0)])
def test_a_late_answer_is_replaced_by_the_fallback_and_marked(fallback, held):
    slow = threading.Event()

    def sometimes(seen):
        if slow.is_set():
            time.sleep(1.5)
        return np.ones((*seen.shape[:-1], 2), np.float32)

    with (
        served(Waits(sometimes), Options(control_hz=2, fallback=fallback, largest_batch=1)) as address,
        connection(address) as socket,
    ):
        assert ask(socket, ZEROS)["late"] is False
        slow.set()
        began = time.perf_counter()
        reply = ask(socket, ZEROS)
        assert 0.49 < time.perf_counter() - began < 1.45
        assert (reply["late"], reply["fallback"], reply["staleness"]) == (True, fallback, 1)
        assert (reply["actions"] == held).all()
        slow.clear()
        time.sleep(1.5)
        assert ask(socket, ZEROS)["late"] is False
        assert counted(address, "polyact_late_share") == pytest.approx(1 / 3)


def test_overload_is_answered():
    go = threading.Event()
    go.set()

    def blocked(seen):
        go.wait(20)
        return np.zeros((*seen.shape[:-1], 2), np.float32)

    with (
        served(Waits(blocked), Options(largest_batch=1), Limits(queue=1)) as address,
        connection(address) as first,
        connection(address) as second,
        connection(address) as third,
        ThreadPoolExecutor(2) as pool,
    ):
        go.clear()
        running = pool.submit(ask, first, ZEROS)
        time.sleep(0.3)
        waiting = pool.submit(ask, second, ZEROS)
        time.sleep(0.3)
        assert "overloaded: 1 requests are waiting" in ask(third, ZEROS)
        go.set()
        assert running.result()["actions"].shape == waiting.result()["actions"].shape == (1, 2)


def test_a_policy_that_fails_or_gives_nan_says_so_and_goes_on():
    what = ["fine"]

    def act(seen):
        if what[0] == "raise":
            raise RuntimeError("a wire came loose")
        return np.full((*seen.shape[:-1], 2), np.nan if what[0] == "nan" else 1.0, np.float32)

    with served(Waits(act)) as address, connection(address) as socket:
        what[0] = "nan"
        assert ask(socket, ZEROS) == "the policy's action is not finite"
        what[0] = "raise"
        assert "the policy failed" in ask(socket, ZEROS)
        what[0] = "fine"
        assert (ask(socket, ZEROS)["actions"] == 1).all()
        assert counted(address, 'polyact_errors_total{kind="inference"}') == 2


def test_rate_connections_message_size_and_idle_time_are_limited():
    limits = Limits(connections=2, rate=20, message_bytes=4096, idle=0.3)
    with served(Sum(), limits=limits) as address, connection(address) as one, connection(address) as other:
        said = [ask(one, ONES) for _ in range(15)]
        assert next(text for text in said if isinstance(text, str)) == "too many requests: at most 20 per second on a connection"
        status, text = get(address, "/")
        assert (status, text) == (503, "the server is full: 2 connections are open\n")
        other.send(b"\0" * 5000)
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
            other.recv(10)
        assert closed.value.rcvd.code == 1009
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            one.recv(10)
        assert closed.value.rcvd.code == 1008
        assert closed.value.rcvd.reason == "no whole message for 0.3 s"


def test_without_the_key_nothing_is_served(tmp_path):
    key = "a-long-enough-key"
    with served(Sum(), key=key) as address:
        assert get(address, "/healthz")[0] == 200
        for wrong in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": f"Bearer {key}"}):
            assert get(address, "/metrics", **wrong) == (401, "the API key is missing or wrong\n")
            with pytest.raises(websockets.exceptions.InvalidStatus, match="401"):
                websockets.sync.client.connect(address, additional_headers=wrong)
        with connection(address, additional_headers={"Authorization": f"Api-Key {key}"}) as socket:
            assert ask(socket, ONES)["late"] is False


def test_keys_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("POLYACT_API_KEY", raising=False)
    assert read_key(None) is None
    monkeypatch.setenv("POLYACT_API_KEY", "from-the-environment")
    assert read_key(None) == "from-the-environment"
    (tmp_path / "key").write_text("from-the-file-itself\n")
    assert read_key(tmp_path / "key") == "from-the-file-itself"
    (tmp_path / "key").write_text("short")
    with pytest.raises(PolyactError, match="at least 16"):
        read_key(tmp_path / "key")


def test_other_machines_are_let_in_with_a_key_only():
    for host in ("0.0.0.0", "::", "192.168.0.3", "robot.local"):
        with pytest.raises(PolyactError, match="needs an API key"):
            Server({"sum": offer(Sum())}, host=host)
        check_binding(host, "a-long-enough-key")
    for host in ("127.0.0.1", "::1", "localhost"):
        check_binding(host, None)


def test_keys_are_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda one, other: compared.append((one, other)) or one == other)
    assert authorised("Api-Key secret", "secret")
    assert not authorised(None, "secret")
    assert compared == [(b"Api-Key secret", b"Api-Key secret"), (b"", b"Api-Key secret")]


def test_a_shutdown_answers_what_is_in_flight():
    def slow(seen):
        time.sleep(0.2)
        return np.ones((*seen.shape[:-1], 2), np.float32)

    with ThreadPoolExecutor(1) as pool:
        with served(Waits(slow), Options(largest_batch=1)) as address:
            busy = websockets.sync.client.connect(address, compression=None)
            idle = websockets.sync.client.connect(address, compression=None)
            assert isinstance(busy.recv(), bytes)
            assert isinstance(idle.recv(), bytes)
            asked = pool.submit(ask, busy, ZEROS)
            time.sleep(0.05)
        assert asked.result()["late"] is False
        for socket in (busy, idle):
            with pytest.raises(websockets.exceptions.ConnectionClosedOK) as closed:
                socket.recv(5)
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "the server is shutting down")
        with pytest.raises(OSError, match="refused"):
            websockets.sync.client.connect(address)


class Changing:
    """A run on disk that is written again."""

    def __init__(self, policy, seen=SEEN):
        self.policy, self.seen, self.version = policy, seen, 0

    def source(self):
        return Source(self.load, lambda: self.version)

    def load(self):
        if self.policy is None:
            raise PolyactError("the weights are damaged")
        return Offer(self.policy, self.seen, DONE)

    def becomes(self, policy, seen=SEEN):
        self.policy, self.seen, self.version = policy, seen, self.version + 1


def test_a_run_that_changes_is_served_anew_on_the_same_connections():
    run = Changing(MLP)
    server = Server({"run": run.source()}, QUICK, port=0, reload=0.01)

    def until(outcome, number):
        deadline = time.monotonic() + 20
        while counted(address, f'polyact_reloads_total{{outcome="{outcome}"') < number:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    with background(server) as address, connection(address) as socket:
        before = ask(socket, ONES)["actions"]
        run.becomes(jax.tree.map(lambda leaf: 0.5 * leaf if leaf.ndim == 2 else leaf, MLP))
        until("done", 1)
        after = ask(socket, ONES)["actions"]
        assert not np.allclose(before, after)
        run.becomes(None)
        until("failed", 1)
        run.becomes(MLP, Dict({"other": Box(-1, 1, (3,))}))
        until("failed", 2)
        np.testing.assert_array_equal(ask(socket, ONES)["actions"], after)


def test_memories_survive_a_reload_where_they_fit():
    run = Changing(Sum())
    server = Server({"run": run.source()}, QUICK, port=0, reload=0.01)
    with background(server) as address, connection(address) as socket:
        assert ask(socket, ONES)["actions"][0, 0] == 1
        for policy, expected in ((Sum(), 2), (GRU, None), (Sum(), 1)):
            run.becomes(policy)
            deadline = time.monotonic() + 20
            done = counted(address, 'polyact_reloads_total{outcome="done"')
            while counted(address, 'polyact_reloads_total{outcome="done"') == done and time.monotonic() < deadline:
                time.sleep(0.01)
            found = ask(socket, ONES)["actions"][0, 0]
            assert expected is None or found == expected


@pytest.fixture
def lines():
    """What the server logs meanwhile."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(json.loads(Lines().format(record)))
    LOGGER.addHandler(handler)
    before, LOGGER.level = LOGGER.level, logging.INFO
    yield found
    LOGGER.removeHandler(handler)
    LOGGER.level = before


def test_the_log_counts_the_requests_of_a_client_that_hangs_up(lines):
    with served(Sum()) as address, connection(address) as socket:
        for _ in range(3):
            ask(socket, ONES)
    assert [line["requests"] for line in lines if line["event"] == "disconnected"] == [3]


def test_logs_are_json_lines_without_what_clients_send(lines):
    key = {"Authorization": "Api-Key a-long-enough-key"}
    with served(Sum(), key="a-long-enough-key") as address, connection(address, additional_headers=key) as socket:
        ask(socket, ONES)
        socket.send(b"\xc1 private")
        socket.recv(5)
    by_event = {line["event"]: line for line in lines}
    assert by_event.keys() == {"serving", "connected", "refused", "disconnected", "stopping", "stopped"}
    assert by_event["disconnected"]["requests"] == 2
    assert all({"time", "level", "event"} <= line.keys() for line in lines)
    assert "private" not in json.dumps(lines)
    assert "a-long-enough-key" not in json.dumps(lines)
