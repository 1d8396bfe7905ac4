"""`polyact demo`: the whole way, on one page of code: logs of mixed behaviour, what is in them, three policies, and how good they are.

Three behaviours steer a point past an obstacle: one on the left, one on the right, one sloppily. A third of each one's episodes were
logged without actions. A Gaussian clone averages left and right into the obstacle, a mixture keeps them apart, and offline RL uses the
rewards. All are judged in a world that waits for them and in one that does not.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

from polyact import cache
from polyact.acting.rollout import rollout
from polyact.app import runs
from polyact.app.arguments import Demo
from polyact.app.commands.inspect import needs
from polyact.app.show import console, say
from polyact.app.staging import fresh_folder
from polyact.data import Source
from polyact.data.formats import read, write
from polyact.data.inspect import inspect
from polyact.envs.point_navigation import PointNavigation, left_or_right, pass_left, pass_right, sloppy
from polyact.envs.render import map_svg
from polyact.evaluation.evaluate import Clock, play, report_of
from polyact.evaluation.pictures import paths, trajectory_section
from polyact.evaluation.report.report import Picture, Report, Section
from polyact.learning.actor import Actor
from polyact.learning.base import Learner
from polyact.learning.bc import BC
from polyact.learning.fit import fit
from polyact.learning.iql import IQL
from polyact.learning.optimiser import Optimiser
from polyact.nets.mlp import Network
from polyact.policies.gaussian import Gaussian
from polyact.policies.mixture import GaussianMixture
from polyact.policies.scripted import Scripted

EPISODES, STEPS, RUNS, JUDGED = 90, 2000, 4, 64
ENV, CONTROL_HZ, LATENCY = "left-or-right", 20.0, 0.05


def run(command: Demo) -> None:
    quiet = command.json
    cache.enable()
    with fresh_folder(command.out, command.overwrite) as out:
        env, key = left_or_right(), jax.random.key(command.seed)
        with _stage("logs of three behaviours", quiet):
            write_logs(env, out / "logs", key)
            sources = read(out / "logs")
        if not quiet:
            console().print(inspect(sources, needs()))
        usable = [source for source in sources if source.episodes.action is not None]
        trained = {}
        for name, learner in learners().items():
            with _stage(f"{name}: {STEPS} steps, {RUNS} seeds", quiet):
                fitted = fit(learner, usable, steps=STEPS, key=key, seeds=RUNS, batch_size=128, progress=not quiet)
                facts = {"learner": name, "env": ENV, "seed": command.seed, "settings": []}
                trained[name] = runs.write(out / "runs" / name.replace(" ", "-"), fitted, facts).policies()
        with _stage(f"evaluation: {JUDGED} episodes of each policy, twice", quiet):
            report = judge(trained, env, sources, jax.random.key(command.seed + 1000))
            report.to_html(out / "report.html")
    if quiet:
        print(report.to_json())
        return
    console().print(report)
    say(f"Report with the trajectories drawn: {command.out / 'report.html'}")
    say(f"Next: polyact data inspect {command.out / 'logs'}   or   polyact eval {command.out / 'runs' / 'mixture-clone'} --json")


def write_logs(env: PointNavigation, folder: Path, key: jax.Array) -> None:
    """Six Minari data sets: every behaviour with actions (two thirds of its episodes) and without (one third)."""
    folder.mkdir()
    for number, rule in enumerate((pass_left, pass_right, sloppy)):
        name = rule.__name__.replace("_", "-")
        episodes = rollout(Scripted(env, rule), env, episodes=EPISODES, key=jax.random.fold_in(key, number))
        mute = np.arange(EPISODES) % 3 == 2
        for label, part in (
            (name, episodes.select(np.flatnonzero(~mute))),
            (f"{name}-no-actions", episodes.select(np.flatnonzero(mute))),
        ):
            actionless = label != name
            space = None if actionless else env.action_space
            kept = part.without("action") if actionless else part
            source = Source(kept, label, env.observation_space, space, behaviour=name, embodiment="point", control_hz=CONTROL_HZ)
            write(source, folder / label, "folder")


def learners() -> dict[str, Learner]:
    """The same network and the same number of steps for all three."""
    network, optimiser = Network(width=64), Optimiser(1e-3, "cosine")
    critic = Optimiser(1e-3)
    return {
        "gaussian clone": BC(Actor(Gaussian, network), optimiser),
        "mixture clone": BC(Actor(GaussianMixture, network), optimiser),
        "offline RL": IQL(
            Actor(GaussianMixture, network), network, optimiser, critic, critic, discount=0.97, expectile=0.8, temperature=10.0
        ),
    }


def judge(trained: dict, env: PointNavigation, sources: list[Source], key: jax.Array) -> Report:
    """Scores in a world that waits, in one that does not, and the trajectories."""
    waiting = play(trained, env, episodes=JUDGED, key=key)
    clock = Clock(CONTROL_HZ, LATENCY)
    moving = play(trained, env, episodes=JUDGED, key=key, clock=clock)
    report = report_of(waiting, title="polyact demo", reference="gaussian clone").with_facts(environment=ENV, **_counts(sources))
    late = report_of(moving, reference="gaussian clone", clock=clock)
    sections = [
        Section(f"{s.title} in a world that does not wait", s.text, s.tables, s.plots, s.pictures, s.notes) for s in late.sections
    ]
    logged = [(s.name.removesuffix("-no-actions"), path) for s in sources for path in paths(env, s.episodes, 6)]
    logs = Picture(
        "the logs: six episodes of each source", map_svg(env, [p for _, p in logged], labels=[name for name, _ in logged])
    )
    seen = trajectory_section(waiting, env, key, title="What they did in a world that waits")
    late_seen = trajectory_section(moving, env, key, title="What they did in a world that does not wait", animate=False)
    drawn = [section for section in (seen, late_seen) if section]
    return report.with_section(*sections, Section("The behaviours they learned from", pictures=(logs,)), *drawn)


def _counts(sources: list[Source]) -> dict[str, int]:
    return {
        "episodes_logged": sum(s.episodes.count for s in sources),
        "without_actions": sum(s.episodes.count for s in sources if s.episodes.action is None),
    }


@contextmanager
def _stage(name: str, quiet: bool) -> Iterator[None]:
    began = time.perf_counter()
    yield
    if not quiet:
        say(f"[{time.perf_counter() - began:5.1f} s] {name}")
