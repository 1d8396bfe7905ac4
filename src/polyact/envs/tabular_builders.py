"""Small worlds with a name in the literature, as tables: what exact methods are tried on and sampled ones are checked against."""

import math
from itertools import pairwise

import numpy as np

from polyact.envs import mazes
from polyact.envs.tabular import Layout, Tabular
from polyact.errors import PolyactError

FOUR_ROOMS = """
#############
#.....#.....#
#.....#.....#
#...........#
#.....#.....#
#.....#.....#
##.####.....#
#.....###G###
#.....#.....#
#.....#.....#
#...........#
#.....#.....#
#############"""

FROZEN_LAKE = """
SFFF
FHFH
FFFH
HFFG"""

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1), (0, 0))
"""(row, column) of up, down, left, right, then the diagonals, then staying."""


def chain(length: int = 5, slip: float = 0.2, small: float = 2.0, large: float = 10.0, horizon: int = 1000) -> Tabular:
    """Walk to the far end for the large reward, or turn back at once for the small one (Strens 2000).

    Action 0 goes one state on, and in the last state stays and earns `large`; action 1 returns to state 0 and earns `small`. With
    probability `slip` the other action happens. Never ends. Always going on is optimal and earns 3.6768 per step in the long run.
    """
    _at_least("length", length, 2)
    _share("slip", slip)
    on, back = np.zeros((2, length, length))
    on[np.arange(length), np.minimum(np.arange(length) + 1, length - 1)] = 1
    back[:, 0] = 1
    certain = np.stack([on, back], 1)
    reward = np.zeros(certain.shape)
    reward[:, :, 0] = small
    reward[-1, :, -1] = large
    transition = (1 - slip) * certain + slip * certain[:, ::-1]
    return _continuing(transition, reward, _one_hot(0, length), horizon)


def grid_world(
    text: str, slip: float = 0.0, moves: int = 4, step_reward: float = 0.0, goal_reward: float = 1.0, horizon: int = 200
) -> Tabular:
    """A map of `#` walls, `.` free cells, `S` starts (without one: every free cell but the goals) and at least one goal `G`, which ends.

    Free cells are the states, row by row. moves = 4 (up, down, left, right), 8 (with diagonals) or 9 (with staying). A move into a
    wall stays. With probability `slip` one of the other moves happens instead, each equally likely.
    """
    _share("slip", slip)
    actions = _moves(moves)
    text = mazes.layout(text)
    if "G" not in text:
        raise PolyactError("a grid world needs a goal: mark at least one cell of the map with G")
    maze = mazes.read(text)
    cells = np.argwhere(~maze.walls)
    number = np.full(maze.walls.shape, -1)
    number[tuple(cells.T)] = np.arange(len(cells))
    certain = np.zeros((len(cells), len(actions), len(cells)))
    for state, cell in enumerate(cells):
        for action, move in enumerate(actions):
            reached = number[tuple(cell + move)]
            certain[state, action, reached if reached >= 0 else state] = 1
    others = (certain.sum(1, keepdims=True) - certain) / (len(actions) - 1)
    goals = np.isin(np.arange(len(cells)), [number[tuple(goal)] for goal in maze.goals])
    starts = np.isin(np.arange(len(cells)), [number[tuple(start)] for start in maze.starts]) & ~goals
    reward = np.full(certain.shape, step_reward) + goal_reward * goals
    layout = _map(cells, np.argwhere(maze.walls))
    return Tabular((1 - slip) * certain + slip * others, reward, starts / starts.sum(), goals, layout, horizon)


def four_rooms(slip: float = 1 / 3, step_reward: float = 0.0, goal_reward: float = 1.0, horizon: int = 200) -> Tabular:
    """Four rooms joined by hallways, the goal in the hallway on the east side (Sutton, Precup and Singh 1999, section 2)."""
    return grid_world(FOUR_ROOMS, slip, 4, step_reward, goal_reward, horizon)


