"""A served policy in a world that does not wait scores what simulating its delay predicted: exactly in lockstep, and on a real clock."""

import time
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from serving_examples import STATE, offer

from polyact.acting.rollout import rollout
from polyact.acting.streams import WORLD, start_key, step_key
from polyact.client import Client, ControlLoop
from polyact.client.schedule import Schedule
from polyact.envs.double_integrator import DoubleIntegrator
from polyact.policies.base import ChunkPolicy, Policy
from polyact.policies.spec import Spec
from polyact.serving.hosted import Options
from polyact.serving.running import background
from polyact.serving.server import Server

ENV, HZ, SEED = DoubleIntegrator(horizon=24), 6.0, 2
KEY = jax.random.key(SEED)
BODY = Spec.of(ENV.observation_space, ENV.action_space, 1).body
reset, step = eqx.filter_jit(ENV.reset), eqx.filter_jit(ENV.step)


def force(observation):
    """Brings the mass to rest; with a delay it overshoots."""
    return -observation[:1] - 0.5 * observation[1:]


class Brings(Policy):
    """With a noisy hand."""

    def start(self, key):
        return None

    def act(self, observation, memory, key):
        return jnp.clip(force(observation) + 0.1 * jax.random.normal(key, (1,)), -1, 1), memory


class Plans(ChunkPolicy):
    """With a steady hand, in chunks that fade."""

    body: object = BODY
    horizon: int = eqx.field(static=True, default=4)

    def start(self, key):
        return None

    def observe(self, observation, memory):
        return memory

    def chunk(self, observation, memory, key):
        return jnp.clip(force(observation), -1, 1) * 0.8 ** jnp.arange(4.0)[:, None], memory

    def act(self, observation, memory, key):
        chunk, memory = self.chunk(observation, memory, key)
        return chunk[0], memory


def lockstep(client, episode, ticks, fallback):
    """Return of an episode in which every answer takes `ticks` control ticks, asked of the server tick by tick."""
    key = jax.random.fold_in(KEY, episode)
    state, observation = reset(start_key(key))
    schedule = Schedule("async", idle=np.zeros(1, np.float32), fallback=fallback, threshold=1.0)
    client.reset(SEED if episode == 0 else None)
    running, total = None, 0.0
    for tick in range(ENV.horizon):
        if running is None:
            running = tick, client.infer({STATE: np.asarray(observation)}, timestep=tick)["actions"]
        if tick >= running[0] + ticks:
            schedule.arrive(running[1], running[0], tick)
            running = None
            if ticks:
                running = tick, client.infer({STATE: np.asarray(observation)}, timestep=tick)["actions"]
        state, now = step(state, schedule.due(tick).action, step_key(key, WORLD, tick))
        observation, total = now.observation, total + float(now.reward)
    return total


@pytest.fixture(scope="module")
def address():
    runs = {
        "brings": offer(Brings(), ENV.observation_space, ENV.action_space),
        "plans": offer(Plans(), ENV.observation_space, ENV.action_space),
    }
    with background(Server(runs, Options(largest_batch=4, window=0.0), port=0)) as at:
        yield at


@pytest.mark.parametrize(
    ("policy", "fallback", "ticks"), [(Brings(), "hold", 0), (Brings(), "hold", 3), (Brings(), "zero", 2), (Plans(), "chunk", 2)]
)
def test_in_lockstep_the_score_is_exactly_that_of_the_simulated_delay(address, policy, fallback, ticks):
    expected = rollout(policy, ENV, episodes=2, key=KEY, control_hz=HZ, latency=ticks / HZ, fallback=fallback, in_flight=1).returns
    with Client(f"{address}/{type(policy).__name__.lower()}") as client:
        found = [lockstep(client, episode, ticks, fallback) for episode in range(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


class Delayed:
    """A client whose answers take some seconds: a long way to the server."""

    def __init__(self, client, seconds):
        self.client, self.seconds = client, seconds
        self.metadata, self.accepts, self.reset = client.metadata, client.accepts, client.reset

    def infer(self, observation, **optional):
        began = time.monotonic()
        reply = self.client.infer(observation, **optional)
        time.sleep(max(0.0, began + self.seconds - time.monotonic()))
        return reply


def on_a_clock(address, episode, seconds):
    """(return, counts) of an episode on the real clock, with a delay on the way."""
    key = jax.random.fold_in(KEY, episode)
    world, total = list(reset(start_key(key))), []
    with Client(address) as client, ControlLoop(Delayed(client, seconds), control_hz=HZ, threshold=1.0, fallback="chunk") as loop:

        def apply(action):
            world[0], now = step(world[0], jnp.asarray(action), step_key(key, WORLD, len(total)))
            world[1] = now.observation
            total.append(float(now.reward))

        counts = loop.run(lambda: {STATE: np.asarray(world[1])}, apply, seconds=(ENV.horizon - 0.5) / HZ)
    return sum(total[: ENV.horizon]), counts


@pytest.mark.slow  # not for its length: it needs a machine that keeps ticks of a sixth of a second
def test_on_a_real_clock_the_score_is_that_of_the_simulated_delay(address):
    """A delay of 2.5 ticks: answers come half a tick away from where it would matter. On an idle machine the returns are equal."""
    episodes, seconds = 6, 2.5 / HZ

    def simulated(latency):
        played = rollout(Plans(), ENV, episodes=episodes, key=KEY, control_hz=HZ, latency=latency, fallback="chunk", in_flight=1)
        return played.returns.mean()

    predicted, without = simulated(seconds), simulated(0.0)
    step(reset(KEY)[0], jnp.zeros(1), KEY)
    with ThreadPoolExecutor(episodes) as pool:
        played = list(pool.map(lambda episode: on_a_clock(f"{address}/plans", episode, seconds), range(episodes)))
    found = np.mean([score for score, _ in played])
    print(f"predicted {predicted:.2f}, found {found:.2f}, without delay {without:.2f}")
    assert sum(counts.failed for _, counts in played) == 0
    assert abs(found - predicted) < 0.25 * abs(predicted - without)
