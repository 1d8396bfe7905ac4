"""What is learned, not how fast: returns over seeds with intervals, on the tasks that polyact promises to solve.

Every policy is judged after the last step of training (never at its best), by its mode, on the same 64 initial states. Intervals hold
for training again and for other initial states. Settings were chosen with `--tuning`; without it the seeds are others (`judging.py`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from common import Json, Options, main, say, significant
from judging import Seeds, differing, estimated, key, play, reaching
from through_minari import mujoco

PENDULUM_BAR = -200.0
EXPERT_SHARE = 0.9  # of the scripted expert's return: what counts as having solved the swing-up
BATCH = 256


def measure(options: Options) -> Json:
    result: Json = {"seeds": Seeds.of(options).as_json()}
    for part in options.only:
        say(part)
        result[part] = RUN[part](options)
    return result


def pendulum_from_random_data(options: Options) -> Json:
    """Offline learners on 100,000 steps of uniformly random torque."""
    from polyact.acting.rollout import rollout
    from polyact.envs.pendulum import Pendulum
    from polyact.policies.random_policy import RandomPolicy

    env, seeds = Pendulum(), Seeds.of(options)
    data = rollout(RandomPolicy(env.action_space), env, episodes=options.pick(500, 4), key=key(seeds.collecting))
    found: Json = {"data": _about(data)}
    for name, (settings, steps) in FROM_RANDOM.items():
        report, scores = _offline(name, settings, data, env, steps, options)
        found[name] = report | reaching(scores, PENDULUM_BAR)
    return found | {"met": any(found[name]["met"] for name in FROM_RANDOM)}


def online(world: str, options: Options) -> Json:
    """PPO and SAC in an environment."""
    from polyact.envs.catalogue import make
    from polyact.learning.catalogue import learner
    from polyact.learning.train import train
    from polyact.policies.scripted import Scripted

    env, seeds, bar = make(world), Seeds.of(options), PENDULUM_BAR
    found: Json = {}
    if world == "cartpole-swingup":
        expert = float(play([Scripted(env, "cartpole-swingup/swing_up")], env, seeds).mean())
        bar, found["scripted expert"] = EXPERT_SHARE * expert, significant(expert)
    for name in options.pick(list(ONLINE[world]), list(ONLINE[world])[:1]):
        settings, steps, how = ONLINE[world][name]
        count, how = options.pick(steps, 2_000), how | {"envs": options.pick(how["envs"], min(how["envs"], 8))}
        made = train(learner(name, settings), env, steps=count, seeds=seeds.runs, key=key(seeds.training), progress=False, **how)
        found[name] = reaching(play(made.policies, env, seeds), bar) | {"steps": count, "settings": settings} | how
        found[name] |= {"seconds": significant(made.seconds, 3)}
        say(f"  {name}: {found[name]['mean']['text']}")
    return found


def hopper_replay(options: Options) -> Json:
    """Offline learners against BC on what an agent did until it was halfway good; one network, batch and number of steps for all."""
    data, env = _hopper(options)
    scores: dict[str, Any] = {}
    found: Json = {"data": _about(data.episodes)}
    for name, settings in REPLAY.items():
        found[name], scores[name] = _offline(name, settings, data, env, REPLAY_STEPS, options)
    for name in scores.keys() - {"bc"}:
        gain = differing(scores[name], scores["bc"])
        found[f"{name} minus bc"] = gain | {"bar": "interval above zero", "met": gain["low"] > 0}
    return found


def d3rlpy_iql(options: Options) -> Json:
    """The same data and settings for d3rlpy's IQL; its networks are judged here, on the same episodes."""
    from d3rlpy_side import settings_of, train_there

    from polyact.envs.pendulum import Pendulum
    from polyact.learning.catalogue import learner

    env, seeds = Pendulum(), Seeds.of(options)
    data = _mixed_pendulum(env, options)
    steps = options.pick(10_000, 20)
    ours, own = _offline("iql", AGREE, data, env, steps, options)
    found: Json = {"data": _about(data.episodes), "polyact": ours}
    settings = settings_of(learner("iql", AGREE)) | {"batch_size": BATCH, "steps": steps}
    theirs = train_there(data, settings, range(seeds.training, seeds.training + seeds.runs), options)
    if isinstance(theirs, str):
        return found | {"missing": theirs}
    peer = play(theirs, env, seeds)
    gap = differing(own, peer)
    return found | {
        "d3rlpy": estimated(peer) | {"settings": settings},
        "polyact minus d3rlpy": gap | {"bar": "interval holds zero", "met": gap["low"] <= 0 <= gap["high"]},
    }