def frozen_lake(text: str = FROZEN_LAKE, slip: float = 2 / 3, horizon: int = 100) -> Tabular:
    """Cross the ice from S to G without falling into a hole H (FrozenLake-v1 of Gymnasium); reward 1 at the goal, which ends, as holes do.

    text: lines of equal length of S, F (ice), H and G. Actions: left, down, right, up. With probability `slip` the move goes to one of
    the two sides instead, each equally likely.
    """
    _share("slip", slip)
    rows = text.strip("\n").split("\n")
    if len({len(row) for row in rows}) > 1 or not {"S", "G"} <= set("".join(rows)) <= set("SFHG"):
        raise PolyactError(f"a frozen lake needs lines of equal length of S, F, H and G, with an S and a G, got {rows}")
    letters = np.array([list(row) for row in rows])
    moves = ((0, -1), (1, 0), (0, 1), (-1, 0))
    cells = np.argwhere(letters != "")
    transition = np.zeros((len(cells), 4, len(cells)))
    for state, cell in enumerate(cells):
        for action in range(4):
            for turn, probability in ((0, 1 - slip), (1, slip / 2), (-1, slip / 2)):
                row, column = np.clip(cell + moves[(action + turn) % 4], 0, np.array(letters.shape) - 1)
                transition[state, action, row * letters.shape[1] + column] += probability
    flat = letters.reshape(-1)
    reward = np.broadcast_to((flat == "G").astype(float), transition.shape)
    starts = (flat == "S") / (flat == "S").sum()
    return Tabular(transition, reward, starts, np.isin(flat, ["H", "G"]), _map(cells, np.argwhere(letters == "H")), horizon)


def windy_grid(moves: int = 4, gust: float = 0.0, horizon: int = 200) -> Tabular:
    """Cross a 7 by 10 field under a wind that blows upwards (Sutton and Barto, 2nd edition, example 6.5); reward -1 for each step.

    The wind of the column that is left adds its strength to the move. moves = 4, 8 (king's moves, exercise 6.9) or 9. Where there is
    wind it is one stronger or one weaker with probability `gust` each (1/3 in exercise 6.10). The shortest way takes 15 steps.
    """
    if not 0 <= gust <= 0.5:
        raise PolyactError(f"gust must lie in [0, 0.5], got {gust}")
    actions = _moves(moves)
    rows, wind = 7, np.array([0, 0, 0, 1, 1, 1, 2, 2, 1, 0])
    cells = np.argwhere(np.ones((rows, len(wind))))
    transition = np.zeros((len(cells), len(actions), len(cells)))
    for state, (row, column) in enumerate(cells):
        strengths = ((wind[column], 1 - 2 * gust), (wind[column] + 1, gust), (wind[column] - 1, gust))
        for strength, probability in strengths if wind[column] else ((0, 1.0),):
            for action, (down, right) in enumerate(actions):
                reached = np.clip(row + down - strength, 0, rows - 1), np.clip(column + right, 0, len(wind) - 1)
                transition[state, action, reached[0] * len(wind) + reached[1]] += probability
    start, goal = 3 * len(wind) + 0, 3 * len(wind) + 7
    reward = np.full(transition.shape[:2], -1.0)
    goals = _one_hot(goal, len(cells)) > 0
    return Tabular(transition, reward, _one_hot(start, len(cells)), goals, _map(cells, np.zeros((0, 2))), horizon)


def combination_lock(length: int = 8, actions: int = 2, seed: int = 0, horizon: int = 200) -> Tabular:
    """Enter a code of `length` actions, drawn from `seed`; a wrong action starts over (Koenig and Simmons 1993; Kakade 2003).

    Reward 1 when the lock opens, which ends. Random actions need (actions^(length + 1) - actions) / (actions - 1) steps on average.
    """
    _at_least("length", length, 1)
    _at_least("actions", actions, 2)
    code = np.random.default_rng(seed).integers(actions, size=length)
    transition = np.zeros((length + 1, actions, length + 1))
    transition[:, :, 0] = 1
    transition[np.arange(length), code] = np.eye(length + 1)[1:]
    opened = _one_hot(length, length + 1)
    return Tabular(transition, np.broadcast_to(opened, transition.shape), _one_hot(0, length + 1), opened > 0, None, horizon)


