"""Which action is due: the same decisions as the simulated real time, tick by tick, and LeRobot's and ACT's words as they define them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.realtime import RealTime
from polyact.client.schedule import Schedule
from polyact.errors import PolyactError
from polyact.policies.base import ChunkPolicy
from polyact.policies.chunk_executor import TemporalEnsemble
from polyact.policies.spec import Spec
from polyact.spaces import Box

TICKS = 14
KEY = jax.random.key(0)
BODY = Spec.of(Box(-1, 1, (1,)), Box(-1e3, 1e3, (1,)), 1).body


class Plans(ChunkPolicy):
    """For an observation t, the actions t, t + 0.1, t + 0.2, ...: which of them is due says where it comes from."""

    horizon: int = eqx.field(static=True, default=1)
    body: object = BODY

    def start(self, key):
        return None

    def observe(self, observation, memory):
        return memory

    def chunk(self, observation, memory, key):
        return observation + 0.1 * jnp.arange(self.horizon, dtype=jnp.float32)[:, None], memory

    def act(self, observation, memory, key):
        chunk, memory = self.chunk(observation, memory, key)
        return chunk[0], memory


def planned(tick, horizon):
    return np.asarray(Plans(horizon).chunk(jnp.full(1, tick + 1.0), None, KEY)[0])


def simulated(horizon, latency, fallback):
    policy = RealTime(Plans(horizon), BODY.action_space, jnp.asarray([latency]), latency + 2, 1, fallback)
    memory, found = policy.start(KEY), []
    act = eqx.filter_jit(policy.act)
    for tick in range(TICKS):
        action, memory = act(jnp.full(1, tick + 1.0), memory, KEY)
        found.append((float(action[0]), bool(memory.late), int(memory.waiting)))
    return found


def scheduled(schedule, horizon, latency):
    """What a loop does when every answer takes `latency` ticks."""
    found, running = [], None
    for tick in range(TICKS):
        if running is not None and tick >= running + latency:
            schedule.arrive(planned(running, horizon), running, tick)
            running = None
        if running is None and schedule.wants(tick):
            running = tick
            if not latency:
                schedule.arrive(planned(running, horizon), running, tick)
                running = None
        due = schedule.due(tick)
        found.append((float(due.action[0]), due.late, tick + 1 if due.staleness is None else due.staleness))
    return found


@pytest.mark.parametrize("latency", [0, 1, 2, 3, 5])
@pytest.mark.parametrize(("horizon", "fallback"), [(1, "hold"), (1, "zero"), (4, "chunk"), (1, "chunk")])
def test_one_plan_at_a_time_is_the_simulated_real_time(horizon, latency, fallback):
    schedule = Schedule("async", idle=np.zeros(1, np.float32), fallback=fallback, threshold=1.0)
    expected = simulated(horizon, latency, fallback)
    assert scheduled(schedule, horizon, latency) == expected


def test_an_ensemble_of_plans_is_the_temporal_ensemble():
    decay, horizon = 0.3, 4
    ensemble, schedule = TemporalEnsemble(Plans(horizon), decay), Schedule("ensemble", idle=np.zeros(1), decay=decay)
    memory = ensemble.start(KEY)
    act = eqx.filter_jit(ensemble.act)
    for tick in range(TICKS):
        action, memory = act(jnp.full(1, (tick + 1.0) ** 2), memory, KEY)
        schedule.arrive((tick + 1.0) ** 2 + 0.1 * np.arange(horizon, dtype=np.float32)[:, None], tick, tick)
        np.testing.assert_allclose(schedule.due(tick).action, action, rtol=1e-6)


def test_a_late_ensemble_averages_what_speaks_of_this_tick_and_then_holds():
    schedule = Schedule("ensemble", idle=np.zeros(1), decay=0.0)
    schedule.arrive(np.array([[0.0], [1], [2], [3]]), 0, 2)
    schedule.arrive(np.array([[10.0], [11], [12], [13]]), 1, 3)
    assert schedule.due(3).action == (3 + 12) / 2
    assert schedule.due(4).action == 13
    held = schedule.due(5)
    assert (held.action, held.late) == (13, True)


@pytest.mark.parametrize(
    ("aggregate", "mixed"),
    [("latest_only", 20.0), ("weighted_average", 0.3 * 1 + 14), ("average", 10.5), ("conservative", 0.7 + 6)],
)
def test_the_words_of_lerobot_mix_as_its_table_says(aggregate, mixed):
    schedule = Schedule("async", idle=np.zeros(1), aggregate=aggregate)
    schedule.arrive(np.array([[0.0], [1.0], [2.0]]), 0, 0)
    schedule.arrive(np.array([[20.0], [30.0], [40.0]]), 1, 1)
    assert schedule.due(1).action == pytest.approx(mixed)
    assert schedule.due(3).action == 40


def test_when_each_scheme_asks():
    def asks(schedule, horizon=8):
        schedule.arrive(np.zeros((horizon, 1)), 0, 0)
        return next(tick for tick in range(1, 10) if schedule.wants(tick))

    idle = np.zeros(1)
    assert asks(Schedule("sync", idle=idle)) == 8
    assert asks(Schedule("sync", idle=idle, execution_horizon=3)) == 3
    assert asks(Schedule("async", idle=idle)) == 4
    assert asks(Schedule("async", idle=idle, threshold=0.0)) == 8
    assert asks(Schedule("ensemble", idle=idle)) == 1
    assert asks(Schedule("rtc", idle=idle)) == 4
    slow = Schedule("rtc", idle=idle, execution_horizon=6)
    slow.delay = 5
    assert asks(slow) == 3  # s <= H - d


def test_nothing_is_due_before_the_first_plan():
    for fallback in ("hold", "zero"):
        due = Schedule("async", idle=np.full(1, 0.5), fallback=fallback).due(0)
        assert (due.action, due.late, due.staleness) == (0.5, True, None)


@pytest.mark.parametrize(
    ("scheme", "options", "said"),
    [
        ("soon", {}, "scheme is 'soon', expected one of sync, async, ensemble, rtc"),
        ("async", {"fallback": "stop"}, "fallback is 'stop'"),
        ("async", {"aggregate": "median"}, "aggregate is 'median'"),
        ("rtc", {"aggregate": "average"}, "no effect in scheme 'rtc'"),
        ("async", {"threshold": 2.0}, "between 0 and 1"),
        ("sync", {"execution_horizon": 0}, "at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(scheme, options, said):
    with pytest.raises(PolyactError, match=said):
        Schedule(scheme, idle=np.zeros(1), **options)
