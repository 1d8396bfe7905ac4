"""What is learned, not how fast: returns over seeds with intervals, on the tasks that polyact promises to solve.

Every policy is judged after the last step of training (never at its best), by its mode, on the same 64 initial states. Intervals hold
for training again and for other initial states.
"""

from collections.abc import Callable
from typing import Any

from common import Json, Options, main, say, significant

PARTS: tuple[str, ...] = ("pendulum-random", "online", "hopper-replay", "d3rlpy-iql")
PENDULUM_BAR = -200.0
EXPERT_SHARE = 0.9  # of the scripted expert's return: what counts as having solved the swing-up


def measure(options: Options) -> Json:
    result: Json = {"seeds": _seeds(options), "episodes": _episodes(options)}
    for part in options.only:
        say(part)
        result[part] = RUN[part](options)
    return result


def pendulum_from_random_data(options: Options) -> Json:
    """Offline learners on 100,000 steps of uniformly random torque."""
    from polyact.acting.rollout import rollout
    from polyact.envs.pendulum import Pendulum
    from polyact.policies.random_policy import RandomPolicy

    env = Pendulum()
    data = rollout(RandomPolicy(env.action_space), env, episodes=options.pick(500, 4), key=_key(7))
    found = {name: _offline(name, settings, data, env, steps, options) for name, (settings, steps) in FROM_RANDOM.items()}
    best = max(found, key=lambda name: found[name]["mean"]["value"])
    value = found[best]["mean"]["value"]
    return found | {"best": best, "bar": f"> {PENDULUM_BAR:g}", "met": value > PENDULUM_BAR}


def online(options: Options) -> Json:
    """PPO and SAC on Pendulum and CartPoleSwingUp."""
    from polyact.envs.catalogue import make
    from polyact.learning.catalogue import learner
    from polyact.learning.train import train
    from polyact.policies.scripted import Scripted

    bars = {"pendulum": PENDULUM_BAR}
    swing_up = make("cartpole-swingup")
    reference = _play([Scripted(swing_up, "cartpole-swingup/swing_up")], swing_up, options)
    bars["cartpole-swingup"] = EXPERT_SHARE * float(reference.mean())
    found: Json = {"scripted expert of cartpole-swingup": significant(float(reference.mean()))}
    for name, world in options.pick(list(ONLINE), [("sac", "pendulum"), ("ppo", "cartpole-swingup")]):
        settings, steps, how = ONLINE[name, world]
        env, count = make(world), options.pick(steps, 2_000)
        how = {key: options.pick(value, min(value, 8)) if key == "envs" else value for key, value in how.items()}
        made = train(learner(name, settings), env, steps=count, seeds=_seeds(options), key=_key(0), progress=False, **how)
        report = _estimate(_play(made.policies, env, options)) | {"steps": count, "settings": settings}
        found[f"{name} on {world}"] = report | {
            "bar": f"> {bars[world]:.4g}",
            "met": report["mean"]["value"] > bars[world],
            "seeds above": sum(value > bars[world] for value in report["by seed"]),
        }
    return found


def hopper_replay(options: Options) -> Json:
    """Offline learners against BC on what an agent did until it was halfway good."""
    data, env = _hopper(options)
    scores: dict[str, Any] = {}
    found: Json = {"data": {"episodes": data.episodes.count, "mean return": significant(float(data.episodes.returns.mean()))}}
    for name, (settings, steps) in REPLAY.items():
        found[name], scores[name] = _offline_scores(name, settings, data, env, steps, options)
    for name in scores.keys() - {"bc"}:
        gain = _difference(scores[name], scores["bc"])
        found[f"{name} minus bc"] = gain | {"bar": "interval above zero", "met": gain["low"] > 0}
    return found


def d3rlpy_iql(options: Options) -> Json:
    """The same data and settings for d3rlpy's IQL; its networks are judged here, on the same episodes."""
    from d3rlpy_side import train_there

    from polyact.envs.pendulum import Pendulum

    env = Pendulum()
    data = _mixed_pendulum(env, options)
    steps = options.pick(10_000, 20)
    ours, own = _offline_scores("iql", AGREE, data, env, steps, options)
    theirs = train_there(data, steps, _seeds(options), options)
    if isinstance(theirs, str):
        return {"polyact": ours, "missing": theirs}
    peer = _play(theirs, env, options)
    gap = _difference(own, peer)
    return {
        "data": {"steps": data.episodes.steps, "mean return": significant(float(data.episodes.returns.mean()))},
        "polyact": ours,
        "d3rlpy": _estimate(peer),
        "polyact minus d3rlpy": gap | {"bar": "interval holds zero", "met": gap["low"] <= 0 <= gap["high"]},
    }


def _offline(name: str, settings: list[str], data: Any, env: Any, steps: int, options: Options) -> Json:
    return _offline_scores(name, settings, data, env, steps, options)[0]


