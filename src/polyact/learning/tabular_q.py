"""Q-learning on a table (Watkins 1989): the method whose limit is known exactly, `envs.exact.value_iteration`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact import spaces
from polyact.errors import PolyactError
from polyact.learning.base import Decision, Metrics, OnPolicyLearner, Trajectory
from polyact.learning.greedy_q import GreedyQ, discrete_body, falling
from polyact.nets.layers import Linear
from polyact.policies.base import Memory
from polyact.policies.spec import Body, Spec


class TabularQState(eqx.Module):
    """values [S, A]; visits [S, A]: updates each entry had; count: calls of `update` so far, of `total`."""

    body: Body
    values: Float[Array, "S A"]
    visits: Int[Array, "S A"]
    count: Int[Array, ""]
    total: Int[Array, ""]


class TabularQ(OnPolicyLearner):
    """For Discrete observations and actions. Every step of the rollout moves its entry towards r + discount max Q, in order.

    learning_rate: of an entry's first update; its k-th has learning_rate / k^decay. With decay in (1/2, 1] and every entry visited
    forever the values converge to the optimal ones (Even-Dar & Mansour 2003); 0 is a constant rate. Exploration as in DQN.
    initial_value: what every entry begins with; high ones explore.
    """

    discount: float = 0.99
    learning_rate: float = 1.0
    decay: float = 0.8
    first_epsilon: float = 1.0
    last_epsilon: float = 0.1
    exploration: float = 0.5
    initial_value: float = 0.0
    rollout_length: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if not isinstance(self.learning_rate, jax.Array) and not 0 < self.learning_rate <= 1:
            raise PolyactError(f"learning_rate must lie in (0, 1], got {self.learning_rate}")

    def init(self, spec: Spec, key: PRNGKeyArray) -> TabularQState:
        if not isinstance(spec.observation_space, spaces.Discrete):
            raise PolyactError(f"a table of values needs Discrete observations, got {spec.observation_space}")
        body = discrete_body(spec)
        shape = body.observation_width, body.action_width
        zero = jnp.zeros((), jnp.int32)
        return TabularQState(
            body,
            jnp.full(shape, self.initial_value, jnp.float32),
            jnp.zeros(shape, jnp.int32),
            zero,
            jnp.asarray(spec.steps, jnp.int32),
        )

    def policy(self, state: TabularQState) -> GreedyQ:
        return GreedyQ(state.body, Linear(state.values, jnp.zeros(state.values.shape[1])))

    def start(self, state: TabularQState, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, state: TabularQState, observation: Any, memory: Memory, key: PRNGKeyArray) -> tuple[Decision, Memory]:
        epsilon = falling(state.count, state.total, self.first_epsilon, self.last_epsilon, self.exploration)
        return Decision(self.policy(state).explore(observation, epsilon, key)), memory

    def update(self, state: TabularQState, trajectory: Trajectory, key: PRNGKeyArray) -> tuple[TabularQState, Metrics]:
        first = state.body.observation_space.start  # pyright: ignore[reportAttributeAccessIssue]
        taken = jax.vmap(jax.vmap(state.body.code))(trajectory.action)[..., 0]
        columns = (
            trajectory.observation - first,
            taken,
            trajectory.reward,
            trajectory.next_observation - first,
            trajectory.terminated,
        )

        def step(tables: tuple[Array, Array], row: Any) -> tuple[tuple[Array, Array], Array]:
            values, visits = tables
            now, action, reward, following, terminated = row
            visits = visits.at[now, action].add(1)
            rate = self.learning_rate / visits[now, action] ** self.decay
            error = reward + self.discount * (1 - terminated) * values[following].max() - values[now, action]
            return (values.at[now, action].add(rate * error), visits), error

        flat = jax.tree.map(lambda column: column.reshape(-1), columns)
        (values, visits), errors = jax.lax.scan(step, (state.values, state.visits), flat)
        state = TabularQState(state.body, values, visits, state.count + 1, state.total)
        return state, {"td_error": jnp.abs(errors).mean(), "value": values.max(1).mean()}
