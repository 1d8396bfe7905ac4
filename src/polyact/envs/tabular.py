"""A finite Markov decision process written down as arrays, so that everything about it can be computed exactly (see exact.py)."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray

from polyact.envs.base import Observation, State, Step
from polyact.envs.physics import at_least
from polyact.envs.scene import BLUE, GREEN, INK, PALE, Circle, Drawable, Polygon, Scene, box
from polyact.errors import PolyactError
from polyact.spaces import Discrete, Space


@dataclass(frozen=True)
class Layout:
    """Where the states lie when they are drawn: one unit square at (x, y) for each, and squares that are walls."""

    places: tuple[tuple[float, float], ...]
    walls: tuple[tuple[float, float], ...] = ()


class Tabular(Drawable):
    """States 0 .. S-1 (observed as they are) and actions 0 .. A-1.

    transition [S, A, S]: probability of the next state. reward [S, A], or [S, A, S] when it depends on the next state. initial [S]:
    probability of starting there. terminal [S]: entering such a state ends the task; its own row is never used. layout: for pictures,
    a row of squares when not given. Raises PolyactError that names the array and the row which is not what it should be.
    """

    transition: Float[Array, "*many S A S"] = eqx.field(converter=lambda table: _float(table))
    reward: Float[Array, "..."] = eqx.field(converter=lambda table: _float(table))
    initial: Float[Array, "*many S"] = eqx.field(converter=lambda table: _float(table))
    terminal: Bool[Array, "*many S"] = eqx.field(converter=lambda flags: jnp.asarray(flags, bool))
    layout: Layout | None = eqx.field(static=True, default=None)
    horizon: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        at_least(1, horizon=self.horizon)
        tables = (self.transition, self.reward, self.initial, self.terminal)
        if not any(isinstance(table, Tracer) for table in tables):
            transition, reward, initial, terminal = map(np.asarray, tables)
            _check(transition, reward, initial, terminal, self.layout)

    @property
    def states(self) -> int:
        return self.transition.shape[-1]

    @property
    def actions(self) -> int:
        return self.transition.shape[-2]

    @property
    def observation_space(self) -> Space:
        return Discrete(self.states)

    @property
    def action_space(self) -> Space:
        return Discrete(self.actions)

    def reset(self, key: PRNGKeyArray) -> tuple[Int[Array, ""], Int[Array, ""]]:
        state = _draw(self.initial, key)
        return state, state

    def step(self, state: Int[Array, ""], action: Int[ArrayLike, ""], key: PRNGKeyArray) -> tuple[Int[Array, ""], Step]:
        new = _draw(self.transition[state, action], key)
        reward = self.reward[state, action] if self.reward.ndim == 2 else self.reward[state, action, new]
        return new, Step(new, reward, self.terminal[new], jnp.asarray(False), {})

    def backdrop(self) -> Scene:
        places, half = self._places(), 0.46
        walls = tuple(Polygon(box(place, 0.5, 0.5), INK) for place in (self.layout.walls if self.layout else ()))
        colours = [GREEN if ends else PALE for ends in np.asarray(self.terminal)]
        squares = tuple(Polygon(box(place, half, half), colour, 0.6) for place, colour in zip(places, colours, strict=True))
        (left, bottom), (right, top) = places.min(0) - 1, places.max(0) + 1
        return Scene(walls + squares, (left, bottom, right, top))

    def scene(self, state: State) -> Scene:
        return self.backdrop().add(Circle(self._places()[int(state)], 0.3, BLUE))

    def position(self, observation: Observation) -> np.ndarray:
        """The middle of the state's square."""
        return self._places()[np.asarray(observation)]

    def _places(self) -> np.ndarray:
        return np.asarray(self.layout.places if self.layout else [(place, 0) for place in range(self.states)], float)


def _float(table: ArrayLike) -> Array:
    return jnp.asarray(table, jnp.float32)


def _draw(probabilities: Float[Array, "S"], key: PRNGKeyArray) -> Int[Array, ""]:
    """One index. Inverse transform on one uniform number: as fast as reading the row, and never an index of probability zero."""
    cumulative = jnp.cumsum(probabilities)
    return jnp.argmax(cumulative > jax.random.uniform(key) * cumulative[-1]).astype(jnp.int32)


def _check(transition: np.ndarray, reward: np.ndarray, initial: np.ndarray, terminal: np.ndarray, layout: Layout | None) -> None:
    if transition.ndim != 3 or transition.shape[0] != transition.shape[2] or not transition.size:
        raise PolyactError(f"transition has shape {transition.shape}, expected [states, actions, states]")
    states, actions, _ = transition.shape
    shapes = {"reward": reward.shape, "initial": initial.shape, "terminal": terminal.shape}
    allowed = {"reward": ((states, actions), transition.shape), "initial": ((states,),), "terminal": ((states,),)}
    for name, shape in shapes.items():
        if shape not in allowed[name]:
            raise PolyactError(f"{name} has shape {shape}, expected {' or '.join(map(str, allowed[name]))}")
    if not np.all(np.isfinite(reward)):
        raise PolyactError(f"reward of (state, action, ...) {tuple(np.argwhere(~np.isfinite(reward))[0].tolist())} is not finite")
    _check_rows("transition", transition)
    _check_rows("initial", initial)
    if np.any(initial[terminal] > 0):
        raise PolyactError(f"initial starts in state {np.flatnonzero((initial > 0) & terminal)[0]}, which is terminal")
    if layout is not None and len(layout.places) != states:
        raise PolyactError(f"layout has places for {len(layout.places)} states, expected {states}")


def _check_rows(name: str, table: np.ndarray) -> None:
    totals = table.sum(-1, dtype=np.float64)
    wrong = np.argwhere(~(np.all(table >= 0, -1) & (np.abs(totals - 1) < 1e-4)))
    if len(wrong):
        place = tuple(wrong[0].tolist())
        where = f" of state {place[0]}, action {place[1]}" if place else ""
        found = f"sum {totals[place]:g} and smallest {table[place].min():g}"
        raise PolyactError(f"{name}{where} must be probabilities that sum to 1, got {found}")
