"""Fitted Q iteration (Ernst et al. 2005) and evaluation (Le et al., arXiv 1903.08738): regress on targets that stand still for a while.

Iteration looks for the best policy over one discrete choice; evaluation finds the values of a given policy, whatever its actions are.
"""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact import tree
from polyact.data.sampling import Batch, Sampling, Transitions
from polyact.errors import PolyactError
from polyact.learning.base import Learner, Metrics, Trainable
from polyact.learning.critics import action_features, at_least_one
from polyact.learning.greedy_q import GreedyQ, greedy_target, of_logged
from polyact.learning.losses import squared_error, td_target
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.mlp import Network
from polyact.policies.base import Policy, StochasticPolicy
from polyact.policies.spec import Body, Spec
from polyact.spaces import Discrete

T = TypeVar("T")


class Target(eqx.Module):
    """How the copy that gives the targets follows: renewed every `every` updates (one iteration), or moved by `rate` at each."""

    every: int | None = eqx.field(static=True, default=250)
    rate: float | None = None

    def __check_init__(self):
        if (self.every is None) == (self.rate is None):
            raise PolyactError(
                f"a target is renewed every so many updates or moved at a rate: set one, got {self.every}, {self.rate}"
            )
        at_least_one(every=1 if self.every is None else self.every)

    def follow(self, target: T, online: T, count: Int[Array, ""]) -> T:
        """The target after `count` updates."""
        if self.every is None:
            return tree.ema(target, online, 0.0 if self.rate is None else self.rate)
        renewed = count % self.every == 0
        old, rest = tree.trainable(target)
        new, _ = tree.trainable(online)
        return tree.combine(jax.tree.map(lambda a, b: jnp.where(renewed, b, a), old, new), rest)


class FittedQState(eqx.Module):
    """q: a GreedyQ (iteration) or a QFunction (evaluation); target: its copy that stands still."""

    q: Any
    target: Any
    optimiser: OptimiserState


class FQI(Learner):
    """Q of the best policy, by regression on r + discount * max Q of the copy."""

    needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")
    network: Network = Network()
    optimiser: Optimiser = Optimiser(1e-3)
    discount: float = 0.99
    target: Target = Target()
    batches: Sampling = Transitions()

    def sampling(self, spec: Spec) -> Sampling:
        return self.batches

    def init(self, spec: Spec, key: PRNGKeyArray) -> FittedQState:
        q = GreedyQ.create(spec, self.network, key)
        return FittedQState(q, q, self.optimiser.init(q, spec.steps))

    def update(self, state: FittedQState, batch: Batch, key: PRNGKeyArray) -> tuple[FittedQState, Metrics]:
        wanted = greedy_target(batch, state.target, state.target, self.discount)
        return _regress(state, lambda q: of_logged(q, batch)[1], wanted, self.optimiser, self.target)

    def policy(self, state: FittedQState) -> GreedyQ:
        return state.q


class QFunction(eqx.Module):
    """Values of actions. network: features [O] -> [A] for one discrete choice, else (features, action features) [O + A] -> [1]."""

    body: Body
    network: Callable

    @classmethod
    def create(cls, spec: Spec, network: Network, key: PRNGKeyArray) -> "QFunction":
        """Fresh weights for the one body of the spec."""
        body, width = spec.body, spec.action_width
        one_choice = isinstance(body.action_space, Discrete)
        inputs, outputs = (body.observation_width, width) if one_choice else (body.observation_width + width, 1)
        return cls(body, network.build(inputs, outputs, key))

    def q(self, observation: Any, action: Any) -> Float[Array, "B"]:
        """Values of B actions in B observations."""
        features = jax.vmap(self.body.features)(observation)
        taken = action_features(self.body, action)
        if isinstance(self.body.action_space, Discrete):
            return (jax.vmap(self.network)(features) * taken).sum(1)
        return jax.vmap(self.network)(jnp.concatenate([features, taken], axis=1))[:, 0]

    def v(self, policy: Policy, observation: Any, samples: int, key: PRNGKeyArray) -> Float[Array, "B"]:
        """Mean over the policy's actions in B observations: exact where a stochastic policy has one discrete choice, else of `samples`."""
        space = self.body.action_space
        if isinstance(space, Discrete) and isinstance(policy, StochasticPolicy):
            every = jnp.arange(space.n) + space.start
            chances = jnp.exp(jax.vmap(lambda o: jax.vmap(lambda a: policy.log_prob(o, a))(every))(observation))
            values = jax.vmap(lambda o: self.network(self.body.features(o)))(observation)
            return (chances * values).sum(1)
        count = len(jax.tree.leaves(observation)[0])

        def one(key: PRNGKeyArray) -> Float[Array, "B"]:
            return self.q(observation, jax.vmap(lambda o, k: policy.act(o, None, k)[0])(observation, jax.random.split(key, count)))

        return jax.vmap(one)(jax.random.split(key, samples)).mean(0)


class FQE(Trainable):
    """Q of `policy`, by regression on r + discount * V of the copy; `evaluation.learned_values` turns the result into estimates.

    policy: memoryless; it is not trained. samples: actions drawn for V where it is not a sum over classes (see `QFunction.v`).
    """

    needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")
    policy: Policy
    network: Network = Network()
    optimiser: Optimiser = Optimiser(1e-3)
    discount: float = 0.99
    samples: int = eqx.field(static=True, default=1)
    target: Target = Target()
    batches: Sampling = Transitions()

    def __check_init__(self):
        at_least_one(samples=self.samples)

    def sampling(self, spec: Spec) -> Sampling:
        return self.batches

    def init(self, spec: Spec, key: PRNGKeyArray) -> FittedQState:
        if jax.tree.leaves(eqx.filter_eval_shape(self.policy.start, key)):
            raise PolyactError(f"fitted Q evaluation needs a policy without memory, {type(self.policy).__name__} has one")
        q = QFunction.create(spec, self.network, key)
        return FittedQState(q, q, self.optimiser.init(q, spec.steps))

    def update(self, state: FittedQState, batch: Batch, key: PRNGKeyArray) -> tuple[FittedQState, Metrics]:
        value = state.target.v(self.policy, batch.next_observation, self.samples, key)
        wanted = td_target(batch.reward, batch.bootstrap, value, self.discount)
        return _regress(state, lambda q: q.q(batch.observation, batch.action), wanted, self.optimiser, self.target)


def _regress(
    state: FittedQState,
    prediction: Callable[[Any], Float[Array, "B"]],
    wanted: Float[Array, "B"],
    optimiser: Optimiser,
    target: Target,
) -> tuple[FittedQState, Metrics]:
    """One step of the regression, after which the copy follows."""

    def loss(q: Any) -> tuple[Array, Metrics]:
        found = prediction(q)
        error = squared_error(found, wanted)
        return error, {"loss": error, "q": found.mean()}

    q, moved, metrics = descend(loss, state.q, optimiser, state.optimiser)
    return FittedQState(q, target.follow(state.target, q, moved.count), moved), metrics
