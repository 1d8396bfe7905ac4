"""The client: what it sends, what it makes of answers, and how it comes back."""

import ssl
import subprocess
import threading
import time

import numpy as np
import pytest
from serving_examples import MLP, QUICK, STATE, Sum, offer, served, wire_pack
from websockets.sync.server import serve

from polyact.client import Client, ServerError
from polyact.errors import PolyactError
from polyact.serving.limits import tls
from polyact.serving.running import background
from polyact.serving.server import Server

ONES = {STATE: np.ones(3, np.float32)}


def test_a_conversation():
    with served(Sum()) as address, Client(address) as client:
        assert client.metadata["run"] == "run"
        assert client.infer(ONES)["actions"][0, 0] == 1
        assert client.infer(ONES, timestep=9)["timestep"] == 9
        client.reset()
        assert client.infer(ONES)["actions"][0, 0] == 1
        client.reset(seed=4)
        assert client.infer(ONES)["actions"][0, 0] == 1
        with pytest.raises(ServerError, match="is missing"):
            client.infer({})
        assert client.infer(ONES)["actions"][0, 0] == 2


def test_it_comes_back_with_a_new_episode_when_the_server_does():
    with served(Sum()) as address:
        client = Client(address, timeout=30)
        assert client.infer(ONES)["actions"][0, 0] == 1
    port = int(address.rpartition(":")[2])
    found = []
    thread = threading.Thread(target=lambda: found.append(client.infer(ONES)))
    thread.start()
    with background(Server({"run": offer(Sum())}, QUICK, port=port)):
        thread.join(20)
        assert (found[0]["actions"][0, 0], found[0]["reconnected"]) == (1, True)
        assert "reconnected" not in client.infer(ONES)
        client.close()


def test_a_server_that_is_not_there_is_an_error_after_the_timeout():
    began = time.monotonic()
    with pytest.raises(ServerError, match=r"ws://127.0.0.1:9 can't be reached within 0.3 s"):
        Client("127.0.0.1", 9, timeout=0.3)
    assert time.monotonic() - began < 3


def test_refusals_are_errors_at_once():
    with served(Sum(), key="a-long-enough-key") as address:
        began = time.monotonic()
        for key in (None, "another-long-key"):
            with pytest.raises(ServerError, match="the API key is missing or wrong"):
                Client(address, api_key=key)
        with pytest.raises(ServerError, match="did you mean 'run'"):
            Client(address + "/rum", api_key="a-long-enough-key")
        assert time.monotonic() - began < 5
        Client(address, api_key="a-long-enough-key").close()


class Plain:
    """A server as openpi writes them: metadata of its own, no optional words, tracebacks as texts."""

    def __init__(self):
        self.requests = []

    def __call__(self, socket):
        socket.send(wire_pack({"policy": "pi0"}))
        for frame in socket:
            self.requests.append(frame)
            if len(self.requests) == 2:
                socket.send("Traceback (most recent call last):\n  File 'x'\nKeyError: 'observation/image'\n")
                socket.close(1011, "Internal server error.")
                return
            socket.send(wire_pack({"actions": np.zeros((10, 7)), "policy_timing": {"infer_ms": 1.0}}))


def test_openpis_servers_get_what_they_know_and_nothing_else():
    handler = Plain()
    with serve(handler, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Client("127.0.0.1", server.socket.getsockname()[1]) as client:
            assert client.metadata == {"policy": "pi0"}
            client.reset()
            assert client.infer(ONES, timestep=3)["actions"].shape == (10, 7)
            assert handler.requests[0] == wire_pack(ONES)
            with pytest.raises(ServerError, match=r"^KeyError: 'observation/image'$"):
                client.infer(ONES)
            assert client.infer(ONES)["reconnected"]
        server.shutdown()


def test_a_server_that_does_not_answer_in_time_is_an_error():
    def silent(socket):
        socket.send(wire_pack({}))
        socket.recv()
        time.sleep(0.5)

    with serve(silent, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        with Client("127.0.0.1", port, timeout=0.2) as client, pytest.raises(ServerError, match=r"no answer within 0.2 s"):
            client.infer(ONES)
        server.shutdown()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    subprocess.run([*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], cwd=folder, check=True, capture_output=True)
    return folder


def test_over_tls(certificate):
    context = tls(certificate / "cert.pem", certificate / "key.pem")
    with served(MLP, tls=context) as address:
        assert address.startswith("wss://")
        trusted = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
        with Client(address, tls=trusted) as client:
            assert client.infer(ONES)["actions"].shape == (1, 2)
        with pytest.raises(ServerError, match="not trusted"):
            Client(address)


def test_tls_files_that_are_none(certificate, tmp_path):
    assert tls(None, None) is None
    with pytest.raises(PolyactError, match="needs its certificate"):
        tls(None, certificate / "key.pem")
    with pytest.raises(PolyactError, match="there is no TLS file"):
        tls(tmp_path / "nothing.pem", None)
    (tmp_path / "text.pem").write_text("text")
    with pytest.raises(PolyactError, match="no TLS certificate"):
        tls(tmp_path / "text.pem", None)


def test_addresses():
    for options, said in [(("ws://h:1/run", 8), "inside the address"), (("h", 8), "can't be reached")]:
        with pytest.raises(PolyactError, match=said):
            Client(*options, timeout=0.05)
    with pytest.raises(PolyactError, match="timeout must be positive"):
        Client(timeout=0.0)
