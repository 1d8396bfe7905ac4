"""`fit`: from data to a policy. Sampling and updates are one compiled program per reporting interval, with the data on the device.

Data beyond the device budget stays on the host; blocks of batches are read ahead in a second thread while the device works on the
one before. The batches are the same, bit for bit.
"""

import hashlib
import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from polyact.data.episodes import leaves
from polyact.data.sampling import Batch, Draw, NStep, Rows, Sampling, draw_from
from polyact.data.source import Data, Mixture, as_mixture
from polyact.data.table import Columns, Index, Stacked, build_table
from polyact.errors import PolyactError
from polyact.learning import checkpoint
from polyact.learning.base import Learner, Trainable
from polyact.learning.fitted import Fitted, check_options, needs_other
from polyact.learning.fleet import Driver, Fleet, Summary, ThreadFleet
from polyact.learning.loop import Evaluate, Hooks, Plan, Record, run
from polyact.learning.program import Count, as_count, fleet_of, program, repeat
from polyact.policies.spec import Spec

BLOCK_BYTES = 64 << 20


def fit(
    learner: Trainable,
    data: Data,
    *,
    steps: int,
    key: PRNGKeyArray,
    batch_size: int = 256,
    seeds: int = 1,
    sampling: Sampling | None = None,
    weights: np.ndarray | None = None,
    report_every: int = 1000,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    checkpoints: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    device_memory: int = 4 << 30,
    progress: bool = True,
) -> Fitted:
    """Train a learner (or a model, or a judgement) on data.

    data: Episodes, Source, Mixture or sources. Sources without a column the learner needs are left out with a warning.
    seeds: how many policies to train; seed i uses fold_in(key, i), so more seeds never change the earlier ones.
    sampling: replaces the learner's own; weights: per step or per episode, within each source.
    evaluate(policy) -> numbers, every `evaluate_every` steps and at the end. checkpoints: a folder, written every
    `checkpoint_every` steps; with `resume` the newest checkpoint there is continued, bit for bit.
    device_memory: bytes of data that may live on the device; more than that stays on the host.
    Raises TrainingError at the first non-finite metric, DataError or PolyactError when data or options do not fit.
    """
    check_options(batch_size, seeds)
    needs_other("evaluate_every", evaluate_every, "evaluate", evaluate)
    if evaluate and not isinstance(learner, Learner):
        raise PolyactError(f"evaluate has no effect: {type(learner).__name__} makes no policy")
    needs_other("checkpoint_every", checkpoint_every, "checkpoints", checkpoints)
    needs_other("resume", resume, "checkpoints", checkpoints)
    mixture = as_mixture(data)
    table, used = build_table(mixture, learner.needs, budget=device_memory, weights=weights)
    spec = Spec.from_sources(used.sources, steps)
    sampling = sampling or learner.sampling(spec)
    _same_discount(learner, sampling)
    draw = draw_from(table, sampling)
    keys = [jax.random.fold_in(key, seed) for seed in range(seeds)]
    plan = Plan(steps, min(report_every, steps), evaluate_every, checkpoint_every)
    numbers = {"batch_size": batch_size, "seeds": seeds, "steps": steps}
    identity = _identity(learner, sampling, used, [] if weights is None else weights, numbers, key)
    states = [_initial(learner, spec, k) for k in keys]
    where = Path(checkpoints) if checkpoints else None
    done, states, history = checkpoint.resumed(where if resume else None, states, identity)
    problem = Problem(learner, sampling, draw, table.index, table.columns, batch_size)
    policy = learner.policy if isinstance(learner, Learner) else None
    hooks = Hooks(policy, evaluate, where, identity, f"fit {type(learner).__name__}", progress)
    began = time.perf_counter()
    with ThreadPoolExecutor(max(1, min(seeds, 4)), "polyact-read-ahead") as readers:
        fleet = _fleet(problem, table.resident, states, keys, readers)
        end = run(plan, fleet, done, history, hooks)
    return Fitted(learner, spec, tuple(end.states), end.history, steps, time.perf_counter() - began, identity)


class Problem(eqx.Module):
    """Everything an interval needs besides the state and the key."""

    learner: Trainable
    sampling: Sampling
    draw: Draw
    index: Index
    columns: Columns
    batch_size: int = eqx.field(static=True)

    def rows(self, key: PRNGKeyArray) -> Rows:
        start, rest = jax.random.split(key)
        steps = self.draw.steps(start, self.batch_size)
        return self.sampling.rows(self.index, steps, rest)

    def batch(self, key: PRNGKeyArray) -> Batch:
        return self.sampling.gather(self.columns, self.rows(key))


def advance(problem: Problem, state: PyTree, key: PRNGKeyArray, first: Count, count: Count) -> tuple[PyTree, Summary]:
    """`count` updates from step `first`, drawing batches on the device. Step i depends on fold_in(key, i) alone."""

    def one(i: Any, state: PyTree) -> tuple[PyTree, dict[str, Any]]:
        draw, update = jax.random.split(jax.random.fold_in(key, i))
        return problem.learner.update(state, problem.batch(draw), update)

    return repeat(one, state, first, count)


