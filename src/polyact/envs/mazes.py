"""Mazes as text: the built-in maps, reading them, and shortest ways through them.

One character is one cell: `#` wall, `.` or space free, `S` a start, `G` a goal. Without an S (or a G) every free cell is one.
"""

from collections import deque
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from polyact.errors import PolyactError

MAPS = {
    "open": """
#######
#S....#
#.....#
#.....#
#....G#
#######""",
    "umaze": """
#####
#G..#
###.#
#S..#
#####""",
    "fork": """
#########
#.......#
#.#####.#
#S#####G#
#.#####.#
#.......#
#########""",
    "four-rooms": """
###########
#S...#....#
#....#....#
#.........#
#....#....#
##.#####.##
#....#....#
#....#....#
#.........#
#....#...G#
###########""",
    "medium": """
########
#S.##..#
#..#...#
##...###
#..#...#
#.#..#.#
#...#.G#
########""",
    "large": """
############
#S...#.....#
#.##.#.###.#
#......#...#
#.####.###.#
#..#.#.....#
##.#.#.#.###
#..#...#..G#
############""",
}


@dataclass(frozen=True)
class Maze:
    """A map as arrays. walls [rows, columns] (row 0 is the top line); starts, goals [n, 2]: (row, column) of cells."""

    walls: np.ndarray
    starts: np.ndarray
    goals: np.ndarray


def layout(text: str) -> str:
    """A built-in map's text for its name, or the text itself once it has been checked.

    Raises PolyactError that says which line or character is wrong: a map is a rectangle of `#.SG` and spaces, closed all around,
    from whose every start every goal can be reached.
    """
    text = MAPS.get(text, text)
    lines = text.strip("\n").split("\n")
    if len(lines) == 1:
        raise PolyactError(f"unknown maze '{text}': give a map of several lines, or one of {', '.join(MAPS)}")
    for place, line in enumerate(lines, 1):
        if len(line) != len(lines[0]):
            raise PolyactError(f"line {place} of the maze has {len(line)} characters, the first has {len(lines[0])}")
        if strange := set(line) - set("#. SG"):
            raise PolyactError(f"line {place} of the maze has the character '{min(strange)}'; known are # . S G and space")
    if set(lines[0] + lines[-1] + "".join(line[0] + line[-1] for line in lines)) != {"#"}:
        raise PolyactError("the maze must be closed by # all around")
    text = "\n".join(lines)
    maze = read(text)
    if not len(maze.starts):
        raise PolyactError("the maze has no free cell")
    distance = distances(text)
    for start in maze.starts:
        for goal in maze.goals:
            if not np.isfinite(distance[_index(maze, goal), _index(maze, start)]):
                raise PolyactError(
                    f"no way leads through the maze from row {start[0]}, column {start[1]} to {tuple(map(int, goal))}"
                )
    return text


@lru_cache(maxsize=64)
def read(text: str) -> Maze:
    """The arrays of a map that `layout` has checked."""
    cells = np.array([list(line) for line in text.split("\n")])
    free = np.argwhere(cells != "#")
    starts, goals = (np.argwhere(cells == mark) for mark in "SG")
    return Maze(cells == "#", starts if len(starts) else free, goals if len(goals) else free)


@lru_cache(maxsize=64)
def distances(text: str) -> np.ndarray:
    """Steps between cells [cells, cells] (goal, from), infinite for walls and where no way leads; cells are numbered by row."""
    walls = read(text).walls
    distance = np.full((walls.size, walls.size), np.inf)
    for goal in np.flatnonzero(~walls):
        _spread(walls, int(goal), distance[goal])
    return distance


@lru_cache(maxsize=64)
def next_cells(text: str) -> np.ndarray:
    """The neighbouring cell [cells, cells] (goal, from) that is nearest to the goal; the cell itself where there is none nearer."""
    walls = read(text).walls
    distance = distances(text)
    hops = np.tile(np.arange(walls.size), (walls.size, 1))
    best = distance.copy()
    for cell in np.flatnonzero(~walls):
        for beside in _neighbours(walls, int(cell)):
            nearer = distance[:, beside] < best[:, cell]
            hops[nearer, cell], best[nearer, cell] = beside, distance[nearer, beside]
    return hops


def _spread(walls: np.ndarray, source: int, distance: np.ndarray) -> None:
    """Breadth-first search from one cell, into `distance`."""
    distance[source] = 0
    waiting = deque([source])
    while waiting:
        cell = waiting.popleft()
        for beside in _neighbours(walls, cell):
            if not np.isfinite(distance[beside]):
                distance[beside] = distance[cell] + 1
                waiting.append(beside)


def _neighbours(walls: np.ndarray, cell: int) -> list[int]:
    columns = walls.shape[1]
    return [c for c in (cell - columns, cell + columns, cell - 1, cell + 1) if not walls.flat[c]]


def _index(maze: Maze, cell: np.ndarray) -> int:
    return int(cell[0]) * maze.walls.shape[1] + int(cell[1])
