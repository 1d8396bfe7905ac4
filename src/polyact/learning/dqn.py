"""Deep Q-learning (Mnih et al. 2015) with double Q targets (arXiv 1509.06461); n-step returns through `batches`."""

from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray

from polyact import tree
from polyact.data.sampling import Batch, Sampling, Transitions
from polyact.errors import PolyactError
from polyact.learning.base import Metrics, OffPolicyLearner
from polyact.learning.greedy_q import GreedyQ, falling, greedy_target, of_logged
from polyact.learning.losses import huber
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.mlp import Network
from polyact.policies.spec import Spec


class DQNState(eqx.Module):
    online: GreedyQ
    target: GreedyQ
    optimiser: OptimiserState


class DQN(OffPolicyLearner):
    """For one discrete choice. Explores with probability epsilon, which falls from `first_epsilon` to `last_epsilon` over the first
    `exploration` of all updates. double: the online network chooses the next action and the target network values it. The target
    follows the online network at `target_rate` per update. batches: Transitions(), or NStep(n, discount) with the same discount.
    """

    needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")
    network: Network = Network(width=128)
    optimiser: Optimiser = Optimiser(learning_rate=1e-3, clip_norm=10.0)
    discount: float = 0.99
    target_rate: float = 0.01
    double: bool = eqx.field(static=True, default=True)
    first_epsilon: float = 1.0
    last_epsilon: float = 0.05
    exploration: float = 0.3
    batches: Sampling = Transitions()

    def __check_init__(self):
        shares = (self.first_epsilon, self.last_epsilon, self.exploration)
        if not any(isinstance(share, jax.Array) for share in shares) and not all(0 <= share <= 1 for share in shares):
            raise PolyactError(f"first_epsilon, last_epsilon and exploration must lie between 0 and 1, got {shares}")

    def sampling(self, spec: Spec) -> Sampling:
        return self.batches

    def init(self, spec: Spec, key: PRNGKeyArray) -> DQNState:
        online = GreedyQ.create(spec, self.network, key)
        return DQNState(online, online, self.optimiser.init(online, spec.steps))

    def update(self, state: DQNState, batch: Batch, key: PRNGKeyArray) -> tuple[DQNState, Metrics]:
        target = greedy_target(batch, state.online if self.double else state.target, state.target, self.discount)

        def loss(online: GreedyQ) -> tuple[Array, Metrics]:
            _, q = of_logged(online, batch)
            return huber(q, target), {"loss": huber(q, target), "q": q.mean()}

        online, optimiser, metrics = descend(loss, state.online, self.optimiser, state.optimiser)
        return DQNState(online, tree.ema(state.target, online, self.target_rate), optimiser), metrics

    def policy(self, state: DQNState) -> GreedyQ:
        return state.online

    def explore(self, state: DQNState, observation: Any, key: PRNGKeyArray) -> Array:
        count, total = state.optimiser.count, state.optimiser.total
        epsilon = falling(count, total, self.first_epsilon, self.last_epsilon, self.exploration)
        return state.online.explore(observation, epsilon, key)
