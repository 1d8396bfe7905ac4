"""Draw docs/assets/two-ways.svg: logs that pass an obstacle on both sides, and what two clones make of them. Real runs, a minute.

python docs/make_picture.py
"""

from pathlib import Path

import jax
import numpy as np

import polyact
from polyact.acting.rollout import successes
from polyact.envs.disturbances import ActionNoise
from polyact.envs.point_navigation import PointNavigation, pass_left, pass_right
from polyact.envs.render import map_svg
from polyact.evaluation.pictures import paths
from polyact.nets.mlp import Network

TARGET = Path(__file__).parent / "assets" / "two-ways.svg"
SHOWN, PANEL, GAP, HEAD = 14, 300, 12, 34


def main() -> None:
    env, key = PointNavigation(), jax.random.key(0)
    shaken = ActionNoise(env, 0.1)  # the logs then show how to recover from small errors
    logs = [
        polyact.Source(polyact.rollout(polyact.Scripted(env, rule), shaken, episodes=100, key=jax.random.fold_in(key, n)), f"{n}")
        for n, rule in enumerate((pass_left, pass_right))
    ]
    both = [path for source in logs for path in paths(env, source.episodes, SHOWN // 2)]
    panels = [("what was logged", map_svg(env, both, colours=["#1f6feb"] * (SHOWN // 2) + ["#8250df"] * (SHOWN // 2)))]
    for title, kind in (("Gaussian clone", polyact.Gaussian), ("mixture clone", polyact.GaussianMixture)):
        learner = polyact.BC(polyact.Actor(kind, Network(width=64)))
        clone = polyact.fit(learner, logs, steps=4000, batch_size=128, key=key, progress=False).policy
        played = polyact.rollout(polyact.greedy(clone), env, episodes=64, key=jax.random.key(1000))
        arrived = np.asarray(successes(played))
        drawing = map_svg(env, paths(env, played, SHOWN), colours=colours(arrived))
        panels.append((f"{title}: {arrived.mean():.0%} arrive", drawing))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(side_by_side(panels), "utf-8")


def colours(arrived: np.ndarray) -> list[str]:
    return ["#1a7f37" if ok else "#cf222e" for ok in arrived[:SHOWN]]


def side_by_side(panels: list[tuple[str, str]]) -> str:
    width = len(panels) * PANEL + (len(panels) + 1) * GAP
    height = PANEL + HEAD + GAP
    parts = []
    for number, (title, drawing) in enumerate(panels):
        x = GAP + number * (PANEL + GAP)
        parts.append(f'<text x="{x + PANEL / 2}" y="23" text-anchor="middle" font-size="16" fill="#24292f">{title}</text>')
        inside = drawing.partition(">")[2]
        parts.append(f'<svg x="{x}" y="{HEAD}" width="{PANEL}" height="{PANEL}" viewBox="0 0 400 400">{inside}')
    label = "Logs that pass an obstacle left and right; a Gaussian clone runs into it, a mixture clone does not"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{label}" font-family="system-ui,sans-serif"><rect width="100%" height="100%" fill="#ffffff"/>'
        + "".join(parts)
        + "</svg>\n"
    )


if __name__ == "__main__":
    main()
