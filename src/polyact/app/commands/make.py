"""`polyact data make`: one environment, one trained agent, data of every quality."""

from typing import Any

import jax

from polyact import cache
from polyact.app.arguments import Make
from polyact.app.show import print_json, print_table, say
from polyact.app.staging import fresh_folder
from polyact.data.formats import FORMATS, write
from polyact.envs import catalogue
from polyact.envs.base import Env
from polyact.errors import PolyactError, unknown
from polyact.learning.behaviours import Behaviours, make_behaviours
from polyact.learning.catalogue import learner
from polyact.spaces import Box

STEPS, LONGER = 20_000, {"hopper2d": 150_000, "cartpole-swingup": 60_000, "push": 100_000, "point-maze": 100_000}


def run(command: Make) -> None:
    env = catalogue.make(command.env)
    if not isinstance(env, Env):
        raise PolyactError(f"data make needs a functional environment (polyact envs), {command.env} is bridged")
    if command.episodes < 2:
        raise PolyactError(f"--episodes must be at least 2, got {command.episodes}")
    if command.steps is not None and command.steps < 1:
        raise PolyactError(f"--steps must be positive, got {command.steps}")
    writable = [name for name, known in FORMATS.items() if known.writable]
    if command.format not in writable:
        raise unknown("format to write", command.format, writable)
    cache.enable()
    teacher = learner("sac" if isinstance(env.action_space, Box) else "dqn", ["width=64"])
    steps = LONGER.get(command.env, STEPS) if command.steps is None else command.steps
    options: dict[str, Any] = {"name": command.env, "progress": not command.json}
    with fresh_folder(command.out, command.overwrite) as out:
        key = jax.random.key(command.seed)
        made = make_behaviours(env, teacher, steps=steps, episodes=command.episodes, key=key, **options)
        for label, source in made.sources.items():
            write(source, out / label, command.format)
    _tell(command, made)


def _tell(command: Make, made: Behaviours) -> None:
    rows = [
        (
            label,
            source.episodes.count,
            source.episodes.steps,
            source.metadata["mean_return"],
            made.score(source.metadata["mean_return"]),
        )
        for label, source in made.sources.items()
    ]
    columns = ("source", "episodes", "steps", "mean_return", "score")
    if command.json:
        print_json({"out": str(command.out), "sources": [dict(zip(columns, row, strict=True)) for row in rows]})
        return
    print_table(f"{command.env} (score: 0 random, 100 expert)", ("source", "episodes", "steps", "mean return", "score"), rows)
    say(f"Written to {command.out} as {command.format}. Next: polyact data inspect {command.out}")
    say(f"Train: polyact train iql --data {command.out}/medium-replay --out runs/iql")
