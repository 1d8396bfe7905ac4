"""d3rlpy's trained actors as polyact policies, so that both libraries' runs are judged by one evaluation on the same episodes."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from common import Json, Missing, Options, Peer, say
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.data import Source
from polyact.learning.iql import IQL
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


def settings_of(learner: IQL) -> Json:
    """What d3rlpy's IQL is told so that it trains as this one does, as peers/d3rlpy_iql.py reads it.

    Raises ValueError where d3rlpy has no such setting.
    """
    rates = {float(part.learning_rate) for part in (learner.value_optimiser, learner.critic_optimiser)}
    if len(rates) > 1 or learner.actor_optimiser.schedule != "constant":
        raise ValueError("d3rlpy's IQL has one constant rate for the actor and one for both value functions")
    return {
        "width": learner.network.width,
        "depth": learner.network.depth,
        "actor_learning_rate": learner.actor_optimiser.learning_rate,
        "critic_learning_rate": rates.pop(),
        "expectile": learner.expectile,
        "weight_temp": learner.temperature,
        "max_weight": learner.largest_weight,
        "gamma": learner.discount,
        "tau": learner.target_rate,
        "n_critics": learner.critics,
    }


def train_there(data: Source, settings: Json, seeds: Iterable[int], options: Options) -> list[Policy] | str:
    """The actors of d3rlpy's IQL for these seeds, or why there are none. settings: of `settings_of`, with batch_size and steps.

    Raises RuntimeError when an actor rebuilt here does not act as it did there.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(data, folder / "data.npz")
        try:
            with Peer("d3rlpy_iql.py", options, settings | {"folder": name}) as peer:
                policies: list[Policy] = []
                for seed in seeds:
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
