"""Every policy class as ONNX and as StableHLO does what the policy does, on ordinary and extreme observations, from step to step."""

import importlib
import pkgutil
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from export_examples import MAKERS, NO_ONNX, SPACES, classes, made

import polyact
from polyact import spaces
from polyact.errors import PolyactError
from polyact.exporting import sidecar
from polyact.exporting.onnx_file import write_onnx
from polyact.exporting.program import program_of, spaces_of
from polyact.exporting.stablehlo import write_stablehlo
from polyact.policies.base import Policy

pytestmark = pytest.mark.usefixtures("unoptimised")
SIZES = np.array([1.0, 10.0, 1e4, 0.0])  # of each row's observation: ordinary, large, absurd, none
STEPS = 4
ONE_EACH = {name.partition(",")[0]: name for name in reversed(MAKERS | NO_ONNX)}.values()
WRITE = {"onnx": write_onnx, "stablehlo": write_stablehlo}


@cache
def program(name):
    return program_of(made(name), *(SPACES.get(name) or spaces_of(made(name))), chunk=name == "whole chunk")


@cache
def example(name):
    """[(inputs by name, wanted outputs)] of every step; of the memory inputs only the original's knows."""
    policy, rng = made(name), np.random.default_rng(1)
    does = policy.chunk if program(name).chunk else policy.act
    starts = jax.random.split(jax.random.key(7), len(SIZES))
    step = jax.jit(jax.vmap(lambda seen, memory, key, start: (does(seen, memory, key), program(name).noise(key, start))))
    memory, steps = jax.vmap(policy.start)(starts), []
    for number in range(STEPS):
        seen = observations(program(name).observation_space, rng)
        keys = jax.random.split(jax.random.key(number), len(SIZES))
        (action, memory), noise = step(seen, memory, keys, starts)
        given = dict(zip((s.name for s in program(name).inputs), map(np.asarray, jax.tree.leaves(seen)), strict=False))
        given |= {slot: np.asarray(array) for slot, array in noise.items()}
        steps.append((given, [np.asarray(leaf) for leaf in jax.tree.leaves((action, memory))]))
    return steps


def observations(space, rng):
    rows = len(SIZES)
    match space:
        case spaces.Dict():
            return {name: observations(part, rng) for name, part in space.items}
        case spaces.Box():
            sizes = SIZES.reshape(-1, *[1] * len(space.shape))
            return jnp.asarray(sizes * rng.normal(size=(rows, *space.shape)), jnp.float32)
        case spaces.Discrete():
            return jnp.asarray(rng.integers(space.start, space.start + space.n, rows), jnp.int32)
    return jnp.asarray(np.maximum(rng.integers(0, 2, (rows, *space.shape)), np.eye(rows, *space.shape)), jnp.int8)


def largest_error(name, run, rows=slice(None)):
    """Of all outputs over an episode in which the export is given what it remembered itself, relative to one and to what is wanted."""
    inputs, outputs, largest = program(name).inputs, program(name).outputs, 0.0
    memory = {s.name: np.zeros((len(SIZES), *s.shape), s.dtype)[rows] for s in inputs if s.name.partition(".")[0] == "memory"}
    for number, (given, wanted) in enumerate(example(name)):
        given = memory | {slot: array[rows] for slot, array in given.items()}
        if memory:
            given["reset"] = np.full(len(SIZES), number == 0)[rows]
        found = run(given)
        for slot, array in zip(outputs, wanted, strict=True):
            assert found[slot.name].shape == array[rows].shape
            assert found[slot.name].dtype == array.dtype
            exact, got = array[rows].astype(np.float64), found[slot.name].astype(np.float64)
            assert np.isfinite(exact).all()
            largest = max(largest, np.max(np.abs(got - exact) / (1 + np.abs(exact)), initial=0.0))
        memory = {slot: found["next_" + slot] for slot in memory}
    return largest


def written(name, runtime, folder):
    facts = sidecar.exported(program(name), runtime, made(name), None, {})
    return WRITE[runtime](program(name), facts, folder / f"policy.{runtime}")


@pytest.mark.parametrize("name", MAKERS)
def test_onnx_does_what_the_policy_does(name, tmp_path):
    run = written(name, "onnx", tmp_path)
    error = largest_error(name, run)
    print(f"onnx {name}: largest error {error:.1e}")
    assert error < 1e-4
    assert largest_error(name, run, slice(1, 2)) < 1e-4


@pytest.mark.parametrize("name", ONE_EACH)
def test_stablehlo_does_what_the_policy_does(name, tmp_path):
    error = largest_error(name, written(name, "stablehlo", tmp_path))
    print(f"stablehlo {name}: largest error {error:.1e}")
    assert error < 1e-4


def test_a_stablehlo_file_takes_any_batch(tmp_path):
    assert largest_error("recurrent, gru", written("recurrent, gru", "stablehlo", tmp_path), slice(0, 3)) < 1e-4


@pytest.mark.parametrize("name", NO_ONNX)
def test_what_onnx_lacks_is_said_in_one_line_and_nothing_is_written(name, tmp_path):
    with pytest.raises(PolyactError, match=r"^(the operation|a policy) .* no counterpart in ONNX; export as stablehlo instead$"):
        written(name, "onnx", tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_class_that_learners_make_is_among_the_examples():
    rooms = tuple(f"polyact.{room}." for room in ("policies", "acting", "learning"))
    for module in pkgutil.walk_packages(polyact.__path__, "polyact."):
        if module.name.startswith(rooms):
            importlib.import_module(module.name)
    shown = set().union(*(classes(made(name)) for name in ONE_EACH))
    assert {kind.__name__ for kind in final_classes(Policy) if kind.__module__.startswith(rooms)} <= {
        kind.__name__ for kind in shown
    }


def final_classes(kind):
    """Those without classes of polyact's own beneath them."""
    beneath = [below for below in kind.__subclasses__() if below.__module__.startswith("polyact.")]
    return set().union(*map(final_classes, beneath)) if beneath else {kind}
