"""What policies did, drawn: trajectories over the map and one episode in motion."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from polyact.acting.replay import states_of
from polyact.data.episodes import Episodes
from polyact.envs.base import Env
from polyact.envs.render import animate_svg, map_svg
from polyact.envs.scene import Drawable
from polyact.envs.wrappers import unwrapped
from polyact.evaluation.report.report import Picture, Section

FRAMES = 60


def trajectory_section(
    played: Mapping[str, Sequence[Episodes]],
    env: Env,
    key: PRNGKeyArray,
    *,
    title: str = "What they did",
    episodes: int = 12,
    fps: float = 15.0,
    animate: bool = True,
) -> Section | None:
    """The first episodes of every policy's first run over the map, and its first episode in motion; None when `env` (the world inside
    its wrappers) can't be drawn.

    `key` is the one the episodes were played under: states are not recorded, so the first episode is stepped again.
    """
    drawn, _ = unwrapped(env)
    if not isinstance(drawn, Drawable):
        return None
    pictures = []
    for name, runs in played.items():
        pictures.append(
            Picture(f"{name}: {min(episodes, runs[0].count)} episodes", map_svg(drawn, paths(drawn, runs[0], episodes)))
        )
        if animate:
            states = [unwrapped(env, state)[1] for state in states_of(env, runs[0], 0, key)]
            every = max(1, -(-len(states) // FRAMES))
            pictures.append(Picture(f"{name}: the first episode", animate_svg(drawn, states[::every], fps)))
    note = "The same initial states for all. A dot marks where a trajectory ended."
    return Section(title, pictures=tuple(pictures), notes=(note,))


def paths(env: Drawable, episodes: Episodes, count: int) -> list[np.ndarray]:
    """Where the thing to watch was in each of the first `count` episodes: points [T, 2]."""
    chosen = [episodes.episode(number) for number in range(min(count, episodes.count))]
    return [np.asarray(env.position(jax.tree.map(np.asarray, one.observation))) for one in chosen]