def advance_block(
    learner: Trainable, batches: Batch, state: PyTree, key: PRNGKeyArray, first: Count, count: Count
) -> tuple[PyTree, Summary]:
    """The same updates with the batches given, stacked along the first axis."""

    def one(i: Any, state: PyTree) -> tuple[PyTree, dict[str, Any]]:
        batch = jax.tree.map(lambda column: column[i - first], batches)
        _, update = jax.random.split(jax.random.fold_in(key, i))
        return learner.update(state, batch, update)

    return repeat(one, state, first, count)


@eqx.filter_jit
def _initial(learner: Trainable, spec: Spec, key: PRNGKeyArray) -> PyTree:
    return learner.init(spec, jax.random.fold_in(key, 2**31 - 1))


def _fleet(problem: Problem, resident: bool, states: list[PyTree], keys: list[PRNGKeyArray], readers: ThreadPoolExecutor) -> Fleet:
    if not resident:
        return ThreadFleet([_host_driver(problem, key, readers) for key in keys], states)
    return fleet_of(advance, problem, states, keys)


def _host_driver(problem: Problem, key: PRNGKeyArray, readers: ThreadPoolExecutor) -> Driver:
    """Batches are read on the host one block ahead of the device; memory is bounded by two blocks."""
    pick = eqx.filter_jit(_block_rows)
    length = _block_length(problem, key)

    def read(first: int) -> Batch:
        rows = jax.tree.map(np.asarray, pick(problem, key, as_count(first), length))
        return jax.tree.map(jnp.asarray, problem.sampling.gather(problem.columns, rows))

    def driver(state: PyTree, first: int, count: int) -> tuple[PyTree, Summary]:
        stops = range(first, first + count, length)
        ahead: Future[Batch] = readers.submit(read, stops[0])
        summaries = []
        for at in stops:
            block = ahead.result()
            if at + length < first + count:
                ahead = readers.submit(read, at + length)
            given = problem.learner, block, state, key, as_count(at), as_count(min(length, first + count - at))
            state, summary = program(advance_block, *given)(*given)
            summaries.append(summary)
        return state, _merge(summaries)

    return driver


def _block_rows(problem: Problem, key: PRNGKeyArray, first: Any, length: int) -> Rows:
    """The rows of steps first .. first + length - 1, stacked: exactly those that `advance` would draw."""
    place = eqx.filter(problem, lambda leaf: not isinstance(leaf, Stacked))
    return jax.vmap(lambda i: place.rows(jax.random.split(jax.random.fold_in(key, i))[0]))(first + jnp.arange(length))


def _block_length(problem: Problem, key: PRNGKeyArray) -> int:
    rows = jax.tree.map(np.asarray, eqx.filter_jit(problem.rows)(key))
    bytes_of_batch = sum(leaf.nbytes for leaf in jax.tree.leaves(problem.sampling.gather(problem.columns, rows)))
    return max(1, min(512, BLOCK_BYTES // max(bytes_of_batch, 1)))


def _merge(summaries: list[Summary]) -> Summary:
    def first(*steps: Any) -> Any:
        return next((step for step in steps if int(step) >= 0), steps[0])

    sums, counts = jax.tree.map(lambda *values: sum(values), *[(s.sums, s.counts) for s in summaries])
    return Summary(sums, jax.tree.map(first, *[s.broken for s in summaries]), counts)


def fingerprint(mixture: Mixture) -> str:
    """A short hash of everything in a mixture: names, weights and the bytes of a sample of rows of every column."""
    digest = hashlib.sha256(json.dumps([[s.name for s in mixture.sources], [round(w, 12) for w in mixture.weights]]).encode())
    for source in mixture.sources:
        digest.update(source.episodes.lengths.tobytes())
        for name, column, rows in source.episodes.columns():
            for path, array in leaves(column, name):
                digest.update(f"{path}{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array[:: max(1, rows // 4096)]).tobytes())
    return digest.hexdigest()[:16]


def _same_discount(learner: Trainable, sampling: Sampling) -> None:
    """n-step returns are sums under a discount; bootstrapping with another one would mix two problems."""
    own = getattr(learner, "discount", None)
    if isinstance(sampling, NStep) and isinstance(own, float) and sampling.discount != own:
        raise PolyactError(f"NStep sums rewards with discount {sampling.discount}, {type(learner).__name__} has discount {own}")


def _identity(
    learner: Trainable, sampling: Sampling, mixture: Mixture, weights: Any, numbers: dict[str, Any], key: PRNGKeyArray
) -> Record:
    """What must agree for a checkpoint to be continued."""
    return {
        "learner": repr(learner),
        "sampling": repr(sampling),
        "values": checkpoint.fingerprint((learner, sampling, np.asarray(weights))),
        "data": fingerprint(mixture),
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        **numbers,
    }
