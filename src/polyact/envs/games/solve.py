"""What is true of a game given as a tree: reach, values, best responses, NashConv; float64, one sweep over levels each.

A policy is an array of probabilities [I, A] over all information states of all players.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from polyact.envs.games.tree import Tree
from polyact.errors import PolyactError

Policy = Float[np.ndarray, "I A"]


def reach(tree: Tree, policy: Policy) -> Float[np.ndarray, "N Q"]:
    """Probability that each player in turn, and nature last, does its part on the way to a node: Q = P + 1 columns."""
    step = step_probabilities(tree, policy)
    found = np.ones((len(tree.parent), tree.players + 1))
    mover = tree.player[tree.parent]
    column = np.where(mover < 0, tree.players, mover)
    for start, end in _levels(tree)[1:]:
        found[start:end] = found[tree.parent[start:end]]
        found[np.arange(start, end), column[start:end]] *= step[start:end]
    return found


def values(tree: Tree, policy: Policy) -> Float[np.ndarray, "N P"]:
    """Expected payoffs from every node on when everybody follows the policy; row 0 is the game's value."""
    return _backed_up(tree, step_probabilities(tree, policy))


def state_weights(tree: Tree, policy: Policy) -> Float[np.ndarray, " N"]:
    """P(node | its information state, policy): the posterior, by Bayes' rule from all moves but the player's own.

    Where the others' moves never lead to an information state its nodes get equal weights; nodes where nobody chooses get 0.
    """
    others, chosen = _others(tree, reach(tree, policy)), tree.state >= 0
    weight, count = np.where(chosen, others, 0.0), len(tree.owner)
    total = np.bincount(tree.state[chosen], weight[chosen], count)
    nodes = np.bincount(tree.state[chosen], minlength=count)
    at = tree.state[chosen]
    weight[chosen] = np.where(total[at] > 0, weight[chosen] / np.where(total[at] > 0, total[at], 1), 1 / nodes[at])
    return weight


def action_values(tree: Tree, policy: Policy) -> Policy:
    """q(h, a): the expected payoff of h's player when the state is drawn from P(state | h, policy), a is played once, and then
    everybody, oneself included, follows the policy. Illegal actions have 0."""
    after = values(tree, policy)
    return _collect(tree, state_weights(tree, policy), after)


def best_response(tree: Tree, policy: Policy, player: int) -> tuple[Policy, float]:
    """The best policy of one player against the others, who stay (theirs is in the result too), and its value to that player.

    Raises PolyactError where the player forgets what it did, for then choices can't be made one information state at a time.
    """
    _check_recall(tree, player)
    weight, best = _others_alone(tree, policy, player), policy.copy()
    step = step_probabilities(tree, policy)
    after = tree.payoff[:, player].copy()
    for start, end in reversed(_levels(tree)):
        mine = (tree.player[start:end] == player).nonzero()[0] + start
        if len(mine):
            children = np.flatnonzero(np.isin(tree.parent, mine))
            gain = np.full(tree.legal.shape, 0.0)
            np.add.at(gain, (tree.state[tree.parent[children]], tree.action[children]), weight[children] * after[children])
            rows = np.unique(tree.state[mine])
            choice = np.where(tree.legal[rows], gain[rows], -np.inf).argmax(1)
            best[rows] = np.eye(tree.legal.shape[1])[choice]
            step[children] = best[tree.state[tree.parent[children]], tree.action[children]]
            after[mine] = np.bincount(tree.parent[children], step[children] * after[children], len(after))[mine]
        if start:
            others = tree.parent[start:end][tree.player[tree.parent[start:end]] != player]
            moved = np.flatnonzero(tree.player[tree.parent[start:end]] != player) + start
            np.add.at(after, others, step[moved] * after[moved])
    return best, float(after[0])


def nash_conv(tree: Tree, policy: Policy) -> float:
    """What the players could gain by deviating alone, summed over players: 0 exactly at a Nash equilibrium."""
    now = values(tree, policy)[0]
    return float(sum(best_response(tree, policy, player)[1] - now[player] for player in range(tree.players)))


def exploitability(tree: Tree, policy: Policy) -> float:
    """NashConv per player: in a two-player zero-sum game, what a best responder wins on average over both seats beyond the value."""
    return nash_conv(tree, policy) / tree.players


def step_probabilities(tree: Tree, policy: Policy) -> Float[np.ndarray, " N"]:
    """Probability of the step that leads to each node."""
    if policy.shape != tree.legal.shape:
        raise PolyactError(f"a policy for this game has shape {tree.legal.shape}, got {policy.shape}")
    if np.any(policy < 0) or np.any(policy[~tree.legal] > 0) or not np.allclose(policy.sum(1), 1, atol=1e-5):
        raise PolyactError("every row of a policy must be probabilities of legal actions that sum to 1")
    chosen = tree.state[tree.parent] >= 0
    chosen[0] = False
    step = tree.chance.copy()
    step[chosen] = policy[tree.state[tree.parent[chosen]], tree.action[chosen]]
    return step


def _levels(tree: Tree) -> list[tuple[int, int]]:
    return list(zip(tree.level[:-1].tolist(), tree.level[1:].tolist(), strict=True))


def _backed_up(tree: Tree, step: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N P"]:
    after = tree.payoff.copy()
    for start, end in reversed(_levels(tree)[1:]):
        np.add.at(after, tree.parent[start:end], step[start:end, None] * after[start:end])
    return after


def _others(tree: Tree, reached: Float[np.ndarray, "N Q"]) -> Float[np.ndarray, " N"]:
    """Reach without the part of the player who moves at the node."""
    alone = np.ones_like(reached, dtype=bool)
    mover = np.flatnonzero(tree.player >= 0)
    alone[mover, tree.player[mover]] = False
    return np.where(alone, reached, 1.0).prod(1)


def _others_alone(tree: Tree, policy: Policy, player: int) -> Float[np.ndarray, " N"]:
    """Reach without the part of one given player."""
    return np.delete(reach(tree, policy), player, axis=1).prod(1)


def _collect(tree: Tree, weight: Float[np.ndarray, " N"], after: Float[np.ndarray, "N P"]) -> Policy:
    """Weighted values of the nodes that follow each (information state, action), of the player who chooses."""
    children = np.flatnonzero(tree.state[tree.parent] >= 0)
    children = children[children > 0]
    above = tree.parent[children]
    found = np.zeros(tree.legal.shape)
    np.add.at(found, (tree.state[above], tree.action[children]), weight[above] * after[children, tree.player[above]])
    return found


def _check_recall(tree: Tree, player: int) -> None:
    """Perfect recall: all histories of an information state share the player's own last information state and action."""
    last = np.full((len(tree.parent), 2), -1)
    for start, end in _levels(tree)[1:]:
        above = tree.parent[start:end]
        moved = (tree.player[above] == player)[:, None]
        last[start:end] = np.where(moved, np.stack([tree.state[above], tree.action[start:end]], 1), last[above])
    mine = np.flatnonzero(tree.player == player)
    first = np.full((len(tree.owner), 2), -1)
    first[tree.state[mine]] = last[mine]
    if np.any(first[tree.state[mine]] != last[mine]):
        raise PolyactError(f"player {player} forgets what it did: a best response needs perfect recall")
