"""Ranks policies from pairwise trials in which every evaluator picks tasks and scenes freely (RoboArena, arXiv 2506.18123).

A fixed suite of a few tasks measures a policy on those tasks. Here many evaluators each compare two anonymous policies on what they care
about, so the trials cover far more tasks, unevenly. Task-aware Bradley-Terry (`evaluation.arena.task_aware`) gives every trial a latent
bucket of tasks with a difficulty and with offsets of the policies, so that a policy is not blamed for having met hard tasks, and reads
ties as both succeeding or both failing.

Measured (50 worlds from seed 1000; 10 for the bots): freely chosen tasks ranked at a Pearson correlation of 0.914 with the truth, five
fixed ones at 0.846, a gain of 0.068 [0.034, 0.104]; the violation of ranks fell by 0.015 [0.007, 0.023]. Buckets did no harm and one
bucket alone was worse by 0.023 [0.012, 0.039]. That buckets help where pairs meet on different tasks was not shown: +0.031 [0.014,
0.049] over one bucket, but -0.003 [-0.013, 0.005] against plain Bradley-Terry. Bots that choose scenes by taste recovered the order of
reacher checkpoints at 0.978.
"""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray
from scipy.special import expit

from polyact.acting.rollout import rollout
from polyact.claims.card import Card
from polyact.claims.claim import Arm, Beats, Budget, Claim, Experiment, Metrics, Scale, Within
from polyact.data.episodes import Episodes
from polyact.envs.catalogue import expert
from polyact.envs.reacher import Reacher
from polyact.evaluation.arena.agreement import mmrv, pearson
from polyact.evaluation.arena.bradley_terry import penalised
from polyact.evaluation.arena.task_aware import PRIORS, fit_task_aware
from polyact.evaluation.arena.trials import Trial, count, mean_progress
from polyact.learning.behaviours import Noisy
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.scripted import Scripted
from polyact.tree import numbers_as_arrays

FAMILIES, EVALUATORS = 5, 7


@dataclass(frozen=True)
class World:
    """What an arena tries to find out: logits [P, tasks] of success, difficulty [tasks], taste [evaluators, tasks] of free choice."""

    logits: Float[np.ndarray, "P tasks"]
    taste: Float[np.ndarray, "evaluators tasks"]

    @property
    def truth(self) -> Float[np.ndarray, " P"]:
        """Success of every policy over all tasks."""
        return expit(self.logits).mean(1)


def draw_world(rng: np.random.Generator, policies: int, tasks: int) -> World:
    """Policies with abilities and specialities, tasks of mixed difficulty, evaluators who like easy or hard ones and some families."""
    family = rng.integers(FAMILIES, size=tasks)
    difficulty = rng.normal(0.5, 1.5, tasks)
    speciality = rng.normal(0, 0.7, (policies, FAMILIES))[:, family]
    logits = rng.normal(0, 0.7, (policies, 1)) + speciality + rng.normal(0, 0.3, (policies, tasks)) - difficulty
    leaning, liking = np.linspace(-1.0, 1.0, EVALUATORS)[:, None], rng.normal(0, 1, (EVALUATORS, FAMILIES))[:, family]
    taste = np.exp(leaning * difficulty + liking)
    return World(logits, taste / taste.sum(1, keepdims=True))


