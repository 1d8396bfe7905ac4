"""The world does not wait: a policy whose actions arrive late, as a policy.

`RealTime` asks the policy at the control ticks, keeps what is still being computed, and acts with what has arrived. Because it is
itself a policy, everything that takes a policy can be asked in real time. Zero latency gives the same actions as the policy alone;
a latency of k ticks with unlimited inferences in flight is exactly a k-step action delay.
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from polyact import spaces
from polyact.envs.wrappers import idle_action
from polyact.errors import PolyactError
from polyact.policies.base import ChunkPolicy, Memory, Policy, Reporting
from polyact.spaces import Space
from polyact.timing import FALLBACKS, check_rate, check_word, due

Latency = float | np.ndarray | str | None  # seconds, samples of seconds, or "measured"
Fallback = str  # one of timing.FALLBACKS


class Pending(eqx.Module):
    """What `RealTime` remembers. D places for inferences under way; chunks of H actions (H = 1 for ordinary policies)."""

    inner: PyTree
    tick: Int[Array, ""]
    plans: Float[Array, "D H ..."]
    asked: Int[Array, "D"]  # tick whose observation the plan answers, -1 where the place is empty
    arrives: Int[Array, "D"]  # first tick at which the plan can be used
    applied: Array  # the last action given to the world
    late: Array  # whether the newest tick had no fresh action of its own
    waiting: Array  # ticks between the newest usable observation and now


class RealTime(Reporting):
    """A policy under a clock.

    ticks [L]: possible latencies in control intervals, one drawn per inference (a fixed latency has L = 1). in_flight: inferences
    that may overlap; with fewer than the latency needs, the policy is busy and skips observations, as one computer would.
    fallback: what is done while nothing usable has arrived. "hold" repeats the last action (zeros before the first), "zero" gives
    zeros whenever no action arrived for this very tick, "chunk" plays on in the newest chunk that arrived and then holds.
    """

    policy: Policy
    action_space: Space = eqx.field(static=True)
    ticks: Int[Array, "L"]
    places: int = eqx.field(static=True)
    in_flight: int = eqx.field(static=True)
    fallback: str = eqx.field(static=True)

    def start(self, key: PRNGKeyArray) -> Memory:
        idle = idle_action(self.action_space)
        plan = jnp.zeros((self.places, self._length(), *idle.shape), idle.dtype)
        empty = jnp.full(self.places, -1, jnp.int32)
        no, zero = jnp.asarray(False), jnp.zeros((), jnp.int32)
        return Pending(self.policy.start(key), zero, plan, empty, empty, idle, no, zero)

    def act(self, observation: Any, memory: Pending, key: PRNGKeyArray) -> tuple[Any, Memory]:
        now = memory.tick
        busy = jnp.sum((memory.asked >= 0) & (memory.arrives > now))
        free = busy < self.in_flight
        plan, inner = self._infer(observation, memory.inner, key)
        latency = self.ticks[jax.random.randint(jax.random.fold_in(key, 1), (), 0, len(self.ticks))]
        # The place of the oldest answered request; there always is one that no longer matters.
        place = jnp.argmin(jnp.where(memory.arrives > now, jnp.iinfo(jnp.int32).max, memory.asked))
        put = lambda old, new: jnp.where(free, old.at[place].set(new), old)  # noqa: E731
        plans, asked, arrives = put(memory.plans, plan), put(memory.asked, now), put(memory.arrives, now + latency)
        seen = self._observe(observation, memory.inner)
        inner = jax.tree.map(lambda a, b: jnp.where(free, a, b) if eqx.is_array(a) else a, inner, seen)
        newest = jnp.argmax(jnp.where((asked >= 0) & (arrives <= now), asked, -1))
        ready = (asked[newest] >= 0) & (arrives[newest] <= now)
        action, late = self._due(plans[newest], now - asked[newest], now - arrives[newest], ready, memory.applied)
        waiting = jnp.where(ready, now - asked[newest], now + 1)
        return action, Pending(inner, now + 1, plans, asked, arrives, action, late, waiting)

    def report(self, memory: Pending) -> dict[str, Array]:
        """late: no action arrived for this tick; staleness: age in ticks of the observation behind the action."""
        return {"late": memory.late, "staleness": memory.waiting}

    def _infer(self, observation: Any, memory: PyTree, key: PRNGKeyArray) -> tuple[Array, PyTree]:
        if self.fallback == "chunk" and isinstance(self.policy, ChunkPolicy):
            return self.policy.chunk(observation, memory, key)
        action, memory = self.policy.act(observation, memory, key)
        return jnp.asarray(action)[None], memory

    def _observe(self, observation: Any, memory: PyTree) -> PyTree:
        """What a busy policy remembers of an observation it does not answer: chunk policies keep a history, others nothing."""
        if self.fallback == "chunk" and isinstance(self.policy, ChunkPolicy):
            return self.policy.observe(observation, memory)
        return memory

    def _due(self, plan: Array, age: Array, since: Array, ready: Array, applied: Array) -> tuple[Array, Array]:
        place, taken, late = due(jnp, self.fallback, age, since, ready, self._length())
        other = idle_action(self.action_space) if self.fallback == "zero" else applied
        return jnp.where(taken, plan[place], other), late

    def _length(self) -> int:
        if self.fallback != "chunk":
            return 1
        assert isinstance(self.policy, ChunkPolicy)
        return self.policy.horizon


def real_time(
    policy: Policy,
    env: Any,
    *,
    control_hz: float | None,
    latency: Latency,
    fallback: Fallback = "hold",
    in_flight: int | None = None,
) -> RealTime:
    """A policy under a clock, for an environment's action space.

    control_hz: control rate in Hz. latency: seconds from observation to action: a number, an array of samples drawn from uniformly,
    or "measured" (this machine, now, one observation at a time). in_flight: inferences that may overlap; default: as many as the
    latency needs, so that one starts at every tick (a measured latency defaults to 1, because one computer is one computer).
    Raises PolyactError when one of rate and latency is missing, or the fallback does not fit the policy.
    """
    if control_hz is None or latency is None:
        raise PolyactError("acting in real time needs both control_hz (Hz) and latency (seconds, samples, or 'measured')")
    check_rate(control_hz)
    check_word("fallback", fallback, FALLBACKS)
    if fallback == "chunk" and not isinstance(policy, ChunkPolicy):
        raise PolyactError(f"fallback 'chunk' needs a policy that plans chunks, {type(policy).__name__} does not")
    if isinstance(env.action_space, spaces.Dict | spaces.Tuple | spaces.Text):
        raise PolyactError(f"acting in real time needs actions that are one array, got {env.action_space}")
    if fallback == "zero" and not isinstance(env.action_space, spaces.Box):
        raise PolyactError(f"fallback 'zero' needs continuous actions, got {env.action_space}")
    measured = isinstance(latency, str)
    if measured and latency != "measured":
        raise PolyactError(f"latency is '{latency}', expected seconds, samples in seconds, or 'measured'")
    seconds = measure_latency(policy, env.observation_space) if measured else np.atleast_1d(np.asarray(latency, np.float64))
    if seconds.ndim != 1 or not len(seconds) or not np.all(np.isfinite(seconds)) or np.any(seconds < 0):
        raise PolyactError(f"latency must be finite seconds >= 0, got {latency}")
    ticks = np.ceil(seconds * control_hz - 1e-6).astype(np.int32)
    longest = int(ticks.max())
    flight = in_flight if in_flight is not None else (1 if measured else longest + 1)
    if flight < 1:
        raise PolyactError(f"in_flight must be at least 1, got {in_flight}")
    return RealTime(policy, env.action_space, jnp.asarray(ticks), longest + 2, flight, fallback)


def measure_latency(policy: Policy, observation_space: Space, samples: int = 200) -> np.ndarray:
    """Seconds that the compiled policy takes for one observation, host to host, on this machine [samples]; compilation not counted."""
    key = jax.random.key(0)
    memory = policy.start(key)
    observations = [jax.tree.map(np.asarray, spaces.sample(observation_space, k)) for k in jax.random.split(key, 8)]
    seconds = np.zeros(samples + 10)
    for number in range(len(seconds)):
        began = time.perf_counter()
        action, memory = _act(policy, observations[number % 8], memory, key)
        jax.tree.map(np.asarray, action)
        seconds[number] = time.perf_counter() - began
    return seconds[10:]


_act = eqx.filter_jit(lambda policy, observation, memory, key: policy.act(observation, memory, key))
