"""What a learner must know before it can build networks: the bodies it will act with, and how long it will train.

A body is one kind of observation and one kind of action with their units. Sources of the same (embodiment, control mode) share one.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from polyact import spaces
from polyact.data.source import Source
from polyact.errors import PolyactError
from polyact.policies.encoding import encode, input_space, joined_space, numeric
from polyact.policies.normalise import ActionScale, Normaliser, Statistics
from polyact.spaces import Space


class Body(eqx.Module):
    """One body: its spaces, and what takes its observations and actions to the units networks like.

    normaliser: of the observation encoded as a vector [O]. action_scale: None when actions are not continuous.
    """

    name: str = eqx.field(static=True)
    embodiment: str = eqx.field(static=True)
    control_mode: str = eqx.field(static=True)
    observation_space: Space = eqx.field(static=True)
    action_space: Space = eqx.field(static=True)
    normaliser: Normaliser
    action_scale: ActionScale | None

    def __check_init__(self):
        if self.normaliser.width != self.observation_width:
            raise PolyactError(
                f"body '{self.name}': observation statistics have width {self.normaliser.width}, expected {self.observation_width}"
            )
        width = self.action_width  # of a space without one this is the error, before a network is made for it
        if self.action_scale is not None and self.action_scale.width != width:
            raise PolyactError(f"body '{self.name}': action scale has width {self.action_scale.width}, expected {width}")

    @property
    def observation_width(self) -> int:
        """Length of the vector that networks see (an action mask is not part of it)."""
        return spaces.width(input_space(self.observation_space))

    @property
    def action_width(self) -> int:
        """Length of the flat action; for discrete actions the number of classes."""
        return spaces.width(self.action_space)

    def features(self, observation: Any) -> Float[Array, " observation"]:
        """The normalised vector of one observation."""
        return self.normaliser(encode(input_space(self.observation_space), observation))

    def to_env(self, unit: Float[Array, " action"]) -> Array:
        """A unit action as the environment wants it: its units and shape."""
        action, space = self.continuous.to_env(unit), self.action_space
        return action.reshape(space.shape) if isinstance(space, spaces.Box) else action

    def to_unit(self, action: Any) -> Float[Array, " action"]:
        """Inverse of `to_env`."""
        return self.continuous.to_unit(jnp.asarray(action).reshape(-1).astype(jnp.float32))

    def code(self, action: Any) -> Float[Array, " action"] | Int[Array, " choices"]:
        """An action as policies compute with it: in unit coordinates, or as class numbers from 0, one per choice."""
        if self.action_scale is not None:
            return self.to_unit(action)
        first = self.action_space.start if isinstance(self.action_space, spaces.Discrete) else 0
        return jnp.asarray(action).reshape(-1).astype(jnp.int32) - first

    def decode(self, code: Float[Array, " action"] | Int[Array, " choices"]) -> Array:
        """Inverse of `code`; continuous actions are not clipped."""
        if self.action_scale is not None:
            return self.to_env(code)
        if isinstance(self.action_space, spaces.Discrete):
            return code[0] + self.action_space.start
        return code

    def clip(self, code: Float[Array, " action"] | Int[Array, " choices"]) -> Float[Array, " action"] | Int[Array, " choices"]:
        """A coded action moved into the bounds of the space."""
        return code if self.action_scale is None else self.action_scale.clip(code)

    def log_volume(self) -> Float[Array, ""]:
        """What a log density of a coded action loses on its way to environment units."""
        return jnp.zeros(()) if self.action_scale is None else self.action_scale.log_volume()

    @property
    def choices(self) -> tuple[int, ...]:
        """Number of classes of every discrete choice; PolyactError when actions are not discrete."""
        match self.action_space:
            case spaces.Discrete(n=n):
                return (n,)
            case spaces.MultiDiscrete(nvec=nvec):
                return tuple(nvec)
            case spaces.MultiBinary(n=n):
                return (2,) * n
        raise PolyactError(f"body '{self.name}' has no discrete actions ({self.action_space}); use a continuous policy or learner")

    @property
    def continuous(self) -> ActionScale:
        """The action scale; PolyactError when actions are not continuous."""
        if self.action_scale is None:
            raise PolyactError(
                f"body '{self.name}' has no continuous actions ({self.action_space}); use a categorical policy or learner"
            )
        return self.action_scale


class Spec(eqx.Module):
    """The bodies of a training run, which body each source has, and the total number of updates."""

    bodies: tuple[Body, ...]
    steps: int = eqx.field(static=True)
    source_bodies: tuple[int, ...] = eqx.field(static=True, default=(0,))

    def __check_init__(self):
        names = [body.name for body in self.bodies]
        if not names or len(set(names)) < len(names):
            raise PolyactError(f"a spec needs at least one body, all with different names, got {names}")
        if any(not 0 <= number < len(names) for number in self.source_bodies):
            raise PolyactError(f"source_bodies {self.source_bodies} must number the {len(names)} bodies")

    @classmethod
    def of(
        cls,
        observation_space: Space,
        action_space: Space,
        steps: int,
        observations: Any = None,
        actions: Any = None,
        name: str = "default",
    ) -> "Spec":
        """One body. Observations [N, ...] give the normaliser; without data it is the identity (what online learners start from).

        Actions [N, ...] are needed only where the action space has no bounds.
        """
        inputs = input_space(observation_space)
        normaliser = Normaliser.identity(spaces.width(inputs))
        if observations is not None and numeric(inputs).all():
            normaliser = Normaliser.of(observations)
        scale = action_scale(action_space, None if actions is None else Normaliser.of(actions))
        return cls((Body(name, name, "default", observation_space, action_space, normaliser, scale),), steps)

    @classmethod
    def from_sources(cls, sources: Sequence[Source], steps: int, statistics: Statistics | None = None) -> "Spec":
        """The bodies of some sources, with the statistics given or else those of the sources themselves.

        Sources of one (embodiment, control mode) must agree on their spaces up to bounds, which are joined.
        """
        statistics = Statistics.of(sources) if statistics is None else statistics
        pairs = list(dict.fromkeys(source.body for source in sources))
        bodies = []
        for pair in pairs:
            group = [source for source in sources if source.body == pair]
            seen, done = joined_space(group, "observation_space"), joined_space(group, "action_space")
            normaliser = statistics.normaliser(pair, "observation", spaces.width(input_space(seen)))
            known = None
            if isinstance(done, spaces.Box) and not done.bounded:
                known = statistics.normaliser(pair, "action", spaces.width(done))
            name = pair[0] if pair[1] == "default" else "/".join(pair)
            bodies.append(Body(name, *pair, seen, done, normaliser, action_scale(done, known)))
        return cls(tuple(bodies), steps, tuple(pairs.index(source.body) for source in sources))

    @property
    def body(self) -> Body:
        """The only body; PolyactError when there are several."""
        if len(self.bodies) != 1:
            names = ", ".join(body.name for body in self.bodies)
            raise PolyactError(f"this needs data of one body, got {len(self.bodies)} ({names}); use a multi-body policy")
        (body,) = self.bodies
        return body

    @property
    def observation_width(self) -> int:
        return self.body.observation_width

    @property
    def action_width(self) -> int:
        return self.body.action_width

    @property
    def observation_space(self) -> Space:
        return self.body.observation_space

    @property
    def action_space(self) -> Space:
        return self.body.action_space

    @property
    def normaliser(self) -> Normaliser:
        return self.body.normaliser

    @property
    def action_scale(self) -> ActionScale:
        return self.body.continuous


def action_scale(space: Space, statistics: Normaliser | None = None) -> ActionScale | None:
    """The scale of continuous actions, None for actions of another kind."""
    continuous = isinstance(space, spaces.Box) and space.dtype.kind == "f"
    return ActionScale.of(space, statistics) if continuous else None