def _offline(name: str, settings: list[str], data: Any, env: Any, steps: int, options: Options) -> tuple[Json, Any]:
    """What there is to report, and returns [seeds, episodes]."""
    from polyact.learning.catalogue import learner
    from polyact.learning.fit import fit

    count, seeds = options.pick(steps, 20), Seeds.of(options)
    how: dict[str, Any] = {"steps": count, "batch_size": BATCH}
    made = fit(learner(name, settings), data, seeds=seeds.runs, key=key(seeds.training), progress=False, **how)
    scores = play(made.policies, env, seeds)
    report = estimated(scores) | how | {"settings": settings, "seconds": significant(made.seconds, 3)}
    say(f"  {name}: {report['mean']['text']}")
    return report, scores


def _mixed_pendulum(env: Any, options: Options) -> Any:
    """The scripted expert with none, some and all of its actions random."""
    from polyact.acting.rollout import rollout
    from polyact.data import Source
    from polyact.data.episodes import concatenate
    from polyact.learning.behaviours import Noisy
    from polyact.policies.random_policy import RandomPolicy
    from polyact.policies.scripted import Scripted

    scripted, random = Scripted(env, "pendulum/swing_up"), RandomPolicy(env.action_space)
    count, first = options.pick(50, 2), Seeds.of(options).collecting
    parts = [
        rollout(Noisy(scripted, random, share), env, episodes=count, key=key(first + number))
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

    env, first = make("hopper2d"), key(Seeds.of(options).collecting)
    if options.smoke:
        return Source(rollout(RandomPolicy(env.action_space), env, episodes=8, key=first)), env
    teacher = learner("sac", ["width=64"])
    made = make_behaviours(env, teacher, steps=200_000, episodes=200, envs=8, key=first, name="hopper2d", progress=False)
    say(f"  hopper2d: random {made.random_return:.4g}, expert {made.expert_return:.4g}")
    return made.sources["medium-replay"], env


def _about(episodes: Any) -> Json:
    """What there was to learn from."""
    mean, best = float(episodes.returns.mean()), float(episodes.returns.max())
    facts = {"episodes": int(episodes.count), "steps": int(episodes.steps)}
    return facts | {"mean return": significant(mean), "best return": significant(best)}


FROM_RANDOM: dict[str, tuple[list[str], int]] = {
    "td3-bc": (["width=64", "alpha=100.0", "learning_rate=1e-3"], 20_000),
    "iql": (["width=64", "expectile=0.9", "temperature=10.0", "learning_rate=1e-3"], 20_000),
}
ONLINE: dict[str, dict[str, tuple[list[str], int, dict[str, Any]]]] = {
    "pendulum": {
        "sac": (["width=64", "learning_rate=1e-3"], 20_000, {"envs": 4, "update_ratio": 1.0}),
        "ppo": ([], 150_000, {"envs": 16}),
    },
    "cartpole-swingup": {
        "ppo": ([], 600_000, {"envs": 16}),
        "sac": (["width=64", "learning_rate=1e-3"], 60_000, {"envs": 4, "update_ratio": 0.5}),
    },
}
REPLAY_STEPS = 40_000
REPLAY: dict[str, list[str]] = {  # of four or five settings each, the best on tuning seeds
    "bc": ["width=64"],
    "td3-bc": ["width=64", "learning_rate=1e-3"],
    "iql": ["width=64", "learning_rate=1e-3", "temperature=0.5"],
}
AGREE = ["width=64", "actor_optimiser.schedule=constant", "policy=gaussian", "policy.log_std=-1.5"]  # d3rlpy's initial spread
RUN: dict[str, Callable[[Options], Json]] = {
    "pendulum-random": pendulum_from_random_data,
    "pendulum": partial(online, "pendulum"),
    "cartpole-swingup": partial(online, "cartpole-swingup"),
    "hopper-replay": hopper_replay,
    "d3rlpy-iql": d3rlpy_iql,
    "mujoco": mujoco,
}


if __name__ == "__main__":
    main("quality", __doc__ or "", measure, tuple(RUN), times_matter=False)
