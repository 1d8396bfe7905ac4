"""Seconds until PPO and SAC hold a mean return above -200 on Pendulum: polyact against Stable-Baselines3.

Stable-Baselines3 has the zoo's tuned settings, with one torch thread and with all, whichever is faster. polyact runs twice: with the
same settings as far as both libraries have them, and with settings that suit a program that steps many environments at once. Every
run is judged on the same number of episodes under the policy's mode; time spent judging does not count, compiling does ("cold"); the
"warm" run finds its compiled program on disk, as any second run of the command line does.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import Json, Missing, Options, Peer, bar, main, say, significant, summary

TARGET, BAR = -200.0, 10.0
STEPS = {"ppo": 150_000, "sac": 20_000}  # of the environment, at most
EVERY = {"ppo": 4096, "sac": 500}  # steps between evaluations


def measure(options: Options) -> Json:
    seeds = options.pick((0, 1, 2, 3, 4), (0,))
    result: Json = {"target": TARGET, "episodes of an evaluation": _episodes(options), "seeds": len(seeds)}
    for name in options.only:
        theirs = _stable_baselines(name, seeds, options)
        result[name] = {"stable-baselines3": theirs}
        for label, settings in list(OURS[name].items())[options.pick(0, 1) :]:
            runs = [_polyact(name, label, settings, seed, options) for seed in seeds]
            result[name][f"polyact, {label}"] = _report(runs) | _ratios(runs, theirs)
    return result


class Reached(Exception):
    """The return asked for is there."""


def _polyact(name: str, label: str, settings: Json, seed: int, options: Options) -> Json:
    """One seed, cold and then warm: the same program, compiled and read from disk."""
    with tempfile.TemporaryDirectory() as folder:
        _keep_programs(Path(folder))
        cold, warm = (_train(name, settings, seed, options) for _ in range(2))
    say(f"polyact {name} ({label}), seed {seed}: {cold['seconds']:.2f} s cold, {warm['seconds']:.2f} s warm, {cold['steps']} steps")
    return {"cold": cold, "warm": warm}


def _train(name: str, settings: Json, seed: int, options: Options) -> Json:
    import jax

    from polyact.acting.rollout import rollout
    from polyact.envs.pendulum import Pendulum
    from polyact.learning import catalogue
    from polyact.learning.program import release_programs
    from polyact.learning.train import train
    from polyact.policies.base import greedy

    release_programs()
    env, key = Pendulum(), jax.random.key(1000)
    seen = {"judging": 0.0, "evaluations": 0, "return": float("-inf")}
    learner = catalogue.learner(name, settings["learner"])
    every = options.pick(settings.get("every", EVERY[name]), 200)

    def judge(policy: Any) -> dict[str, float]:
        began = time.perf_counter()
        value = float(rollout(greedy(policy), env, episodes=_episodes(options), key=key).returns.mean())
        seen["evaluations"] += 1
        seen["return"] = value
        seen["judging"] += time.perf_counter() - began
        if value >= TARGET:
            raise Reached
        return {"return": value}

    began = time.perf_counter()
    try:
        steps = options.pick(settings.get("steps", STEPS[name]), 400)
        train(
            learner,
            env,
            steps=steps,
            key=jax.random.key(seed),
            evaluate=judge,
            evaluate_every=every,
            report_every=every,
            progress=False,
            **settings["train"],
        )
        reached = False
    except Reached:
        reached = True
    seconds = time.perf_counter() - began - seen["judging"]
    return {"seconds": seconds, "steps": int(seen["evaluations"]) * every, "return": seen["return"], "reached": reached}


def _keep_programs(folder: Path) -> None:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    compilation_cache.reset_cache()


def _stable_baselines(name: str, seeds: tuple[int, ...], options: Options) -> Json:
    settings = {
        "algorithm": name,
        "target": TARGET,
        "episodes": _episodes(options),
        "steps": options.pick(STEPS[name], 300),
        "evaluate_every": options.pick(EVERY[name], 100),
    }
    found: Json = {}
    try:
        with Peer("sb3_online.py", options, settings) as peer:
            for threads in sorted({1, options.threads}):
                runs = []
                for seed in seeds:
                    curve = peer.ask({"seed": seed, "torch_threads": threads})["curve"]
                    runs.append(curve[-1] | {"reached": curve[-1]["return"] >= TARGET})
                    say(f"stable-baselines3 {name}, {threads} threads, seed {seed}: {curve[-1]}")
                found[f"{threads} torch threads"] = _times(runs)
            found["versions"] = peer.facts["versions"]
    except Missing as reason:
        return {"missing": str(reason)}
    return found


def _times(runs: list[Json]) -> Json:
    return {
        "seconds": summary([run["seconds"] for run in runs]),
        "steps": summary([run["steps"] for run in runs]),
        "reached": f"{sum(run['reached'] for run in runs)} of {len(runs)}",
        "last returns": [significant(run["return"]) for run in runs],
    }


def _report(runs: list[Json]) -> Json:
    return {"cold": _times([run["cold"] for run in runs]), "warm": _times([run["warm"] for run in runs])}


def _ratios(runs: list[Json], theirs: Json) -> Json:
    """Their median time over ours. The bar is judged cold: compiling is part of end to end."""
    times = [found["seconds"]["median"] for name, found in theirs.items() if name.endswith("threads")]
    if not times:
        return {}

    def over(kind: str) -> float:
        return significant(min(times) / statistics.median(run[kind]["seconds"] for run in runs), 3)

    return {"times faster, cold": {"median": over("cold")} | bar(over("cold"), at_least=BAR), "times faster, warm": over("warm")}


def _episodes(options: Options) -> int:
    return options.pick(64, 2)


Settings = dict[str, dict[str, Callable | Any]]
OURS: dict[str, Settings] = {
    "ppo": {
        "same settings": {
            "learner": [
                "rollout_length=1024",
                "minibatches=64",
                "epochs=10",
                "discount=0.9",
                "trace=0.95",
                "learning_rate=1e-3",
                "normalise_observations=false",
                "normalise_values=false",
            ],
            "train": {"envs": 4},
        },
        "own settings": {
            "learner": ["discount=0.95", "learning_rate=1e-3", "schedule=linear", "rollout_length=200", "minibatches=32"],
            "train": {"envs": 16},
            "every": 3200,
        },
    },
    "sac": {
        "same settings": {"learner": ["learning_rate=1e-3"], "train": {"learning_starts": 100}},
        "own settings": {
            "learner": ["learning_rate=2e-3", "width=64"],
            "train": {"envs": 8, "batch_size": 128, "update_ratio": 0.5, "learning_starts": 256},
            "every": 512,
            "steps": 40_000,
        },
    },
}


if __name__ == "__main__":
    main("online", __doc__ or "", measure, ("ppo", "sac"))
