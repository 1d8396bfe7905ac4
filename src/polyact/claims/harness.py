"""Measure the arms of an experiment at every seed, with as much of the machine as is good for them.

Seeds are paired: every arm of a seed gets the same key and the same `prepared`. The first seed runs alone, several arms at once, and
leaves its compiled programs behind, on disk too. The others run side by side: on a CPU in processes, one for every core and with one
thread each, because programs this small gain nothing from a second thread and pay for it (six seeds of SACo took 41 s so, and 68 s in
threads); a single one in this process. What is finished is kept when the user interrupts.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import numpy as np

from polyact import cache as program_cache
from polyact.claims.claim import FIRST_TEST_SEED, Beats, Claim, Experiment
from polyact.errors import PolyactError
from polyact.learning.program import WITHOUT_YNN, release_programs
from polyact.progress import Bar

AGAIN = " (again)"  # a rival measured a second time, with keys of its own: the placebo's other side
_OTHER_KEYS = 7919
_OURS: list[BaseProcess] = []  # the processes that measure seeds, once they were started
Numbers = dict[str, dict[str, float]]  # arm -> metric -> number
Name = TypeVar("Name")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Measured:
    """Numbers of every arm at every seed that was finished, and how long it took (s)."""

    seeds: tuple[int, ...]
    values: dict[str, dict[str, np.ndarray]]
    seconds: float
    interrupted: bool = False


def prepare_xla() -> None:
    """Settings of XLA for claims; must come before anything is computed.

    One thread more than seeds run side by side: batches of LAPACK routines wait for threads of the pool they run in, and as many at
    once as it has threads wait for ever (jaxlib 0.10). Every further thread costs: two seeds took 5.6 s with two, 6.4 s with three and
    7.7 s with eight of them, on two cores. And all programs of claims are compiled as those for training are.
    """
    os.environ.setdefault("NPROC", str(1 + max(2, os.cpu_count() or 1)))
    if tuple(map(int, version("jaxlib").split(".")[:2])) >= (0, 10):  # older ones end the process at a flag that they do not know
        ours = [f"--{option}={value}" for option, value in WITHOUT_YNN.items()]
        given = os.environ.get("XLA_FLAGS", "").split()
        os.environ["XLA_FLAGS"] = " ".join([*(flag for flag in ours if flag not in given), *given])


def seeds_from(first: int, count: int) -> tuple[int, ...]:
    """The seeds of a run. Raises PolyactError when they mix tuning (below 1000) and test seeds."""
    if count < 1 or first < 0:
        raise PolyactError(f"seeds must be positive in number and not negative, got {count} from {first}")
    if first < FIRST_TEST_SEED < first + count:
        raise PolyactError(f"seeds {first} to {first + count - 1} mix tuning (below {FIRST_TEST_SEED}) and test seeds")
    return tuple(range(first, first + count))


def rivals_of(claims: Iterable[Claim], experiment: Experiment) -> tuple[str, ...]:
    """The rivals that the claims on an experiment name, each once."""
    tests = [claim.test for claim in claims if claim.experiment is experiment]
    return tuple(dict.fromkeys(rival for test in tests if isinstance(test, Beats) for rival in test.rivals))


def measure(
    experiment: Experiment,
    scale: str,
    seeds: Sequence[int],
    *,
    arms: Sequence[str] | None = None,
    again: Sequence[str] = (),
    where: tuple[str, int] | None = None,
    label: str = "claim",
    progress: bool = True,
) -> Measured:
    """Every arm (of `arms`) at every seed; the arms of `again` once more with independent keys, under the name 'ARM (again)'.

    where: (module, number among the experiments of its claims), which is how another process finds the experiment.
    Raises PolyactError when the scale can't run here.
    """
    size = _scale(experiment, scale)
    arms = tuple(experiment.arms) if arms is None else tuple(arms)
    if experiment.runner == "processes" and where is None:
        raise PolyactError("an experiment that runs in processes must be measured by its module's name")
    began, found, interrupted = time.perf_counter(), {}, False
    with Bar(label, len(seeds), progress) as bar:
        try:
            for seed, numbers in _all_seeds(experiment, size.sizes, scale, seeds, arms, tuple(again), where):
                found[seed] = numbers
                bar.advance_to(len(found), f"{scale}, seed {seed}")
        except KeyboardInterrupt:
            interrupted = True
            _stop_workers()
    done = tuple(seed for seed in seeds if seed in found)
    return Measured(done, _columns([found[seed] for seed in done]), time.perf_counter() - began, interrupted)


def one_seed(experiment: Experiment, sizes: Any, seed: int, arms: Sequence[str], again: Sequence[str], abreast: int = 1) -> Numbers:
    """The numbers of every arm at one seed. abreast: arms at once, which pays while their programs are compiled."""
    import jax

    run, prepare = _functions(experiment)

    def all_of(names: Sequence[str], key: Any) -> Numbers:
        prepared = prepare(key, sizes) if names else None

        def measured(name: str) -> dict[str, float]:
            metrics = run(key, experiment.arms[name].settings, sizes, prepared)
            return {metric: float(value) for metric, value in metrics.items()}

        if abreast == 1:
            return {name: measured(name) for name in names}
        with ThreadPoolExecutor(abreast) as pool:
            found = dict(_finished(pool, [(name, measured, (name,)) for name in names]))
        return {name: found[name] for name in names}

    key = jax.random.key(seed)
    second = {name + AGAIN: metrics for name, metrics in all_of(again, jax.random.fold_in(key, _OTHER_KEYS)).items()}
    return all_of(arms, key) | second


def together(experiment: Experiment, sizes: Any, seeds: Sequence[int], arms: Sequence[str], again: Sequence[str]) -> list[Numbers]:
    """The numbers of all seeds from one batched program per arm: what `one_seed` gives, on a device that likes batches."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    run, prepare = _functions(experiment)
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    rows: list[Numbers] = [{} for _ in seeds]
    for names, suffix, own in ((arms, "", keys), (again, AGAIN, jax.vmap(lambda k: jax.random.fold_in(k, _OTHER_KEYS))(keys))):
        prepared = eqx.filter_vmap(prepare, in_axes=(0, None))(own, sizes) if names else None
        for name in names:
            batched = eqx.filter_vmap(run, in_axes=(0, None, None, eqx.if_array(0)))
            metrics = batched(own, experiment.arms[name].settings, sizes, prepared)
            for i, row in enumerate(rows):
                row[name + suffix] = {metric: float(jnp.broadcast_to(value, len(seeds))[i]) for metric, value in metrics.items()}
    return rows