def _offline_scores(name: str, settings: list[str], data: Any, env: Any, steps: int, options: Options) -> tuple[Json, Any]:
    from polyact.learning.catalogue import learner
    from polyact.learning.fit import fit

    count = options.pick(steps, 20)
    made = fit(learner(name, settings), data, steps=count, seeds=_seeds(options), key=_key(0), progress=False)
    scores = _play(made.policies, env, options)
    report = _estimate(scores) | {"steps": count, "settings": settings, "seconds": significant(made.seconds, 3)}
    say(f"  {name}: {report['mean']['text']}")
    return report, scores


def _mixed_pendulum(env: Any, options: Options) -> Any:
    """The scripted expert with none, some and all of its actions random."""
    from polyact.acting.rollout import rollout
    from polyact.data import Source, concatenate
    from polyact.learning.behaviours import Noisy
    from polyact.policies.random_policy import RandomPolicy
    from polyact.policies.scripted import Scripted

    scripted, random = Scripted(env, "pendulum/swing_up"), RandomPolicy(env.action_space)
    count = options.pick(50, 2)
    parts = [
        rollout(Noisy(scripted, random, share), env, episodes=count, key=_key(number))
        for number, share in enumerate((0.0, 0.3, 0.6, 1.0))
    ]
    return Source(concatenate(parts), "mixed", env.observation_space, env.action_space)


def _hopper(options: Options) -> tuple[Any, Any]:
    from polyact.acting.rollout import rollout
    from polyact.data import Source
    from polyact.envs.catalogue import make
    from polyact.learning.behaviours import make_behaviours
    from polyact.learning.catalogue import learner
    from polyact.policies.random_policy import RandomPolicy

    env = make("hopper2d")
    if options.smoke:
        return Source(rollout(RandomPolicy(env.action_space), env, episodes=8, key=_key(5))), env
    teacher = learner("sac", ["width=64"])
    made = make_behaviours(env, teacher, steps=200_000, episodes=200, envs=8, key=_key(5), name="hopper2d", progress=False)
    say(f"  hopper2d: random {made.random_return:.4g}, expert {made.expert_return:.4g}")
    return made.sources["medium-replay"], env


def _play(policies: Any, env: Any, options: Options) -> Any:
    """Returns [seeds, episodes]."""
    import numpy as np

    from polyact.acting.rollout import rollout
    from polyact.policies.base import greedy

    return np.stack([rollout(greedy(p), env, episodes=_episodes(options), key=_key(1000)).returns for p in policies])


def _estimate(scores: Any) -> Json:
    from polyact.evaluation.statistics.estimate import estimate

    return {"mean": _as_json(estimate(scores)), "by seed": [significant(float(value)) for value in scores.mean(1)]}


def _difference(first: Any, second: Any) -> Json:
    from polyact.evaluation.statistics.compare import difference

    return _as_json(difference(first, second)[0])


def _as_json(found: Any) -> Json:
    numbers = {name: significant(float(getattr(found, name))) for name in ("value", "low", "high")}
    return numbers | {"level": found.level, "sample": found.sample, "text": str(found)}


def _key(number: int) -> Any:
    import jax

    return jax.random.key(number)


def _seeds(options: Options) -> int:
    return options.pick(5, 2)


def _episodes(options: Options) -> int:
    return options.pick(64, 4)


FROM_RANDOM: dict[str, tuple[list[str], int]] = {
    "td3-bc": (["width=64", "alpha=100.0", "learning_rate=1e-3"], 20_000),
    "iql": (["width=64", "expectile=0.9", "temperature=10.0", "learning_rate=1e-3"], 20_000),
}
ONLINE: dict[tuple[str, str], tuple[list[str], int, dict[str, Any]]] = {
    ("sac", "pendulum"): (["width=64", "learning_rate=1e-3"], 15_000, {"envs": 4, "update_ratio": 0.5}),
    ("ppo", "pendulum"): (
        ["discount=0.95", "learning_rate=1e-3", "schedule=linear", "rollout_length=200", "minibatches=32"],
        150_000,
        {"envs": 16},
    ),
    ("sac", "cartpole-swingup"): (["width=64", "learning_rate=1e-3"], 60_000, {"envs": 4, "update_ratio": 0.5}),
    ("ppo", "cartpole-swingup"): (
        ["learning_rate=1e-3", "schedule=linear", "rollout_length=128", "minibatches=32"],
        600_000,
        {"envs": 64},
    ),
}
REPLAY: dict[str, tuple[list[str], int]] = {
    "bc": (["width=64"], 40_000),
    "td3-bc": (["width=64"], 40_000),
    "iql": (["width=64"], 40_000),
}
AGREE = ["width=64", "actor_optimiser.schedule=constant"]
RUN: dict[str, Callable[[Options], Json]] = dict(
    zip(PARTS, (pendulum_from_random_data, online, hopper_replay, d3rlpy_iql), strict=True)
)


if __name__ == "__main__":
    main("quality", __doc__ or "", measure, PARTS, times_matter=False)
