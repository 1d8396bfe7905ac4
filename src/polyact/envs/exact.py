"""What is true of a tabular world: optimal and given policies, values, occupancies and gradients, computed and not sampled.

Everything is float64 NumPy. The tables of a `Tabular` are float32, so each row of probabilities is brought back to sum 1 first; the
answers are exact for that model. Policies are arrays of probabilities [S, A]. Terminal states have value 0.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from polyact.envs.tabular import Tabular
from polyact.errors import PolyactError

Values = Float[np.ndarray, "S"]
Table = Float[np.ndarray, "S A"]


@dataclass(frozen=True)
class Model:
    """continuing [S, A, S]: probability of going on in that state (terminal ones removed, so rows may sum to less than 1); reward
    [S, A]: expected; initial [S]; terminal [S]."""

    continuing: np.ndarray
    reward: np.ndarray
    initial: np.ndarray
    terminal: np.ndarray

    @property
    def states(self) -> int:
        return self.reward.shape[0]

    @property
    def actions(self) -> int:
        return self.reward.shape[1]


@dataclass(frozen=True)
class Solution:
    """values [S] and action_values [S, A] of the optimal policy [S, A] (one-hot; among equals the first), and the sweeps it took."""

    values: Values
    action_values: Table
    policy: Table
    iterations: int


def model(env: Tabular) -> Model:
    """The tables of an environment in float64, with what follows a terminal state removed."""
    transition, reward, initial = (np.asarray(table, np.float64) for table in (env.transition, env.reward, env.initial))
    transition = transition / transition.sum(-1, keepdims=True)
    terminal = np.asarray(env.terminal)
    expected = reward if reward.ndim == 2 else np.einsum("ijk,ijk->ij", transition, reward)
    alive = ~terminal
    return Model(
        transition * alive[None, None, :] * alive[:, None, None],
        expected * alive[:, None],
        initial / initial.sum(),
        terminal,
    )


def action_values(env: Tabular, values: Values, discount: float) -> Table:
    """Q(s, a) = r(s, a) + discount * E V(s')."""
    mdp = model(env)
    return mdp.reward + discount * mdp.continuing @ values


def evaluate_policy(env: Tabular, policy: Table, discount: float) -> Values:
    """V of a policy, by solving the Bellman equations.

    Raises PolyactError when discount is 1 and the policy can go on forever, for then the equations have no solution.
    """
    mdp = model(env)
    matrix, reward = _chain(mdp, _checked(mdp, policy), discount)
    return np.linalg.solve(matrix, reward)


def expected_return(env: Tabular, policy: Table, discount: float) -> float:
    """The discounted return of a policy from the initial distribution."""
    return float(model(env).initial @ evaluate_policy(env, policy, discount))


def value_iteration(env: Tabular, discount: float, tolerance: float = 1e-10, sweeps: int = 1_000_000) -> Solution:
    """The optimal policy by repeated Bellman backups, until the values are within `tolerance` of the optimal ones.

    The bound is the contraction's, discount / (1 - discount) times the last change; with discount 1 the last change itself is taken.
    Raises PolyactError when that is not reached within `sweeps`.
    """
    mdp = model(env)
    _check_discount(discount)
    factor = discount / (1 - discount) if discount < 1 else 1.0
    values = np.zeros(mdp.states)
    for sweep in range(1, sweeps + 1):
        table = mdp.reward + discount * mdp.continuing @ values
        change = np.max(np.abs(table.max(1) - values))
        values = table.max(1)
        if factor * change <= tolerance:
            return Solution(values, table, _greedy(table), sweep)
    raise PolyactError(f"value iteration did not reach {tolerance:g} in {sweeps} sweeps; with discount 1 values may be infinite")


def policy_iteration(env: Tabular, discount: float) -> Solution:
    """The optimal policy by evaluating and improving in turn; ends after finitely many rounds with exact values.

    Needs discount < 1, or an environment in which every policy ends (else PolyactError from the evaluation).
    """
    mdp = model(env)
    policy = _greedy(mdp.reward)
    rounds = 0
    while True:
        rounds += 1
        matrix, reward = _chain(mdp, policy, discount)
        values = np.linalg.solve(matrix, reward)
        table = mdp.reward + discount * mdp.continuing @ values
        # An action that is better only by rounding must not be taken, or two equal policies could alternate forever.
        worse = table.max(1) > (policy * table).sum(1) + 1e-10 * (1 + np.abs(table).max())
        if not worse.any():
            return Solution(values, table, policy, rounds)
        policy = np.where(worse[:, None], _greedy(table), policy)


def occupancy(env: Tabular, policy: Table, discount: float) -> Table:
    """Expected discounted number of times (s, a) is taken: sum over t of discount^t Pr(s_t = s, a_t = a).

    The return is its inner product with the reward; in a world that never ends it sums to 1 / (1 - discount).
    """
    mdp = model(env)
    policy = _checked(mdp, policy)
    matrix, _ = _chain(mdp, policy, discount)
    return np.linalg.solve(matrix.T, mdp.initial)[:, None] * policy


def stationary(env: Tabular, policy: Table) -> Values:
    """The long-run share of time that a policy spends in each state of a world that never ends.

    Raises PolyactError when the world has terminal states, and when the share depends on where the policy starts.
    """
    mdp = model(env)
    if mdp.terminal.any():
        raise PolyactError(f"a stationary distribution needs a world that never ends; state {np.argmax(mdp.terminal)} is terminal")
    chain = np.einsum("ij,ijk->ik", _checked(mdp, policy), mdp.continuing)
    equations = np.concatenate([chain.T - np.eye(mdp.states), np.ones((1, mdp.states))])
    if np.linalg.matrix_rank(equations) < mdp.states:
        raise PolyactError("this policy has several stationary distributions: which states it stays in depends on where it starts")
    return np.linalg.lstsq(equations, np.eye(mdp.states + 1)[-1], rcond=None)[0]


def softmax_policy(logits: Table) -> Table:
    """Probabilities in proportion to exp(logits), row by row."""
    weights = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def policy_gradient(env: Tabular, logits: Table, discount: float) -> Table:
    """Gradient of the discounted return of `softmax_policy(logits)` with respect to the logits.

    d J / d logits(s, a) = occupancy(s, a) * advantage(s, a): the policy gradient theorem (Sutton et al. 2000) with tabular softmax.
    """
    policy = softmax_policy(logits)
    values = evaluate_policy(env, policy, discount)
    advantage = action_values(env, values, discount) - values[:, None]
    return occupancy(env, policy, discount) * advantage


def evaluate_finite(env: Tabular, policy: np.ndarray, horizon: int, discount: float = 1.0) -> Float[np.ndarray, "times S"]:
    """Values [horizon + 1, S] with t steps behind us, t = 0 .. horizon, of a policy [S, A], or of one for each time [horizon, S, A]."""
    mdp = model(env)
    policies = np.broadcast_to(policy, (horizon, mdp.states, mdp.actions))
    values = np.zeros((horizon + 1, mdp.states))
    for time in reversed(range(horizon)):
        values[time] = (policies[time] * (mdp.reward + discount * mdp.continuing @ values[time + 1])).sum(1)
    return values


def finite_return(env: Tabular, policy: np.ndarray, discount: float = 1.0) -> float:
    """The return of a policy [S, A] from the initial distribution within the world's own horizon."""
    return float(model(env).initial @ evaluate_finite(env, policy, env.horizon, discount)[0])


def solve_finite(env: Tabular, horizon: int, discount: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Optimal values [horizon + 1, S] and the optimal policy for each time [horizon, S, A], by backward induction."""
    mdp = model(env)
    values = np.zeros((horizon + 1, mdp.states))
    policy = np.zeros((horizon, mdp.states, mdp.actions))
    for time in reversed(range(horizon)):
        table = mdp.reward + discount * mdp.continuing @ values[time + 1]
        values[time], policy[time] = table.max(1), _greedy(table)
    return values, policy


def state_distributions(env: Tabular, policy: Table, horizon: int) -> Float[np.ndarray, "times S"]:
    """Probability [horizon, S] of being in each state, the task not having ended, at t = 0 .. horizon - 1."""
    mdp = model(env)
    chain = np.einsum("ij,ijk->ik", _checked(mdp, policy), mdp.continuing)
    rows = [mdp.initial]
    for _ in range(horizon - 1):
        rows.append(rows[-1] @ chain)
    return np.stack(rows)


def _chain(mdp: Model, policy: Table, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """I - discount * P and r of the Markov chain that a policy makes."""
    _check_discount(discount)
    chain = np.einsum("ij,ijk->ik", policy, mdp.continuing)
    if discount == 1 and not _ends(chain):
        raise PolyactError("discount 1 needs a policy that ends from every state; this one can go on forever")
    return np.eye(mdp.states) - discount * chain, (policy * mdp.reward).sum(1)


def _check_discount(discount: float) -> None:
    if not 0 <= discount <= 1:
        raise PolyactError(f"discount must lie in [0, 1], got {discount}")


def _ends(chain: np.ndarray) -> bool:
    """Whether every state can leave: a row that sums to less than 1 is reached from everywhere."""
    leaves = chain.sum(1) < 1 - 1e-12
    reaches = chain > 0
    while True:
        more = leaves | (reaches & leaves).any(1)
        if np.array_equal(more, leaves):
            return bool(leaves.all())
        leaves = more


def _greedy(table: Table) -> Table:
    return np.eye(table.shape[1])[np.argmax(table, 1)]


def _checked(mdp: Model, policy: Table) -> Table:
    policy = np.asarray(policy, np.float64)
    if policy.shape != mdp.reward.shape:
        raise PolyactError(f"a policy for this world has shape {mdp.reward.shape}, got {policy.shape}")
    if np.any(policy < 0) or not np.allclose(policy.sum(1), 1, atol=1e-5):
        raise PolyactError("every row of a policy must be probabilities that sum to 1")
    return policy