def hold(rng: np.random.Generator, world: World, number: int, *, uneven: bool) -> list[Trial]:
    """Trials of a double-blind arena: a random pair in random order, a task of the evaluator's choice, both from the same start.

    uneven: pairs are not spread over evaluators, so that some pairs meet on easy tasks and others on hard ones.
    """
    policies = len(world.logits)
    home = rng.integers(EVALUATORS, size=(policies, policies))
    found = []
    for session in range(number):
        first, second = rng.choice(policies, 2, replace=False)
        evaluator = home[min(first, second), max(first, second)] if uneven else rng.integers(EVALUATORS)
        task = rng.choice(world.taste.shape[1], p=world.taste[evaluator])
        logits = world.logits[[first, second], task]
        good = rng.random(2) < expit(logits)
        partial = 80 * expit(logits + 0.3 * (evaluator - EVALUATORS // 2) + rng.normal(size=2))
        found.append(
            Trial(
                f"{session}",
                f"{first}",
                f"{second}",
                _preferred(*map(bool, good)),
                evaluator=f"{evaluator}",
                task=f"{task}",
                progress=tuple(float(score) for score in np.where(good, 100.0, partial)),
            )
        )
    return found


def centralised(rng: np.random.Generator, world: World, number: int, tasks: int = 5) -> Float[np.ndarray, " P"]:
    """Success of every policy on a few fixed tasks, with as many runs as that number of pairwise trials has."""
    fixed = rng.choice(world.logits.shape[1], tasks, replace=False)
    runs = max(1, round(2 * number / len(world.logits) / tasks))
    return rng.binomial(runs, expit(world.logits[:, fixed])).sum(1) / (runs * tasks)


def scores_of(judge: str, trials: list[Trial], policies: int, seed: int = 0) -> Float[np.ndarray, " P"]:
    """What a way of judging makes of trials: an ability or mean score for every policy."""
    names = [f"{policy}" for policy in range(policies)]
    counts = count(trials, names)
    match judge:
        case "task-aware":
            return fit_task_aware(counts, BUCKETS, seed=seed).ability
        case "one bucket":
            return fit_task_aware(counts, 1, restarts=1, seed=seed).ability
        case "Bradley-Terry":
            return penalised(counts, PRIORS.ability)
    return mean_progress(trials, names)


def _preferred(first: bool, second: bool) -> str:
    return "tie" if first == second else ("first" if first else "second")


BUCKETS = 2

CARD = Card(
    slug="roboarena",
    name="RoboArena",
    title="RoboArena: Distributed Real-World Evaluation of Generalist Robot Policies",
    arxiv="2506.18123",
    family="robots",
    kind="judge",
    summary="ranks policies from pairwise trials in which every evaluator picks tasks and scenes freely",
    usage="""from polyact.evaluation.arena.ranking import rank
from polyact.evaluation.arena.trials import Trial, read_trials
trials = [Trial("monday", "pi-a", "pi-b", "first"), Trial("tuesday", "pi-b", "pi-a", "tie")]
print(rank(trials))
print(rank(read_trials("trials.json"), "bradley-terry"))""",
)


def prepare(key: PRNGKeyArray, sizes: tuple[int, int, int]) -> dict:
    policies, tasks, number = sizes
    rng = _numpy(key)
    world = draw_world(rng, policies, tasks)
    panels = {panel: hold(rng, world, number, uneven=panel == "uneven") for panel in ("even", "uneven")}
    return {"truth": world.truth, "panels": panels, "centralised": centralised(rng, world, number)}


def measure(key: PRNGKeyArray, judge: str, sizes: tuple[int, int, int], prepared: dict) -> Metrics:
    found = {}
    for panel, trials in prepared["panels"].items():
        scores = prepared["centralised"] if judge == "centralised" else scores_of(judge, trials, sizes[0])
        found |= {f"pearson_{panel}": pearson(prepared["truth"], scores), f"mmrv_{panel}": mmrv(prepared["truth"], scores)}
    return found


ARMS = {
    "task-aware": Arm("system", "task-aware Bradley-Terry with two buckets", "task-aware"),
    "one bucket": Arm("ablation", "the same model without buckets: all tasks alike", "one bucket"),
    "Bradley-Terry": Arm("baseline", "plain Bradley-Terry, a tie as half a win of each", "Bradley-Terry"),
    "mean progress": Arm("baseline", "mean progress score of a policy's own runs", "mean progress"),
    "centralised": Arm("baseline", "success on five fixed tasks drawn from all", "centralised"),
}
SYNTHETIC = Experiment(
    measure,
    ARMS,
    {"smoke": Scale(2, (4, 20, 120)), "laptop": Scale(50, (7, 100, 600))},
    testbed="7 synthetic policies with specialities, 100 tasks of mixed difficulty, 7 evaluators who choose tasks by taste",
    budget=Budget(
        data="600 pairwise trials; the centralised suite has the same number of runs; all judges of a panel read the same trials",
        steps="to convergence",
        network="none",
        tuning="buckets and priors are the defaults of the library, set once on seeds below 1000; both Bradley-Terry models share a prior",
    ),
    prepare=prepare,
    runner="threads",
)

SHARES = (0.0, 0.15, 0.3, 0.45, 0.6, 0.8)  # how many of a checkpoint's actions are random
SCENES = 128


def prepare_reacher(key: PRNGKeyArray, sizes: int) -> dict:
    env = Reacher()
    play, choose = jax.random.split(key)
    rule = Scripted(env, expert("reacher", "reach"))
    players = [numbers_as_arrays(Noisy(rule, RandomPolicy(env.action_space), share)) for share in SHARES]
    progress = np.stack([_progress(rollout(player, env, episodes=SCENES, key=play)) for player in players])
    return {"truth": (progress > 90).mean(1), "trials": _bots(_numpy(choose), progress, sizes)}


def measure_reacher(key: PRNGKeyArray, judge: str, sizes: int, prepared: dict) -> Metrics:
    return {"pearson": pearson(prepared["truth"], scores_of(judge, prepared["trials"], len(SHARES)))}


def _progress(episodes: Episodes) -> Float[np.ndarray, " E"]:
    """0 to 100: how much of the way to the target the fingertip has made at the end."""
    miss = np.linalg.norm(np.asarray(episodes.observation)[:, -2:], axis=-1)
    starts = episodes.starts + np.arange(episodes.count)
    return 100 * np.clip(1 - miss[starts + episodes.lengths] / miss[starts], 0, 1)


def _bots(rng: np.random.Generator, progress: Float[np.ndarray, "P scenes"], number: int) -> list[Trial]:
    """Evaluators that like scenes which the policies find easy, hard, or any; both policies of a trial meet the same scene."""
    ease, found = progress.mean(0) / 100, []
    for session in range(number):
        evaluator = session % 3
        taste = (ease + 0.05) ** (4, -4, 0)[evaluator]
        first, second = rng.choice(len(progress), 2, replace=False)
        scene = rng.choice(len(ease), p=taste / taste.sum())
        scores = progress[[first, second], scene]
        found.append(
            Trial(
                f"{session}",
                f"{first}",
                f"{second}",
                _preferred(*map(bool, scores > 90)),
                f"{evaluator}",
                f"{scene}",
                tuple(map(float, scores)),
            )
        )
    return found


def _numpy(key: PRNGKeyArray) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


REACHER = Experiment(
    measure_reacher,
    {name: ARMS[name] for name in ("task-aware", "one bucket", "Bradley-Terry", "mean progress")},
    {"smoke": Scale(2, 60), "laptop": Scale(10, 300)},
    testbed="six checkpoints of a reacher, from good to nearly random, compared by bots that choose easy scenes, hard ones or any",
    budget=Budget("300 pairwise trials from matched starts", "to convergence", "none", "as in the synthetic experiment"),
    prepare=prepare_reacher,
    runner="threads",
)

CLAIMS = (
    Claim(
        "free-tasks-beat-fixed-ones",
        "freely chosen tasks rank closer to the truth than five fixed ones at the same cost",
        SYNTHETIC,
        "pearson_even",
        Beats("task-aware", {"centralised": 0.0}),
    ),
    Claim(
        "fewer-violations",
        "and violate the true ranks less",
        SYNTHETIC,
        "mmrv_even",
        Beats("task-aware", {"centralised": 0.0}),
        better="lower",
    ),
    Claim(
        "buckets-do-no-harm",
        "where pairs meet on the same tasks, buckets are no worse than plain Bradley-Terry",
        SYNTHETIC,
        "pearson_even",
        Beats("task-aware", {"Bradley-Terry": -0.01, "one bucket": -0.01}),
    ),
    Claim(
        "buckets-help-when-uneven",
        "where pairs meet on different tasks, buckets rank clearly better",
        SYNTHETIC,
        "pearson_uneven",
        Beats("task-aware", {"Bradley-Terry": 0.02, "one bucket": 0.0}),
    ),
    Claim(
        "end-to-end",
        "bots that choose scenes by taste recover the order of reacher checkpoints",
        REACHER,
        "pearson",
        Within("task-aware", low=0.9),
    ),
)
