"""d3rlpy's trained actors as polyact policies, so that both libraries' runs are judged by one evaluation on the same episodes."""

import tempfile
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from common import Missing, Options, Peer, say
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.data import Source
from polyact.policies.base import Memory, Policy


class TheirActor(Policy):
    """tanh of an MLP of the standardised observation, times the action's range: d3rlpy's deterministic prediction."""

    weights: tuple[Float[Array, "i o"], ...]
    biases: tuple[Float[Array, " o"], ...]
    mean: Float[Array, " observation"]
    std: Float[Array, " observation"]
    low: Float[Array, " action"]
    high: Float[Array, " action"]

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Any, memory: Memory, key: PRNGKeyArray) -> tuple[Array, Memory]:
        x = (observation - self.mean) / self.std
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = jax.nn.relu(x @ weight + bias)
        unit = jnp.tanh(x @ self.weights[-1] + self.biases[-1])
        return self.low + 0.5 * (unit + 1) * (self.high - self.low), memory


def train_there(data: Source, steps: int, seeds: int, options: Options) -> list[Policy] | str:
    """The actors of `seeds` runs of d3rlpy's IQL, or why there are none.

    Raises RuntimeError when an actor rebuilt here does not act as it did there.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(data, folder / "data.npz")
        try:
            with Peer("d3rlpy_iql.py", options, {"folder": name, "steps": steps, "width": 64, "depth": 2}) as peer:
                policies: list[Policy] = []
                for seed in range(seeds):
                    answer = peer.ask({"seed": seed})
                    say(f"  d3rlpy iql, seed {seed}: {answer['seconds']:.0f} s")
                    policies.append(_rebuilt(folder / "actor.npz"))
                return policies
        except Missing as reason:
            return str(reason)


def _write(data: Source, path: Path) -> None:
    episodes = data.episodes
    rows = np.arange(episodes.steps) + np.repeat(np.arange(episodes.count), episodes.lengths)
    terminals, timeouts = (np.asarray(column, np.float32) for column in (episodes.terminated, episodes.truncated))
    np.savez(
        path,
        observations=np.asarray(episodes.observation)[rows],
        actions=np.asarray(episodes.action),
        rewards=np.asarray(episodes.reward),
        terminals=terminals,
        timeouts=timeouts * (1 - terminals),
    )


def _rebuilt(path: Path) -> TheirActor:
    saved = np.load(path)
    count = sum(name.startswith("weight_") for name in saved)
    weights = tuple(jnp.asarray(saved[f"weight_{layer}"].T) for layer in range(count))
    biases = tuple(jnp.asarray(saved[f"bias_{layer}"]) for layer in range(count))
    actor = TheirActor(weights, biases, *(jnp.asarray(saved[name].reshape(-1)) for name in ("mean", "std", "low", "high")))
    again = eqx.filter_vmap(lambda o: actor.act(o, None, jax.random.key(0))[0])(jnp.asarray(saved["observations"]))
    if not np.allclose(again, saved["predictions"], atol=1e-3):
        raise RuntimeError("d3rlpy's actor, rebuilt here, acts differently")
    return actor
