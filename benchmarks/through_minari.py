"""A MuJoCo task as a user meets it: `polyact train sac` there, its exploring episodes as a Minari set, and `polyact train bc` on them.

Training and judging go through the command line; the set is opened by Minari's own library before it is learned from.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from common import Json, Options, say
from judging import Seeds, key, reaching

TASK = "gymnasium:InvertedPendulum-v5"
BEST = 1000  # every episode: a reward of 1 for each of 1000 steps
RECORDED = 16
DATASET = "inverted-pendulum-v0"
SAC = ["width=64", "learning_rate=1e-3"]
BC = ["width=64"]
STEPS = {"sac": 20_000, "bc": 5_000}


def mujoco(options: Options) -> Json:
    """Both learners' returns, and what Minari says of the set between them."""
    for package in ("mujoco", "minari"):
        if importlib.util.find_spec(package) is None:
            return {"missing": f"{package} is not installed"}
    seeds = Seeds.of(options)
    steps = {name: options.pick(count, 200) for name, count in STEPS.items()}
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ, MINARI_DATASETS_PATH=name):
        folder = Path(name)
        agent = _trained("sac", ["--env", TASK], SAC, steps["sac"], folder, seeds)
        data = _recorded(folder, options, seeds)
        clone = _trained("bc", ["--data", str(folder / DATASET)], BC, steps["bc"], folder, seeds)
    return {"task": TASK, "sac": agent, "minari": data, "bc on the set": clone}


def _trained(learner: str, source: list[str], settings: list[str], steps: int, folder: Path, seeds: Seeds) -> Json:
    options = ["--steps", str(steps), "--seeds", str(seeds.runs), "--seed", str(seeds.training), "--out", str(folder / learner)]
    chosen = [part for setting in settings for part in ("--set", setting)]
    seconds = json.loads(_polyact("train", learner, *source, *options, *chosen, "--json"))["seconds"]
    found = reaching(_returns(folder / learner, seeds), BEST) | {"steps": steps, "settings": settings, "seconds": seconds}
    say(f"  {learner}: {found['mean']['text']}")
    return found


def _returns(run: Path, seeds: Seeds) -> Any:
    """Returns [runs, episodes], as `polyact eval` reports them."""
    import numpy as np

    from polyact.evaluation.report.report import Report

    text = _polyact("eval", str(run), "--env", TASK, "--episodes", str(seeds.episodes), "--seed", str(seeds.judging), "--json")
    group = Report.from_json(text).sections[0].plots[0].groups[0]
    return np.reshape(group.values, (seeds.runs, seeds.episodes))


def _recorded(folder: Path, options: Options, seeds: Seeds) -> Json:
    """Exploring episodes of the first policy as a Minari set, and what Minari's own library finds in it."""
    import minari

    from polyact import saving
    from polyact.data import Source
    from polyact.data.formats import write
    from polyact.envs.catalogue import make
    from polyact.evaluation.evaluate import play
    from polyact.policies.base import Policy

    count = options.pick(RECORDED, 2)
    env = make(TASK, count=count)
    policy = saving.load(folder / "sac" / "seed-0", Policy)
    played = play(policy, env, episodes=count, key=key(seeds.collecting), explore=True)["policy"][0]
    write(Source(played, DATASET, env.observation_space, env.action_space, behaviour="SAC"), folder / DATASET, "minari")
    found = minari.load_dataset(DATASET)
    if (found.total_episodes, found.total_steps) != (played.count, played.steps):
        raise RuntimeError(f"Minari finds {found.total_episodes} episodes and {found.total_steps} steps, not what was recorded")
    returns = [float(episode.rewards.sum()) for episode in found.iterate_episodes()]
    return {"dataset": DATASET, "episodes": found.total_episodes, "steps": found.total_steps, "returns": returns}


def _polyact(*arguments: str) -> str:
    """What the command prints. Raises RuntimeError with its last line when it fails."""
    done = subprocess.run([sys.executable, "-m", "polyact", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"polyact {' '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout
