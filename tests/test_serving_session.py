"""What one connection is told when its policy is late, tick by tick, with answers that come when the test says."""

import asyncio
import time

import numpy as np
import pytest

from polyact.errors import PolyactError
from polyact.serving.batching import Answer, Batcher, InferenceFailed, Ticket
from polyact.serving.requests import Request
from polyact.serving.session import Clock, Session

IDLE = np.full((3, 1), 0.5, np.float32)


class Batches(Batcher):
    """Keeps tickets until they are answered; has no thread."""

    def __init__(self):
        self.rows, self.tickets = [], []

    def submit(self, row, done):
        self.rows.append(row)
        self.tickets.append(Ticket(row, done))
        return self.tickets[-1]

    def answer(self, number=-1, chunk=None):
        """Answer t, t + 0.1, t + 0.2 to a ticket of tick t."""
        ticket = self.tickets[number]
        found = ticket.row.tick + 0.1 * np.arange(3, dtype=np.float32)[:, None] if chunk is None else chunk
        answer = found if isinstance(found, InferenceFailed) else Answer(found, 0.0, 1)
        ticket.done(answer)
        ticket.answer.set_result(answer)


def request(timestep=None, **more):
    fields = {"timestamp": None, "inference_delay": None, "prev_chunk": None, "reset": False, "seed": None} | more
    return Request([], timestep=timestep, **fields)


def conversation(play, fallback="hold", period=0.01):
    """Run play(session, batches, late, soon); late(request) is the reply to one that is not answered in time, soon to one that is."""

    async def run():
        session, batches = Session(3, 7, IDLE, Clock(period, fallback)), Batches()

        async def late(asked):
            return await session.answer(asked, batches, time.perf_counter())

        async def soon(asked, **options):
            asyncio.get_running_loop().call_later(0.001, lambda: batches.answer(**options))
            return await session.answer(asked, batches, time.perf_counter() + 5)

        await play(session, batches, late, soon)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("fallback", "expected"),
    [
        ("hold", [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        ("zero", [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]),
        ("chunk", [[0.1, 0.2, 0.2], [0.2, 0.2, 0.2], [0.2, 0.2, 0.2]]),
    ],
)
def test_late_answers_are_replaced_by_what_the_fallback_makes_of_the_last_plan(fallback, expected):
    async def play(session, batches, late, soon):
        assert (await soon(request())).chunk[0] == 0
        for age, chunk in enumerate(expected, 1):
            reply = await late(request())
            assert (reply.late, reply.staleness) == (True, age)
            np.testing.assert_allclose(reply.chunk[:, 0], chunk, rtol=1e-6)

    conversation(play, fallback)


def test_before_anything_arrived_nothing_is_done():
    async def play(session, batches, late, soon):
        reply = await late(request())
        assert (reply.late, reply.staleness) == (True, None)
        np.testing.assert_array_equal(reply.chunk, IDLE)

    for fallback in ("hold", "zero", "chunk"):
        conversation(play, fallback)


def test_an_observation_that_comes_while_the_policy_is_busy_is_not_queued():
    async def play(session, batches, late, soon):
        await late(request())
        await late(request())
        assert len(batches.rows) == 1
        batches.answer()
        reply = await soon(request())
        assert (reply.late, reply.tick) == (False, 2)
        assert [row.tick for row in batches.rows] == [0, 2]

    conversation(play)


def test_what_arrives_late_is_the_plan_of_the_next_fallback():
    async def play(session, batches, late, soon):
        await late(request())
        batches.answer()
        reply = await late(request())
        np.testing.assert_allclose(reply.chunk[:, 0], [0.1, 0.2, 0.2], rtol=1e-6)

    conversation(play, "chunk")


def test_an_answer_to_an_old_episode_is_not_used_in_the_new_one():
    async def play(session, batches, late, soon):
        await late(request())
        reply = await late(request(reset=True))
        assert reply.tick == 0
        batches.answer(0)
        reply = await late(request())
        np.testing.assert_array_equal(reply.chunk, IDLE)
        row = batches.rows[-1]
        assert (row.fresh, row.episode, row.slot, row.seed) == (True, 1, 3, 7)

    conversation(play)


def test_after_a_failure_the_memory_starts_anew_and_the_ticks_go_on():
    async def play(session, batches, late, soon):
        await soon(request(timestep=4))
        with pytest.raises(InferenceFailed):
            await soon(request(timestep=5), chunk=InferenceFailed("not finite"))
        assert (await soon(request())).tick == 6
        assert [(row.fresh, row.episode) for row in batches.rows] == [(True, 0), (False, 0), (True, 1)]

    conversation(play)


def test_the_rest_of_the_running_chunk_is_what_will_be_done_meanwhile():
    async def play(session, batches, late, soon):
        await soon(request())
        await soon(request(timestep=1, inference_delay=1))
        np.testing.assert_allclose(batches.rows[-1].previous[:, 0], [0.1, 0.2])
        assert batches.rows[-1].delay == 1
        await soon(request(timestep=9, inference_delay=1))
        assert batches.rows[-1].previous is None
        await soon(request(timestep=10, inference_delay=2, prev_chunk=np.ones((2, 1), "f4")))
        np.testing.assert_array_equal(batches.rows[-1].previous, 1)

    conversation(play, period=None)


def test_ticks_do_not_fall_within_an_episode():
    async def play(session, batches, late, soon):
        await soon(request(timestep=5))
        with pytest.raises(PolyactError, match="is 4, but 5 was before"):
            await soon(request(timestep=4))
        assert (await soon(request(timestep=0, reset=True))).tick == 0

    conversation(play, period=None)


def test_a_row_of_the_table_is_free_when_nothing_writes_to_it_any_more():
    async def play(session, batches, late, soon):
        freed = []
        await late(request())
        session.close(lambda: freed.append(1))
        assert not freed
        batches.answer()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert freed == [1]

    conversation(play)
