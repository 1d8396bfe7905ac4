"""Language backends: what is asked is counted, written down and repeatable; servers may fail; the key stays where it is."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.errors import DataError, PolyactError
from polyact.learning.refine import Proposer
from polyact.policies.language.backend import CallError, Message, Scripted
from polyact.policies.language.calls import Budget, CallLog, read_calls
from polyact.policies.language.endpoint import Endpoint, Patience
from polyact.policies.language.local import LocalModel, Words, choose
from polyact.policies.language.recorded import Recorded
from polyact.policies.language.table import TableLM

KEY, SECRET = jax.random.key(3), "sk-very-secret"


def chat(*texts, prompt=5, each=2):
    choices = [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for text in texts]
    return {"choices": choices, "usage": {"prompt_tokens": prompt, "completion_tokens": each * len(texts)}}


class Server:
    """Plays a list of replies: (status, headers, JSON or bytes), `slow` (s) or None for a connection that is dropped."""

    def __init__(self, *replies):
        self.replies, self.seen, self.headers = list(replies), [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                outer.headers.append(dict(self.headers))
                outer.seen.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                reply = outer.replies.pop(0)
                if reply is None:
                    return self.connection.close()
                if isinstance(reply, float):
                    time.sleep(reply)
                    reply = (200, {}, chat("late"))
                status, headers, body = reply
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(raw))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


def endpoint(server, slept=None, **options):
    options = {"patience": Patience(attempts=3, timeout=5.0)} | options
    return Endpoint(server.url, "some-model", sleep=(slept if slept is not None else []).append, **options)


def ok(*texts):
    return 200, {}, chat(*texts)


def test_a_request_is_a_chat_completion_and_its_answers_come_back():
    with Server(ok("ten", "twelve fish")) as server:
        model = endpoint(server)
        assert isinstance(model, Proposer)
        found = model.propose(
            [Message("system", "You fish."), Message("user", "How much?")], KEY, n=2, temperature=0.5, stop=["\n"]
        )
    path, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "system", "content": "You fish."}, {"role": "user", "content": "How much?"}]
    assert (body["model"], body["n"], body["temperature"], body["stop"], body["seed"]) == ("some-model", 2, 0.5, ["\n"], 3)
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert [one.text for one in found] == ["ten", "twelve fish"]
    assert (model.calls.spent, model.calls.tokens, sum(one.tokens for one in found)) == (1, 9, 4)


def test_transient_faults_are_waited_for():
    slept = []
    faults = [(429, {"Retry-After": "7"}, {}), (503, {}, {}), None, (200, {}, b"{not json"), (200, {}, {"choices": []})]
    with Server(*faults, ok("at last")) as server:
        model = endpoint(server, slept, patience=Patience(attempts=6, timeout=5.0, first=1.0, longest=9.0))
        (found,) = model.propose("Go on", KEY)
    assert found.text == "at last"
    assert slept[0] == 7.0
    assert all(low <= seconds <= high for seconds, low, high in zip(slept[1:], (1, 2, 4, 8), (2, 4, 8, 9), strict=True))
    entry = model.calls.entries[0]
    assert [fault.split(":")[0] for fault in entry["faults"][:2]] == ["HTTP 429", "HTTP 503"]
    assert entry["faults"][3:] == ["the answer is no chat completion"] * 2


def test_a_slow_server_times_out_and_is_asked_again():
    with Server(0.6, ok("fast")) as server:
        model = endpoint(server, patience=Patience(attempts=2, timeout=0.2))
        assert model.propose("Go on", KEY)[0].text == "fast"
    assert "imed out" in model.calls.entries[0]["faults"][0]


def test_a_truncated_body_is_a_fault():
    with Server((200, {"Content-Length": "500"}, b'{"choices"'), ok("whole")) as server:
        assert endpoint(server).propose("Go on", KEY)[0].text == "whole"


@pytest.mark.parametrize("status", [400, 401, 404, 307])
def test_final_errors_are_said_at_once(status):
    with Server((status, {"Location": "http://127.0.0.1:9/"}, {"error": "no such model"})) as server:
        model = endpoint(server)
        with pytest.raises(CallError, match=rf"some-model at .* gave no answer in 1 attempts: HTTP {status}.*no such model"):
            model.propose("Go on", KEY)
    assert len(server.seen) == 1
    assert "error" in model.calls.entries[0]


def test_patience_ends():
    with Server(*[(500, {}, {})] * 3) as server, pytest.raises(CallError, match="in 3 attempts"):
        endpoint(server).propose("Go on", KEY)


def test_servers_that_give_one_answer_at_a_time_are_asked_again():
    with Server(ok("a"), ok("b"), ok("c")) as server:
        model = endpoint(server)
        assert [one.text for one in model.propose("Go on", KEY, n=3)] == ["a", "b", "c"]
    assert [body["n"] for _, body in server.seen] == [3, 2, 1]
    assert [body["seed"] for _, body in server.seen] == [3, 4, 5]
    assert model.calls.tokens == 3 * 7


def test_what_was_paid_before_a_failure_counts():
    with Server(ok("a"), (400, {}, {})) as server:
        model = endpoint(server)
        with pytest.raises(CallError):
            model.propose("Go on", KEY, n=2)
    assert model.calls.tokens == 7


def test_the_key_is_never_written_down(tmp_path):
    log = CallLog(tmp_path / "calls.jsonl")
    faults = (500, {}, {"echo": f"Bearer {SECRET}"}), (401, {}, {"error": f"wrong key {SECRET}"})
    with Server(*faults) as server, pytest.raises(CallError) as caught:
        endpoint(server, calls=log).propose("Go on", KEY)
    assert SECRET not in (tmp_path / "calls.jsonl").read_text()
    assert SECRET not in str(caught.value)
    assert "wrong key [key]" in str(caught.value)


def test_no_key_no_header(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with Server(ok("a")) as server:
        endpoint(server).propose("Go on", KEY)
    assert "Authorization" not in server.headers[0]


def test_a_budget_refuses_before_anything_is_asked():
    with Server(ok("a"), ok("b")) as server:
        model = endpoint(server, calls=CallLog(budget=Budget(calls=2)))
        model.propose("Go on", KEY)
        model.propose("Go on", KEY)
        with pytest.raises(PolyactError, match="budget of 2 calls to the language model is spent"):
            model.propose("Go on", KEY)
    assert len(server.seen) == 2


def test_a_budget_of_tokens_shortens_answers_and_then_refuses():
    with Server(ok("a"), ok("b")) as server:
        model = endpoint(server, longest=10, calls=CallLog(budget=Budget(tokens=12)))
        model.propose("Go on", KEY)
        model.propose("Go on", KEY)
        assert [body["max_tokens"] for _, body in server.seen] == [10, 5]
        with pytest.raises(PolyactError, match="budget of 12 tokens is spent: 14 in 2 calls"):
            model.propose("Go on", KEY)


def test_a_ledger_counts_what_it_holds_already(tmp_path):
    path = tmp_path / "calls.jsonl"
    Scripted(lambda request: "one two", calls=CallLog(path)).propose("a b c", KEY)
    again = CallLog(path, Budget(calls=2))
    model = Scripted(lambda request: "one", calls=again)
    model.propose("a", KEY)
    assert (again.spent, again.tokens, len(read_calls(path))) == (2, 7, 2)
    with pytest.raises(PolyactError, match="spent"):
        model.propose("a", KEY)


def test_threads_share_a_budget_exactly():
    model = Scripted(lambda request: "x", calls=CallLog(budget=Budget(calls=20)))
    refused = []

    def ask():
        for _ in range(10):
            try:
                model.propose("a", KEY)
            except PolyactError:
                refused.append(1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (model.calls.spent, len(refused)) == (20, 20)


def test_recorded_answers_are_given_again_and_nothing_else(tmp_path):
    path = tmp_path / "calls.jsonl"
    spoken = Scripted(lambda request: f"{request.seed} to {request.text}", calls=CallLog(path))
    asked = [("hello", jax.random.key(1)), ("hello", jax.random.key(2)), ("bye", jax.random.key(1))]
    first = [spoken.propose(text, key, n=2) for text, key in asked]
    replay = Recorded(path)
    again = [replay.propose(text, key, n=2) for text, key in asked]
    assert [[one.text for one in answer] for answer in again] == [[one.text for one in answer] for answer in first]
    assert replay.calls.tokens == spoken.calls.tokens
    for other in ({"n": 1}, {"n": 2, "temperature": 0.0}, {"n": 2, "stop": ["x"]}):
        with pytest.raises(CallError, match="holds no answer to this request"):
            replay.propose("hello", jax.random.key(1), **other)


def test_a_damaged_ledger_names_its_line(tmp_path):
    path = tmp_path / "calls.jsonl"
    Scripted(lambda request: "x", calls=CallLog(path)).propose("a", KEY)
    path.write_text(path.read_text() + '{"half": ')
    with pytest.raises(DataError, match=r"calls.jsonl, line 2: expected a call"):
        Recorded(path)


def table(*rows):
    """A model whose first token names the prompt; rows [L, V] of log weights for prompt 0."""
    return TableLM(jnp.log(jnp.asarray([rows] * len(rows[0]), jnp.float32)))


WORDS = Words(["a", "b", "c", "."], end=".")


def test_a_local_model_writes_what_its_distribution_says():
    model = LocalModel(table([0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]), WORDS)
    (found,) = model.propose("a", KEY, temperature=0.0)
    assert (found.text, found.tokens, found.finished) == ("b c", 3, True)


def test_a_local_model_samples_with_the_right_log_probabilities():
    rows = [[0.5, 0.25, 0.125, 0.125]] * 6
    model = LocalModel(table(*rows), WORDS, longest=4)
    found = model.propose("a", KEY, n=300)
    assert model.propose("a", KEY, n=300)[7].text == found[7].text
    for one in found[:50]:
        written = WORDS.encode(one.text) + ([WORDS.end] if one.finished else [])
        assert one.log_prob == pytest.approx(sum(np.log(rows[0][token]) for token in written), abs=1e-5)
    first = [(one.text.split() or ["."])[0] for one in found]
    assert abs(first.count("a") / 300 - 0.5) < 0.1


def test_a_grammar_renormalises_and_is_never_left():
    model = LocalModel(table(*[[0.4, 0.4, 0.1, 0.1]] * 8), WORDS, allowed=lambda written: {2, 3} if len(written) < 3 else {3})
    found = model.propose("b", KEY, n=40)
    assert {word for one in found for word in one.text.split()} == {"c"}
    assert all(one.finished for one in found)
    assert found[0].log_prob == pytest.approx(np.log(0.5) * min(len(found[0].text.split()) + 1, 3), abs=1e-5)


def test_stops_end_an_answer_and_are_not_part_of_it():
    model = LocalModel(table([0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]), WORDS)
    (found,) = model.propose("a", KEY, temperature=0.0, stop=[" c"])
    assert (found.text, found.finished) == ("b", True)


def test_temperature_sharpens():
    chance = np.random.default_rng(0)
    picks = [choose(np.array([0.0, 1.0]), None, 0.1, chance)[0] for _ in range(200)]
    assert np.mean(picks) > 0.98


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda: Scripted(str).propose([], KEY), "needs messages"),
        (lambda: Scripted(str).propose("a", KEY, n=0), "n of at least 1"),
        (lambda: Scripted(str).propose("a", KEY, stop="x"), "sequence of strings"),
        (lambda: Endpoint("localhost:1", "m"), "begins with http"),
        (lambda: LocalModel(table([1.0, 1.0]), WORDS), "knows 2 tokens"),
        (lambda: LocalModel(table(*[[1.0] * 4]), WORDS).propose("zebra", KEY), "has no 'zebra'"),
        (lambda: LocalModel(table(*[[1.0] * 4]), WORDS, allowed=lambda written: ()).propose("a", KEY), "allows nothing"),
    ],
)
def test_errors_are_one_line(fault, message):
    with pytest.raises(PolyactError, match=message):
        fault()