def inventory(
    capacity: int = 20,
    demand: float = 6.0,
    price: float = 4.0,
    unit_cost: float = 2.0,
    order_cost: float = 4.0,
    holding_cost: float = 0.5,
    horizon: int = 100,
) -> Tabular:
    """Order stock against Poisson demand; what is asked for and not there is lost (Puterman 1994, section 3.2).

    State: items in stock, 0 .. capacity. Action: items to order, cut to the space that is left; they arrive before the demand.
    Reward: price * sold - order_cost (when anything is ordered) - unit_cost * ordered - holding_cost * (stock with the order). The
    optimal policy orders up to one level as soon as the stock is at or below another.
    """
    _at_least("capacity", capacity, 1)
    if not demand > 0:
        raise PolyactError(f"demand must be positive, got {demand}")
    levels = np.arange(capacity + 1)
    ordered = np.minimum(levels[None, :], capacity - levels[:, None])
    filled = levels[:, None] + ordered
    weights = np.array([math.exp(k * math.log(demand) - demand - math.lgamma(k + 1)) for k in range(capacity + 1)])
    left = np.zeros((capacity + 1, capacity + 1))  # from filled level to level after the demand
    for level in levels:
        left[level, 1 : level + 1] = weights[:level][::-1]
        left[level, 0] = 1 - left[level].sum()
    sold = filled[:, :, None] - levels
    spent = order_cost * (ordered > 0) + unit_cost * ordered + holding_cost * filled
    return _continuing(left[filled], price * sold - spent[:, :, None], _one_hot(0, capacity + 1), horizon)


def machine_replacement(
    conditions: int = 8, wear: float = 0.3, income: float = 10.0, decay: float = 1.5, price: float = 20.0, horizon: int = 100
) -> Tabular:
    """Run an ageing machine or replace it (Puterman 1994, section 4.7.5).

    State: condition, 0 is new. Action 0 runs it: it earns income - decay * condition and gets one worse with probability `wear`.
    Action 1 replaces it: it costs `price`, and a new machine runs in this very period. The optimal policy replaces from some condition on.
    """
    _at_least("conditions", conditions, 2)
    _share("wear", wear)
    condition = np.arange(conditions)
    transition = np.zeros((conditions, 2, conditions))
    transition[condition, 0, condition] += 1 - wear
    transition[condition, 0, np.minimum(condition + 1, conditions - 1)] += wear
    transition[:, 1] = transition[0, 0]
    reward = np.stack([income - decay * condition, np.full(conditions, income - price)], 1)
    return _continuing(transition, reward, _one_hot(0, conditions), horizon)


def garnet(states: int = 20, actions: int = 4, branching: int = 3, seed: int = 0, horizon: int = 100) -> Tabular:
    """A random world: from each state and action `branching` states can follow, with random probabilities (Archibald et al. 1995).

    Probabilities are the gaps between sorted uniform numbers, rewards of state and action are standard normal, the start is uniform.
    """
    _at_least("states", states, 1)
    _at_least("actions", actions, 1)
    if not 1 <= branching <= states:
        raise PolyactError(f"branching must lie between 1 and the number of states, {states}, got {branching}")
    generator = np.random.default_rng(seed)
    transition = np.zeros((states, actions, states))
    for row in transition.reshape(-1, states):
        cuts = np.sort(generator.random(branching - 1))
        gaps = [after - before for before, after in pairwise([0.0, *cuts, 1.0])]
        row[generator.choice(states, branching, replace=False)] = gaps
    return _continuing(transition, generator.standard_normal((states, actions)), np.full(states, 1 / states), horizon)


def _continuing(transition: np.ndarray, reward: np.ndarray, initial: np.ndarray, horizon: int) -> Tabular:
    return Tabular(transition, reward, initial, np.zeros(len(initial), bool), None, horizon)


def _one_hot(place: int, count: int) -> np.ndarray:
    return np.eye(count)[place]


def _map(cells: np.ndarray, walls: np.ndarray) -> Layout:
    """Rows and columns, counted from the top, as a picture's x and y."""
    places, squares = (tuple((float(column), -float(row)) for row, column in group) for group in (cells, walls))
    return Layout(places, squares)


def _moves(count: int) -> np.ndarray:
    if count not in (4, 8, 9):
        raise PolyactError(f"moves must be 4, 8 (with diagonals) or 9 (with staying), got {count}")
    return np.array(MOVES[:count])


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise PolyactError(f"{name} must be at least {least}, got {value}")


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise PolyactError(f"{name} must lie in [0, 1], got {value}")
