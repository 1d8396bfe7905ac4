"""What is true of a tabular world whose transitions an adversary may move: worst kernels, robust values and robust policies, computed.

Each row p(. | s, a) may be moved by an L1 distance of at most radius[s, a], and never onto a state that the nominal row rules out. Float64
NumPy as in `exact.py`; rewards are maximised, the adversary minimises. Rewards may depend on the next state [S, A, S].
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from polyact.envs.exact import Table, Values
from polyact.envs.tabular import Tabular
from polyact.errors import PolyactError

Kernel = Float[np.ndarray, "S A S"]


@dataclass(frozen=True)
class RobustSolution:
    """values [S] and action_values [S, A] under the worst kernel [S, A, S], the policy [S, A] that they belong to, and the sweeps."""

    values: Values
    action_values: Table
    policy: Table
    kernel: Kernel
    iterations: int


def nominal(env: Tabular) -> Kernel:
    """The rows of an environment in float64, each of sum 1. Raises PolyactError when the world has terminal states."""
    if np.any(np.asarray(env.terminal)):
        raise PolyactError("robust solutions are for worlds that never end: make a terminal state one that stays and earns nothing")
    table = np.asarray(env.transition, np.float64)
    return table / table.sum(-1, keepdims=True)


def worst_rows(kernel: Kernel, radius: Table, gain: Float[np.ndarray, "S A S"]) -> Kernel:
    """For each (s, a) the row within L1 distance `radius` of the nominal one with the smallest expected `gain`.

    As much mass as the radius allows, half of it, goes to the support's worst state, taken from its best states first.
    """
    support = kernel > 0
    target = np.where(support, gain, np.inf).argmin(-1)
    room = 1 - np.take_along_axis(kernel, target[..., None], -1)[..., 0]
    moved = np.minimum(np.asarray(radius, np.float64) / 2, room)
    order = np.argsort(-np.where(support, gain, -np.inf), axis=-1, kind="stable")
    sorted_rows = np.take_along_axis(kernel, order, -1)
    sorted_rows = np.where(order == target[..., None], 0.0, sorted_rows)
    before = np.cumsum(sorted_rows, -1) - sorted_rows
    taken = np.zeros_like(kernel)
    np.put_along_axis(taken, order, np.clip(moved[..., None] - before, 0.0, sorted_rows), -1)
    added = np.zeros_like(kernel)
    np.put_along_axis(added, target[..., None], moved[..., None], -1)
    return kernel - taken + added


def robust_values(
    env: Tabular, policy: np.ndarray, radius: np.ndarray, discount: float, tolerance: float = 1e-10
) -> RobustSolution:
    """What a policy [S, A] earns under the kernel that is worst for it, radius [S, A]: policy iteration of the adversary, exact."""
    base, policy = nominal(env), np.asarray(policy, np.float64)
    _check(base, policy, radius, discount)
    kernel = base
    for round_ in range(1, 10_000):
        values = values_under(env, kernel, policy, discount)
        gain = _gain(env, values, discount)
        worse = worst_rows(base, radius, gain)
        better = (kernel * gain).sum(-1) - (worse * gain).sum(-1) > tolerance * (1 + np.abs(gain).max())
        if not better.any():
            return RobustSolution(values, (kernel * gain).sum(-1), policy, kernel, round_)
        kernel = np.where(better[..., None], worse, kernel)
    raise PolyactError("the adversary did not settle: choose a larger tolerance")


def robust_value_iteration(
    env: Tabular, radius: np.ndarray, discount: float, tolerance: float = 1e-9, sweeps: int = 1_000_000
) -> RobustSolution:
    """The policy that is best against its worst kernel, radius [S, A], to `tolerance` (Iyengar 2005; Nilim and El Ghaoui 2005).

    A deterministic one exists, because the adversary moves each (s, a) apart. Raises PolyactError when `sweeps` do not suffice.
    """
    base = nominal(env)
    _check(base, base.sum(-1), radius, discount)
    values = np.zeros(len(base))
    for sweep in range(1, sweeps + 1):
        gain = _gain(env, values, discount)
        kernel = worst_rows(base, radius, gain)
        table = (kernel * gain).sum(-1)
        change = np.max(np.abs(table.max(1) - values))
        values = table.max(1)
        if discount / (1 - discount) * change <= tolerance:
            return RobustSolution(values, table, np.eye(table.shape[1])[table.argmax(1)], kernel, sweep)
    raise PolyactError(f"robust value iteration did not reach {tolerance:g} in {sweeps} sweeps")


def values_under(env: Tabular, kernel: Kernel, policy: Table, discount: float) -> Values:
    """The policy's values were the transitions those of `kernel`."""
    chain = np.einsum("sa,sat->st", policy, kernel)
    reward = np.einsum("sa,sat,sat->s", policy, kernel, _rewards(env))
    return np.linalg.solve(np.eye(len(kernel)) - discount * chain, reward)


def _rewards(env: Tabular) -> Kernel:
    reward = np.asarray(env.reward, np.float64)
    return np.broadcast_to(reward[..., None] if reward.ndim == 2 else reward, env.transition.shape)


def _gain(env: Tabular, values: Values, discount: float) -> Kernel:
    """What going to each next state earns and is worth."""
    return _rewards(env) + discount * values


def _check(kernel: Kernel, policy: np.ndarray, radius: np.ndarray, discount: float) -> None:
    if not 0 <= discount < 1:
        raise PolyactError(f"robust solutions need a discount in [0, 1), got {discount}")
    if np.shape(radius) != kernel.shape[:2] or policy.shape != kernel.shape[:2]:
        raise PolyactError(f"radius and policy must have shape {kernel.shape[:2]}, got {np.shape(radius)} and {policy.shape}")
    if np.any(np.asarray(radius) < 0):
        raise PolyactError(f"radius must not be negative, got {np.min(radius)}")
