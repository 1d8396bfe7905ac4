"""Conservative Q-learning (arXiv 2006.04779) for one discrete choice: double Q-learning that presses down what is not in the data."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from polyact import tree
from polyact.data.sampling import Batch, Sampling, Transitions
from polyact.learning.base import Learner, Metrics
from polyact.learning.dqn import DQN, DQNState
from polyact.learning.greedy_q import GreedyQ, greedy_target, of_logged
from polyact.learning.losses import conservative_gap, huber
from polyact.learning.optimiser import Optimiser, descend
from polyact.nets.mlp import Network
from polyact.policies.spec import Spec


class DiscreteCQL(Learner):
    """CQL(H): the loss of double DQN plus `conservative` times (log-sum-exp of Q over all actions - Q of the logged one) (eq. 4)."""

    needs: ClassVar[tuple[str, ...]] = DQN.needs
    network: Network = Network()
    optimiser: Optimiser = Optimiser()
    discount: float = 0.99
    target_rate: float = 0.005
    conservative: float = 1.0
    batches: Sampling = Transitions()

    def sampling(self, spec: Spec) -> Sampling:
        return self.batches

    def init(self, spec: Spec, key: PRNGKeyArray) -> DQNState:
        online = GreedyQ.create(spec, self.network, key)
        return DQNState(online, online, self.optimiser.init(online, spec.steps))

    def update(self, state: DQNState, batch: Batch, key: PRNGKeyArray) -> tuple[DQNState, Metrics]:
        target = greedy_target(batch, state.online, state.target, self.discount)

        def loss(online: GreedyQ) -> tuple[Array, Metrics]:
            values, q = of_logged(online, batch)
            error, gap = huber(q, target), conservative_gap(values, q)
            return error + self.conservative * gap, {"loss": error, "gap": gap, "q": jnp.mean(q)}

        online, optimiser, metrics = descend(loss, state.online, self.optimiser, state.optimiser)
        return DQNState(online, tree.ema(state.target, online, self.target_rate), optimiser), metrics

    def policy(self, state: DQNState) -> GreedyQ:
        return state.online
