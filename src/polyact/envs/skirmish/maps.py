"""Maps of the arena: point-symmetric, connected, drawn by chance; and what follows from a map once and for all."""

from functools import lru_cache

import numpy as np
from scipy.sparse.csgraph import shortest_path

from polyact.errors import PolyactError

SIZE = 16
CELLS = SIZE * SIZE
FLOOR, WALL, COVER = 0, 1, 2  # a wall stops steps, sight and shots; cover stops steps and half of the shots
MOVES = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])  # (x, y): stay, right, left, up, down
SAMPLES = 33  # points of a line of sight that are looked at
FAR = 255


def random_map(seed: int) -> np.ndarray:
    """Terrain [16, 16] by row y and column x: walls and cover between two bases, the same after half a turn, all floor connected."""
    rng = np.random.default_rng(seed)
    while True:
        terrain = np.zeros((SIZE, SIZE), np.int8)
        for kind, pieces in ((WALL, rng.integers(5, 9)), (COVER, rng.integers(4, 8))):
            for _ in range(pieces):
                length, upright = rng.integers(1, 5 if kind == WALL else 3), rng.random() < 0.6
                x, y = rng.integers(3, SIZE - 3), rng.integers(0, SIZE)
                ends = (min(y + length, SIZE), x + 1) if upright else (y + 1, min(x + length, SIZE - 3))
                terrain[y : ends[0], x : ends[1]] = kind
        terrain = np.maximum(terrain, terrain[::-1, ::-1])
        if _connected(terrain):
            return terrain


def checked(terrain: np.ndarray) -> np.ndarray:
    """The terrain itself. Raises PolyactError for another shape, other kinds of cell, blocked bases, or floor that is not connected."""
    terrain = np.asarray(terrain)
    if terrain.shape != (SIZE, SIZE) or not np.isin(terrain, (FLOOR, WALL, COVER)).all():
        raise PolyactError(f"a map has {SIZE} x {SIZE} cells of 0 (floor), 1 (wall) and 2 (cover), got shape {terrain.shape}")
    if terrain[:, :3].any() or terrain[:, -3:].any() or not _connected(terrain):
        raise PolyactError("a map needs free bases (three columns at both sides) and floor that is connected")
    return terrain.astype(np.int8)


@lru_cache(maxsize=256)
def tables(terrain: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """From the bytes of a terrain: the cell each move leads to [256, 5], steps between cells [256, 256], who sees whom [256, 256]."""
    grid = np.frombuffer(terrain, np.int8).reshape(SIZE, SIZE)
    neighbours = _neighbours(grid)
    steps = shortest_path(_adjacency(neighbours), unweighted=True)
    return neighbours, np.where(np.isfinite(steps), steps, FAR).astype(np.int16), _sight(grid)


def centre(cell: np.ndarray) -> np.ndarray:
    """Coordinates (x, y) of cells [..., 2]."""
    return np.stack([cell % SIZE, cell // SIZE], axis=-1)


def _neighbours(grid: np.ndarray) -> np.ndarray:
    here = centre(np.arange(CELLS))
    there = here[:, None] + MOVES
    inside = ((there >= 0) & (there < SIZE)).all(-1)
    x, y = np.clip(there, 0, SIZE - 1).transpose(2, 0, 1)
    return np.where(inside & (grid[y, x] == FLOOR), y * SIZE + x, np.arange(CELLS)[:, None]).astype(np.int32)


def _adjacency(neighbours: np.ndarray) -> np.ndarray:
    table = np.zeros((CELLS, CELLS), bool)
    table[np.arange(CELLS)[:, None], neighbours] = True
    floor = table.any(0) & (neighbours != np.arange(CELLS)[:, None]).any(1)
    return table & floor[:, None] & floor & ~np.eye(CELLS, dtype=bool)


def _sight(grid: np.ndarray) -> np.ndarray:
    here = centre(np.arange(CELLS)).astype(float)
    clear = np.ones((CELLS, CELLS), bool)
    for part in np.linspace(0, 1, SAMPLES):
        x, y = np.rint(here[:, None] * (1 - part) + here * part).astype(int).transpose(2, 0, 1)
        clear &= grid[y, x] != WALL
    return clear & clear.T


def _connected(terrain: np.ndarray) -> bool:
    floor = np.flatnonzero(terrain.reshape(-1) == FLOOR)
    steps = shortest_path(_adjacency(_neighbours(terrain)), unweighted=True, indices=floor[0])
    return bool(np.isfinite(steps[floor]).all())
