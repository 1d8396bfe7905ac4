"""Implicit behaviour cloning (Florence et al., 2109.00137): a network scores actions, and acting draws one by its score."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.data.sampling import Batch, Sampling, Steps
from polyact.errors import PolyactError
from polyact.nets.mlp import Network
from polyact.policies.base import Action, Imitable, Memory, Observation
from polyact.policies.spec import Body, Spec


class Implicit(Imitable):
    """(observation, unit action) -> network -> score. Cloned by telling the recorded action from `negatives` uniform ones (InfoNCE).

    Acts without derivatives: one of `candidates` uniform actions is drawn by its score and moved by `moves` Metropolis steps, whose
    proposals shrink geometrically between the two `widths`. Unlike the paper's search, which raises the scores' density to a power, this
    draws from it.
    """

    body: Body
    network: Callable
    negatives: int = eqx.field(static=True)
    candidates: int = eqx.field(static=True)
    moves: int = eqx.field(static=True)
    widths: tuple[float, float] = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        spec: Spec,
        network: Network,
        key: PRNGKeyArray,
        *,
        negatives: int = 64,
        candidates: int = 512,
        moves: int = 20,
        widths: tuple[float, float] = (0.3, 0.02),
    ) -> "Implicit":
        """Fresh weights. Raises PolyactError when an action entry has no bounds to search between."""
        body = spec.body
        if min(negatives, candidates, moves, *widths) <= 0 or not all(body.continuous.bounded):
            raise PolyactError(
                f"an implicit policy needs bounds on every action entry and positive numbers, got {body.action_space}"
            )
        built = network.build(body.observation_width + body.continuous.width, 1, key)
        return cls(body, built, negatives, candidates, moves, widths)

    def scores(self, observation: Observation, actions: Float[Array, "N A"]) -> Float[Array, " N"]:
        """Unnormalised log density of unit actions."""
        features = self.body.features(observation)
        return jax.vmap(lambda action: self.network(jnp.concatenate([features, action]))[0])(actions)

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        first, choose, walk = jax.random.split(key, 3)
        actions = self._uniform(first, self.candidates)
        scores = self.scores(observation, actions)
        chosen = jax.random.categorical(choose, scores)

        def move(place: tuple[Array, Array], step: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            (action, score), (width, key) = place, step
            shift, toss = jax.random.split(key)
            other = action + width * jax.random.normal(shift, action.shape)
            inside = jnp.all(jnp.abs(other) <= 1)
            proposed = jnp.where(inside, self.scores(observation, other[None])[0], -jnp.inf)
            taken = jnp.log(jax.random.uniform(toss)) < proposed - score
            return jax.tree.map(lambda new, old: jnp.where(taken, new, old), (other, proposed), place), None

        steps = jnp.geomspace(*self.widths, self.moves), jax.random.split(walk, self.moves)
        (action, _), _ = jax.lax.scan(move, (actions[chosen], scores[chosen]), steps)
        return self.body.to_env(action), memory

    @property
    def sampling(self) -> Sampling:
        return Steps()

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        def one(observation: Observation, action: Action, key: PRNGKeyArray) -> Float[Array, ""]:
            others = self._uniform(key, self.negatives)
            return -jax.nn.log_softmax(self.scores(observation, jnp.concatenate([self.body.to_unit(action)[None], others])))[0]

        return jax.vmap(one)(batch.observation, batch.action, jax.random.split(key, len(batch.action))).mean()

    def _uniform(self, key: PRNGKeyArray, count: int) -> Float[Array, "count A"]:
        return jax.random.uniform(key, (count, self.body.continuous.width), minval=-1.0, maxval=1.0)
