"""Toy experiments whose truth is known: arms are normal draws with given means, in every kind of runner."""

import os

import jax
import numpy as np

from polyact.claims.claim import Always, Arm, Beats, Budget, Claim, Experiment, Scale, Within

BUDGET = Budget("none", "none", "none", "none")
SCALES = {"smoke": Scale(2, 0.1), "laptop": Scale(12, 0.1)}
ARMS = {
    "system": Arm("system", "has the idea", 1.0),
    "ablation": Arm("ablation", "lacks it", 0.0),
    "other": Arm("baseline", "old", 0.2),
}


def draw(key, mean, spread, prepared):
    """A noisy score; what a seed's arms share is added to all of them."""
    own = jax.random.fold_in(key, 1 if mean is None else int(10 * mean))
    return {"score": mean + spread * jax.random.normal(own) + prepared, "positive": abs(mean) + 1.0}


def luck(key, spread):
    """What happens to all arms of a seed alike."""
    return 10 * jax.random.normal(key)


def draw_on_the_host(key, mean, spread, prepared):
    return {"score": float(draw(key, mean, spread, prepared)["score"])}


def draw_and_say_where(key, mean, spread, prepared):
    where = {"process": os.getpid(), "threads": int(os.environ.get("NPROC", 0))}
    return draw_on_the_host(key, mean, spread, prepared) | where


def experiment(runner="program", measure=draw, arms=None) -> Experiment:
    return Experiment(measure, arms or ARMS, SCALES, "normal draws", BUDGET, luck, runner)


def claim(test=None, metric="score", **options) -> Claim:
    test = test or Beats("system", {"ablation": 0.5, "other": 0.5})
    return Claim("beats", "the system is better", options.pop("of", None) or experiment(), metric, test, **options)


ELSEWHERE = experiment("processes", draw_on_the_host)
THREADS = experiment("threads", draw_and_say_where)
CLAIMS = (claim(of=ELSEWHERE), claim(of=THREADS))


def values(**arms) -> dict:
    """Scores by arm, as the harness hands them to a verdict."""
    return {name: {"score": np.array(scores, float)} for name, scores in arms.items()}


__all__ = ["ARMS", "CLAIMS", "Always", "Beats", "Within", "claim", "experiment", "values"]
