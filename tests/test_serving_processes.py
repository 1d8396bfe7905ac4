"""`polyact serve` as a process: started, killed, started again, pointed at what is damaged, and watched for leaks."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from policy_examples import filled
from serving_examples import MLP, SPEC, STATE, ask, connection, counted, served

from polyact import saving
from polyact.app.arguments import parse
from polyact.app.commands.serve import _sources
from polyact.client import Client
from polyact.policies.deterministic import Deterministic
from polyact.serving.hosted import Options
from polyact.serving.limits import Limits
from polyact.serving.running import background
from polyact.serving.server import Server

ONES = np.ones(3, "f4")
GOOD = {STATE: ONES}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYACT_CACHE", str(tmp_path / "cache"))
    saving.save(MLP, tmp_path / "run")
    return tmp_path


@contextlib.contextmanager
def process(place, *options):
    """(process, address) of `polyact serve`."""
    command = [sys.executable, "-m", "polyact", "serve", str(place / "run"), "--max-batch", "1", "--json", *options]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        while not said.rstrip().endswith("}\n}") and (line := running.stdout.readline()):
            said += line
        yield running, json.loads(said)["address"]
    finally:
        running.kill()
        running.communicate()


def test_a_server_that_is_killed_is_found_again_when_it_is_back(place):
    with process(place, "--port", "0") as (running, address):
        port = address.rpartition(":")[2]
        client = Client(address, timeout=60)
        expected = client.infer(GOOD)["actions"]
        answers, going = [], threading.Event()

        def traffic():
            while not going.is_set():
                answers.append(client.infer(GOOD))

        thread = threading.Thread(target=traffic)
        thread.start()
        time.sleep(0.1)
        running.send_signal(signal.SIGKILL)
        running.wait()
    with process(place, "--port", port) as (running, _):
        deadline = time.monotonic() + 30
        while client.connections < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        going.set()
        thread.join()
        client.close()
        assert sum(answer.get("reconnected", False) for answer in answers) == 1
        for answer in answers:
            np.testing.assert_array_equal(answer["actions"], expected)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0


def test_a_damaged_run_is_refused_in_one_line(place):
    weights = place / "run" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    command = [sys.executable, "-m", "polyact", "serve", str(place / "run"), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "weights.safetensors" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_run_that_is_damaged_while_it_is_served_goes_on_as_it_was(place):
    command = parse(["serve", str(place / "run")])
    server = Server(_sources(command), Options(largest_batch=1), port=0, reload=0.01)
    with background(server) as address, connection(address) as socket:
        before = ask(socket, ONES)["actions"]
        description = place / "run" / saving.DESCRIPTION
        description.write_text(description.read_text().replace("sha256", "sha255"))
        deadline = time.monotonic() + 20
        while not counted(address, 'polyact_reloads_total{outcome="failed"') and time.monotonic() < deadline:
            time.sleep(0.01)
        np.testing.assert_array_equal(ask(socket, ONES)["actions"], before)
        shutil.rmtree(place / "run")
        time.sleep(0.1)
        np.testing.assert_array_equal(ask(socket, ONES)["actions"], before)


def test_a_hangup_serves_what_was_written_again_on_the_same_connections(place):
    other = filled(Deterministic.create, SPEC, seed=1)
    with process(place, "--port", "0") as (running, address), connection(address) as socket:
        before = ask(socket, ONES)["actions"]
        saving.save(other, place / "run", overwrite=True)
        np.testing.assert_array_equal(ask(socket, ONES)["actions"], before)
        running.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while (after := ask(socket, ONES)["actions"]).tolist() == before.tolist() and time.monotonic() < deadline:
            time.sleep(0.02)
        np.testing.assert_allclose(after[0], other.act(ONES, None, jax.random.key(0))[0], rtol=1e-5)


def test_memory_stays_flat_over_many_requests_and_connections():
    with served(MLP, Options(largest_batch=1), Limits(rate=1e6)) as address:

        def round_of_requests():
            for _ in range(5):
                with connection(address) as socket:
                    for _ in range(40):
                        ask(socket, ONES)
                    ask(socket, np.zeros(7))
                    socket.send(b"\xc1")

        round_of_requests()
        before = resident()
        for _ in range(3):
            round_of_requests()
        assert resident() - before < 4 << 20


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
