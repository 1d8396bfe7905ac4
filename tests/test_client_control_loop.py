"""The control loop on a clock of its own: what it hands out, what it counts, and how it bridges a server that is slow, late or gone."""

import threading
from contextlib import contextmanager

import numpy as np
import pytest

from polyact.client.client import ServerError
from polyact.client.control_loop import ControlLoop
from polyact.errors import PolyactError

BOX = {"type": "Box", "dtype": "float32", "shape": [1], "low": [-1.0], "high": [1.0]}
SEEN = {"observation/state": np.zeros(1)}


class Server:
    """Answers t, t + 0.1, ... to what was asked at tick t, when it is let; or an error, when told so."""

    def __init__(self, horizon=4, **metadata):
        self.metadata = {"horizon": horizon, "execution_horizon": horizon, "action_space": BOX} | metadata
        self.horizon, self.requests, self.resets = horizon, [], []
        self.gate, self.trouble, self.late = threading.Semaphore(0), None, False
        self.taking = lambda: None

    def accepts(self, name):
        return True

    def reset(self, seed=None):
        self.resets.append(seed)

    def infer(self, observation, **optional):
        self.gate.acquire()
        self.requests.append(optional)
        self.taking()
        if self.trouble:
            raise ServerError(self.trouble)
        return {"actions": optional["timestep"] + 0.1 * np.arange(self.horizon)[:, None], "late": self.late}


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@contextmanager
def loop_on(server, clock, **options):
    with ControlLoop(server, control_hz=10, clock=clock, sleep=clock.sleep, **options) as loop:
        try:
            yield loop
        finally:
            server.gate.release(99)


def answered(loop, server):
    """Let the inference under way end."""
    server.gate.release()
    loop._running[0].exception()


def test_actions_are_for_their_ticks_and_those_that_come_late_are_dropped():
    server, clock = Server(), Clock()
    with loop_on(server, clock, scheme="async") as loop:
        actions = []
        for tick in range(8):
            if tick in (2, 6):
                answered(loop, server)
            actions.append(float(loop.act(SEEN)[0]))
            clock.now += 0.1
        assert actions == pytest.approx(
            [0, 0, 0.2, 0.3, 0.3, 0.3, 2.3, 2.3]
        )  # at 6 a plan arrives whose ticks are over: hold takes its last
        assert [request["timestep"] for request in server.requests] == [0, 2]
        assert (loop.counts.ticks, loop.counts.late, loop.counts.dropped, loop.counts.actions_dropped) == (8, 5, 0, 6)


def test_missed_control_intervals_are_counted_and_plans_keep_their_ticks():
    server, clock = Server(), Clock()
    with loop_on(server, clock, scheme="async") as loop:
        loop.act(SEEN)
        answered(loop, server)
        clock.now += 0.3  # two intervals pass without a call
        assert loop.act(SEEN) == pytest.approx(0.3)
        assert loop.counts.dropped == 2
        assert loop.counts.actions_dropped == 3


def test_a_caller_who_is_a_little_early_or_late_misses_nothing():
    server, clock = Server(), Clock()
    with loop_on(server, clock, scheme="async") as loop:
        for offset in (0.0, 0.14, 0.16, 0.34, 0.36):
            clock.now = 100 + offset
            loop.act(SEEN)
        assert loop.counts.dropped == 0


def test_sync_waits_for_the_answer_and_plays_it_to_its_execution_horizon():
    server, clock = Server(), Clock()
    server.gate.release(9)

    def slow():
        clock.now += 0.2

    with loop_on(server, clock, scheme="sync", execution_horizon=2) as loop:
        server.taking = slow
        actions = []
        for _ in range(4):
            actions.append(float(loop.act(SEEN)[0]))
            clock.now += 0.1
        assert actions == pytest.approx([0.0, 0.1, 4.0, 4.1])
        assert (loop.counts.late, loop.counts.dropped) == (0, 4)


def test_sync_raises_what_the_server_says():
    server, clock = Server(), Clock()
    server.gate.release()
    server.trouble = "no such run"
    with loop_on(server, clock, scheme="sync") as loop, pytest.raises(ServerError, match="no such run"):
        loop.act(SEEN)


@pytest.mark.parametrize("fallback", ["hold", "zero", "chunk"])
def test_while_the_server_fails_the_fallback_acts(fallback):
    server, clock = Server(), Clock()
    with loop_on(server, clock, scheme="async", fallback=fallback) as loop:
        loop.act(SEEN)
        answered(loop, server)
        server.trouble = "overloaded"
        actions = []
        for _ in range(7):
            clock.now += 0.1
            actions.append(float(loop.act(SEEN)[0]))
            if loop._running is not None:
                answered(loop, server)
        held = 0.0 if fallback == "zero" else 0.3
        assert actions == pytest.approx([0.1, 0.2, 0.3, held, held, held, held])
        assert loop.counts.failed >= 3
        assert loop.error == "overloaded"


def test_an_answer_that_the_server_marks_late_is_not_taken_for_a_plan():
    server, clock = Server(), Clock()
    server.late = True
    with loop_on(server, clock, scheme="async") as loop:
        loop.act(SEEN)
        answered(loop, server)
        clock.now += 0.1
        assert loop.act(SEEN) == 0
        assert (loop.counts.failed, loop.counts.late) == (1, 2)


def test_real_time_chunking_says_what_will_be_done_meanwhile():
    server, clock = Server(horizon=8, guided=True), Clock()
    with loop_on(server, clock, scheme="rtc") as loop:
        for tick in range(6):
            if tick == 2:
                answered(loop, server)
            loop.act(SEEN)
            clock.now += 0.1
        answered(loop, server)
        assert "prev_chunk" not in server.requests[0]
        second = server.requests[1]
        assert second["timestep"] == 4
        assert second["inference_delay"] == 2
        np.testing.assert_allclose(second["prev_chunk"][:, 0], [0.4, 0.5, 0.6, 0.7])


def test_a_new_episode_forgets_the_old_plans():
    server, clock = Server(), Clock()
    with loop_on(server, clock, scheme="async") as loop:
        loop.act(SEEN)
        server.gate.release()
        loop.reset(seed=3)
        assert server.resets == [None, 3]
        assert loop.act(SEEN) == 0
        assert loop.schedule.plans == []


def test_run_reads_acts_and_applies_once_per_interval():
    server, clock, done = Server(), Clock(), []
    server.gate.release(99)
    with loop_on(server, clock, scheme="async") as loop:
        counts = loop.run(lambda: SEEN, done.append, seconds=1.0)
    assert counts.ticks == len(done) == 10
    assert clock.now == pytest.approx(101.0)


def test_what_a_scheme_can_not_use_is_refused():
    server = Server()
    for options, said in [
        ({"scheme": "rtc"}, "continues chunks"),
        ({"scheme": "sync", "threshold": 0.5}, "no effect in scheme 'sync'"),
        ({"scheme": "async", "decay": 0.1}, "no effect"),
        ({"scheme": "ensemble", "execution_horizon": 2}, "no effect"),
        ({"scheme": "later"}, "expected one of sync"),
    ]:
        with pytest.raises(PolyactError, match=said):
            ControlLoop(server, control_hz=10, **options)
    with pytest.raises(PolyactError, match="control_hz must be positive"):
        ControlLoop(server, control_hz=0.0)
    server.metadata = {}
    with pytest.raises(PolyactError, match="give the idle action"):
        ControlLoop(server, control_hz=10)
    ControlLoop(server, control_hz=10, scheme="sync").close()
