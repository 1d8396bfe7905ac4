"""`polyact train`: a learner, data or an environment, and a run folder at the end."""

import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax

from polyact import cache
from polyact.acting.rollout import rollout
from polyact.app import runs
from polyact.app.arguments import Train
from polyact.app.show import print_json, say
from polyact.data import Mixture, Source
from polyact.data.formats import read
from polyact.envs.catalogue import make
from polyact.envs.host import HostEnv
from polyact.errors import PolyactError, TrainingError
from polyact.files import set_aside
from polyact.learning import catalogue, checkpoint
from polyact.learning.averaged import Averaged
from polyact.learning.fit import fit
from polyact.learning.fitted import Fitted
from polyact.learning.train import train
from polyact.policies.base import Policy, greedy
from polyact.policies.fitting import check_fits

EVALUATION_EPISODES = 16


def run(command: Train) -> None:
    entry = catalogue.entry(command.learner)
    learner = catalogue.learner(command.learner, command.set)
    _check(command, entry)
    out = command.out or runs.next_folder(command.learner)
    runs.check_free(out, command.resume, command.overwrite)
    cache.enable()
    env = _env(command) if command.env else None
    mixture = mixture_of(command.data) if command.data else None
    learner = Averaged(learner=learner, decay=command.ema) if command.ema is not None else learner
    options = _options(command, env, out)
    facts = {
        "learner": command.learner,
        "settings": list(command.set),
        "data": list(command.data),
        "env": command.env,
        "seed": command.seed,
    }
    with set_aside(out) if command.overwrite else nullcontext():
        try:
            fitted = train(learner, env, **options) if mixture is None else fit(learner, mixture, **options)  # pyright: ignore[reportArgumentType]
        except TrainingError as error:
            kept = error.progress and runs.write_stopped(out, error.progress, str(error), facts)
            raise TrainingError(f"{error} in {out}" if kept else str(error)) from error
        except KeyboardInterrupt:
            if newest := checkpoint.latest(out / "checkpoints"):
                print(f"polyact: step {int(newest.name)} is kept in {out}; --resume goes on from there", file=sys.stderr)
            raise
        _tell(command, runs.write(out, fitted, facts), fitted)


def _check(command: Train, entry: catalogue.Entry) -> None:
    if not command.data and not command.env:
        raise PolyactError("train needs --data PATH to learn from data, or --env ENV to learn in an environment")
    if command.data and not entry.offline:
        raise PolyactError(f"{command.learner} learns in an environment, not from data; leave out --data")
    if not command.data and not entry.online:
        raise PolyactError(f"{command.learner} learns from data; give it --data PATH (polyact data make {command.env} makes some)")
    if command.resume and command.out is None:
        raise PolyactError("--resume needs --out, the folder of the run to continue")
    if command.ema is not None and not command.data:
        raise PolyactError("--ema has no effect when learning in an environment")
    for name in ("envs", "update_ratio", "learning_starts", "buffer_size"):
        if command.data and getattr(command, name) is not None:
            raise PolyactError(f"--{name.replace('_', '-')} has no effect when learning from data")
    if command.data and command.env and not command.evaluate_every:
        raise PolyactError("--env beside --data has no effect without --evaluate-every")
    if command.evaluate_every and not command.env:
        raise PolyactError("--evaluate-every has no effect without --env")


def _env(command: Train) -> Any:
    """The environment; one that lives on the host with as many slots as the seeds need to train in."""
    assert command.env
    env = make(command.env)
    slots = 1 if command.data else command.seeds * (command.envs or 1)
    if isinstance(env, HostEnv) and slots > 1:
        env.close()
        return make(command.env, count=slots)
    return env


def _options(command: Train, env: Any, out: Path) -> dict[str, Any]:
    names = ("batch_size", "report_every", "envs", "update_ratio", "learning_starts", "buffer_size")
    given = {name: value for name in names if (value := getattr(command, name)) is not None}
    judged = make(command.env) if isinstance(env, HostEnv) and command.env else env  # training's own episodes go on meanwhile
    return given | {
        "steps": command.steps,
        "key": jax.random.key(command.seed),
        "seeds": command.seeds,
        "evaluate": returns_in(judged, command.seed) if command.evaluate_every else None,
        "evaluate_every": command.evaluate_every,
        "checkpoints": out / "checkpoints",
        "checkpoint_every": command.checkpoint_every,
        "resume": command.resume,
        "progress": not command.json,
    }


def mixture_of(paths: tuple[str, ...]) -> Mixture:
    """The sources of all paths; PATH@WEIGHT shares the weight among the sources of that path by their steps."""
    sources: list[Source] = []
    weights: list[float] = []
    for text in paths:
        path, weight = split_weight(text)
        found = read(path)
        steps = sum(source.episodes.steps for source in found)
        sources += found
        weights += [source.episodes.steps if weight is None else weight * source.episodes.steps / steps for source in found]
    weighted = [split_weight(text)[1] is not None for text in paths]
    if any(weighted) and not all(weighted):
        raise PolyactError("give every --data a weight (PATH@WEIGHT) or none")
    return Mixture(tuple(_named_apart(sources)), tuple(weights))


def split_weight(text: str) -> tuple[Path, float | None]:
    """PATH or PATH@WEIGHT; an existing path that holds an @ is taken as it is."""
    path, at, weight = text.rpartition("@")
    if not at or Path(text).exists():
        return Path(text), None
    try:
        return Path(path), float(weight)
    except ValueError as error:
        raise PolyactError(f"'{weight}' is no weight in --data {text}; write PATH@NUMBER") from error


def returns_in(env: Any, seed: int) -> Callable[[Policy], dict[str, float]]:
    """A judge of policies: the mean return over a few episodes that are the same every time."""
    key = jax.random.key(10_000 + seed)

    def judge(policy: Policy) -> dict[str, float]:
        check_fits(policy, env)
        return {"return": float(rollout(greedy(policy), env, episodes=EVALUATION_EPISODES, key=key).returns.mean())}

    return judge


def _named_apart(sources: list[Source]) -> list[Source]:
    names: dict[str, int] = {}
    out = []
    for source in sources:
        names[source.name] = names.get(source.name, 0) + 1
        number = names[source.name]
        out.append(source if number == 1 else source.with_episodes(source.episodes, f"{source.name}-{number}"))
    return out


def _tell(command: Train, made: runs.Run, fitted: Fitted) -> None:
    last = fitted.history[-len(fitted.states) :]
    if command.json:
        print_json({"run": str(made.path), "seconds": made.facts["seconds"], "steps": fitted.steps, "last": last})
        return
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in last[0].items() if isinstance(value, float))
    say(f"{command.learner}: {fitted.steps} steps in {fitted.seconds:.1f} s. Last report: {numbers}")
    say(f"Saved in {made.path}. Next: polyact eval {made.path} --env {command.env or 'ENV'} --report report.html")
