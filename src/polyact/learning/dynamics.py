"""A Gaussian ensemble of the environment's dynamics (PETS, arXiv 1805.12114; MBPO, 1906.08253), and rollouts branched from data.

Each member predicts the normal distribution of (change of observation, reward), all in units of their standard deviation in the data.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact import spaces
from polyact.data.sampling import Batch, Sampling, Transitions
from polyact.errors import PolyactError
from polyact.learning.base import Metrics, Trainable
from polyact.learning.critics import action_features, at_least_one
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.ensemble import Ensemble
from polyact.nets.mlp import Network
from polyact.policies.spec import Body, Spec
from polyact.tree import Frozen


class Scale(Frozen):
    """Running second moments of the targets: observation changes [O] and the reward, so that all outputs are of order one."""

    mean: Float[Array, " T"]
    square: Float[Array, " T"]
    weight: Float[Array, ""]

    def updated(self, targets: Float[Array, "B T"], rate: float) -> "Scale":
        """Moved towards a batch, unbiased from the first batch on."""
        moved = [old + rate * (new - old) for old, new in ((self.mean, targets.mean(0)), (self.square, (targets**2).mean(0)))]
        return Scale(moved[0], moved[1], self.weight + rate * (1 - self.weight))

    @property
    def center(self) -> Float[Array, " T"]:
        return self.mean / self.weight

    @property
    def std(self) -> Float[Array, " T"]:
        return jnp.sqrt(jnp.maximum(self.square / self.weight - self.center**2, 1e-8))


class DynamicsModel(eqx.Module):
    """K members, each (observation, action) -> normal over (next observation, reward)."""

    body: Body
    ensemble: Ensemble
    scale: Scale
    log_std_range: tuple[float, float] = eqx.field(static=True)

    def predict(self, observation: Any, action: Float[Array, " A"]) -> tuple[Float[Array, "K T"], Float[Array, "K T"]]:
        """Mean and log standard deviation of every member, in units of the targets' scale; T = O + 1, reward last.

        action: as critics see it (`critics.action_features`).
        """
        out = self.ensemble(jnp.concatenate([self.body.features(observation), action]))
        mean, log_std = jnp.split(out, 2, axis=-1)
        low, high = self.log_std_range
        return mean, low + 0.5 * (high - low) * (jnp.tanh(log_std) + 1)

    def targets(self, observation: Array, next_observation: Array, reward: Array) -> Float[Array, " T"]:
        """What a prediction is about, in raw units."""
        return jnp.concatenate([(next_observation - observation).reshape(-1), jnp.atleast_1d(reward)])

    def sample(
        self, observation: Array, action: Any, key: PRNGKeyArray
    ) -> tuple[Float[Array, " O"], Float[Array, ""], Float[Array, ""]]:
        """(next observation, reward, disagreement) from a random member.

        disagreement: largest distance between two members' means, in standard deviations of the targets: an honest warning that the
        data does not say what happens here (MOReL, arXiv 2005.05951).
        """
        mean, log_std = self.predict(observation, action_features(self.body, jnp.asarray(action)[None])[0])
        which, noise = jax.random.split(key)
        member = jax.random.randint(which, (), 0, self.ensemble.count)
        drawn = mean[member] + jnp.exp(log_std[member]) * jax.random.normal(noise, mean.shape[1:])
        raw = self.scale.center + drawn * self.scale.std
        distance = jnp.linalg.norm(mean[:, None] - mean[None], axis=-1).max()
        return observation + raw[:-1].reshape(observation.shape), raw[-1], distance


class DynamicsState(eqx.Module):
    model: DynamicsModel
    optimiser: OptimiserState


class DynamicsEnsemble(Trainable):
    """Maximum likelihood of every member on batches of its own order; trained by `fit` like any learner."""

    needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")
    members: int = eqx.field(static=True, default=5)
    network: Network = Network(width=200, depth=3, activation="silu")
    optimiser: Optimiser = Optimiser(1e-3, weight_decay=1e-5)
    log_std_range: tuple[float, float] = eqx.field(static=True, default=(-5.0, 0.5))
    scale_rate: float = 0.01

    def __check_init__(self):
        at_least_one(members=self.members)

    def sampling(self, spec: Spec) -> Sampling:
        return Transitions()

    def init(self, spec: Spec, key: PRNGKeyArray) -> DynamicsState:
        if not isinstance(spec.observation_space, spaces.Box):
            raise PolyactError(f"a Gaussian dynamics model predicts vectors, not {spec.observation_space}")
        width = spec.observation_width + 1
        ensemble = Ensemble.build(self.network, self.members, spec.observation_width + spec.action_width, 2 * width, key)
        scale = Scale(jnp.zeros(width), jnp.zeros(width), jnp.zeros(()))
        model = DynamicsModel(spec.body, ensemble, scale, self.log_std_range)
        return DynamicsState(model, self.optimiser.init(model, spec.steps))

    def update(self, state: DynamicsState, batch: Batch, key: PRNGKeyArray) -> tuple[DynamicsState, Metrics]:
        targets = jax.vmap(state.model.targets)(batch.observation, batch.next_observation, batch.reward)
        scale = state.model.scale.updated(targets, self.scale_rate)
        model = eqx.tree_at(lambda m: m.scale, state.model, scale)
        wanted = (targets - scale.center) / scale.std
        taken = action_features(model.body, batch.action)
        # Every member sees its own bootstrap resample of the batch, as weights, so that members differ where data is thin.
        weights = jax.random.exponential(key, (targets.shape[0], self.members))

        def loss(model: DynamicsModel) -> tuple[Array, Array]:
            mean, log_std = jax.vmap(model.predict)(batch.observation, taken)
            error = (wanted[:, None] - mean) * jnp.exp(-log_std)
            per_member = (0.5 * error**2 + log_std).mean(-1)
            value = jnp.mean(jnp.sum(weights * per_member, axis=1))
            return value, ((wanted[:, None] - mean) ** 2).mean()

        model, optimiser, error = descend(loss, model, self.optimiser, state.optimiser)
        return DynamicsState(model, optimiser), {"squared_error": error, "scale": scale.std.mean()}


def branched_rollouts(
    model: DynamicsModel,
    act: Callable[[Array, PRNGKeyArray], Array],
    observation: Float[Array, "B O"],
    key: PRNGKeyArray,
    *,
    steps: int,
    penalty: float = 0.0,
    terminal: Callable[[Array], Array] | None = None,
) -> Batch:
    """Model transitions from data: `steps` steps from each of B observations under `act`, flattened to B * steps rows.

    penalty: times the members' disagreement, taken off the reward (MOPO-like, arXiv 2005.13239). terminal(observation) -> bool ends a
    branch; rows after the end of a branch have mask False.
    """

    def one(carry: tuple[Array, Array], key: PRNGKeyArray) -> tuple[tuple[Array, Array], Batch]:
        seen, alive = carry
        choose, move = (jax.random.split(k, seen.shape[0]) for k in jax.random.split(key))
        action = jax.vmap(act)(seen, choose)
        reached, reward, distance = jax.vmap(model.sample)(seen, action, move)
        over = jax.vmap(terminal)(reached) if terminal else jnp.zeros_like(alive)
        row = Batch(
            observation=seen,
            action=action,
            reward=reward - penalty * distance,
            next_observation=reached,
            bootstrap=1.0 - over,
            mask=alive,
        )
        return (reached, alive & ~over), row

    alive = jnp.ones(observation.shape[0], bool)
    _, rows = jax.lax.scan(one, (observation, alive), jax.random.split(key, steps))
    return jax.tree.map(lambda column: column.reshape(-1, *column.shape[2:]), rows)