def _batches() -> bool:
    import jax

    return jax.default_backend() != "cpu"


def _all_seeds(
    experiment: Experiment,
    sizes: Any,
    scale: str,
    seeds: Sequence[int],
    arms: tuple[str, ...],
    again: tuple[str, ...],
    where: tuple[str, int] | None,
) -> Iterator[tuple[int, Numbers]]:
    if experiment.runner == "program" and _batches():
        yield from zip(seeds, together(experiment, sizes, seeds, arms, again), strict=True)
        return
    cores, others = os.cpu_count() or 1, list(seeds)
    if experiment.runner != "processes" or where is None:
        yield others[0], one_seed(experiment, sizes, others.pop(0), arms, again, cores)
    if where is not None and (experiment.runner == "processes" or (len(others) > 1 and not _batches())):
        try:
            yield from _finished(_workers(), [(seed, _elsewhere, (where, scale, seed, arms, again)) for seed in others])
        except BrokenProcessPool as error:
            _stop_workers()
            raise PolyactError("a process that measured seeds has died, perhaps for want of memory") from error
    elif others:
        with ThreadPoolExecutor(min(len(others), cores)) as pool:
            yield from _finished(pool, [(seed, one_seed, (experiment, sizes, seed, arms, again)) for seed in others])


def _finished(pool: Executor, jobs: Sequence[tuple[Name, Callable[..., Found], tuple[Any, ...]]]) -> Iterator[tuple[Name, Found]]:
    """Results as they come; what has not begun is dropped when anything goes wrong."""
    futures = {pool.submit(function, *arguments): name for name, function, arguments in jobs}
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:
            future.cancel()


@cache
def _workers() -> ProcessPoolExecutor:
    """A process for every core, for all experiments to come, each of which uses one thread."""
    before, cores, others = dict(os.environ), os.cpu_count() or 1, multiprocessing.active_children()
    os.environ.update(dict.fromkeys(("NPROC", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    try:
        pool = ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), _begin)
        for _ in range(cores):
            pool.submit(os.getpid)  # starts one of them, with this environment
    finally:
        os.environ.clear()
        os.environ.update(before)
    _OURS[:] = [process for process in multiprocessing.active_children() if process not in others]
    return pool


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever waits for this process decides when it ends
    program_cache.enable()


def _stop_workers() -> None:
    for process in _OURS:
        process.terminate()
    _workers.cache_clear()


def _elsewhere(where: tuple[str, int], scale: str, seed: int, arms: tuple[str, ...], again: tuple[str, ...]) -> Numbers:
    """`one_seed` in a process of its own."""
    module, number = where
    experiment = experiments(import_module(module).CLAIMS)[number]
    try:
        return one_seed(experiment, experiment.scales[scale].sizes, seed, arms, again)
    finally:
        release_programs(unless_fewer_maps_than=20_000)


def experiments(claims: Iterable[Claim]) -> list[Experiment]:
    """The experiments that claims read, each once."""
    return list({id(claim.experiment): claim.experiment for claim in claims}.values())


def _scale(experiment: Experiment, scale: str) -> Any:
    if scale not in experiment.scales:
        raise PolyactError(f"there is no {scale} scale (there is {', '.join(experiment.scales)})")
    size = experiment.scales[scale]
    if reason := size.missing():
        raise PolyactError(f"{scale} scale needs {size.needs}: {reason}")
    return size


_PROGRAMS: dict[int, tuple[Experiment, Any, Any]] = {}


def _functions(experiment: Experiment) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`measure` and `prepare`, compiled where they are programs; the same objects at every seed, so that nothing compiles twice."""
    if id(experiment) not in _PROGRAMS:
        prepare = experiment.prepare or _nothing
        if experiment.runner == "program":
            _PROGRAMS[id(experiment)] = (experiment, _compiled(experiment.measure), _compiled(prepare))
        else:
            _PROGRAMS[id(experiment)] = (experiment, experiment.measure, prepare)
    return _PROGRAMS[id(experiment)][1:]


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    import equinox as eqx

    return eqx.filter_jit(function)


def _nothing(key: Any, sizes: Any) -> None:
    return None


def _columns(rows: list[Numbers]) -> dict[str, dict[str, np.ndarray]]:
    if not rows:
        return {}
    return {arm: {metric: np.array([row[arm][metric] for row in rows]) for metric in rows[0][arm]} for arm in rows[0]}
