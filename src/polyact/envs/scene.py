"""What a world looks like: simple shapes in world coordinates, from which every picture is made.

An environment that can be drawn says what never moves (`backdrop`) and what a state looks like (`scene`); pixels, SVG, animations
and maps of trajectories all follow from these (see render.py).
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from polyact.envs.base import Env, Observation, State

INK = "#334155"
PALE = "#cbd5e1"
PAPER = "#f8fafc"
BLUE = "#2563eb"
ORANGE = "#f59e0b"
GREEN = "#16a34a"
RED = "#dc2626"
PALETTE = (BLUE, "#ea580c", GREEN, "#9333ea", "#0891b2", "#be123c", "#65a30d", "#475569")


Point = tuple[float, float] | np.ndarray
"""Two world coordinates (x, y)."""

View = tuple[float, float, float, float]
"""Left, bottom, right and top of what is shown, in world coordinates."""


@dataclass(frozen=True)
class Circle:
    """A disc; radius in world units, `opacity` in [0, 1]."""

    centre: Point
    radius: float
    fill: str = INK
    opacity: float = 1.0


@dataclass(frozen=True)
class Line:
    """A polyline with round ends. points [n, 2]; width in world units; `dash` is (drawn, skipped) length in world units."""

    points: np.ndarray
    width: float
    colour: str = INK
    opacity: float = 1.0
    dash: tuple[float, float] | None = None


@dataclass(frozen=True)
class Polygon:
    """A filled polygon, even-odd where it crosses itself. points [n, 2]."""

    points: np.ndarray
    fill: str = INK
    opacity: float = 1.0


@dataclass(frozen=True)
class Text:
    """One line of text, centred on a point; size (height of a capital and a half) in world units."""

    centre: Point
    text: str
    size: float
    colour: str = INK


Shape = Circle | Line | Polygon | Text


@dataclass(frozen=True)
class Scene:
    """Shapes, drawn in this order, and the part of the world that is shown."""

    shapes: tuple[Shape, ...]
    view: View
    background: str = PAPER

    def add(self, *shapes: Shape, shift: tuple[float, float] = (0.0, 0.0)) -> "Scene":
        """More shapes on top; `shift` moves the view."""
        left, bottom, right, top = self.view
        view = (left + shift[0], bottom + shift[1], right + shift[0], top + shift[1])
        return Scene(self.shapes + shapes, view, self.background)


class Drawable(Env):
    """An environment that can be drawn. What these methods return is NumPy and is never part of a compiled program."""

    @abstractmethod
    def backdrop(self) -> Scene:
        """What never moves (ground, walls, goals), and the view."""

    @abstractmethod
    def scene(self, state: State) -> Scene:
        """The whole picture of one (unbatched) state. The kinds and the number of shapes are the same in every state."""

    @abstractmethod
    def position(self, observation: Observation) -> np.ndarray:
        """Where the thing to watch was, in world coordinates: the observations of one episode [T, ...] to points [T, 2]."""


def box(centre: Point, half_width: float, half_height: float, angle: float = 0.0) -> np.ndarray:
    """Corners [4, 2] of a rectangle, turned by `angle` about its centre."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [half_width, half_height]
    return turned(corners, angle) + np.asarray(centre)


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Points [n, 2] turned counter-clockwise about the origin."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(points) @ np.array([[cos, sin], [-sin, cos]])
