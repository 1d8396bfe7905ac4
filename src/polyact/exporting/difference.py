"""How far an exported file is from the policy that it was made of."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from polyact import spaces
from polyact.exporting.program import MEMORY, OBSERVATION, RESET, Program, Slot, slots

ROWS = 8


def largest_difference(program: Program, run: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]) -> float:
    """The largest difference of any output, over some random observations: at the start of an episode and one step later.

    NaN where any number is not finite.
    """
    original = jax.jit(lambda given: program.function([given[slot.name] for slot in program.inputs]))
    largest, rng = 0.0, np.random.default_rng(0)
    memory = {slot.name: np.zeros((ROWS, *slot.shape), slot.dtype) for slot in program.inputs if _root(slot) == MEMORY}
    for step in range(2):
        given = memory | random_inputs(program, rng, reset=step == 0)
        wanted = [np.asarray(array) for array in original(given)]
        found = run(given)
        for array, slot in zip(wanted, program.outputs, strict=True):
            if array.size:
                error = np.max(np.abs(array.astype(np.float64) - found[slot.name].astype(np.float64)))
                largest = float(np.maximum(largest, error))
        after = wanted[len(wanted) - len(memory) :]
        memory = dict(zip(memory, after, strict=True))
    return largest


def random_inputs(program: Program, rng: np.random.Generator, *, reset: bool, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Observations of the policy's space, and random numbers; no memory."""
    keys = jax.random.split(jax.random.key(int(rng.integers(1 << 30))), rows)
    seen = jax.vmap(lambda key: spaces.sample(program.observation_space, key))(keys)
    given = {slot.name: np.asarray(leaf) for slot, leaf in zip(slots(OBSERVATION, seen), jax.tree.leaves(seen), strict=True)}
    for slot in program.inputs:
        if slot.draw is not None:
            draw = rng.standard_normal if slot.draw.kind == "normal" else rng.random
            given[slot.name] = draw((rows, *slot.shape)).astype(slot.dtype)
        elif slot.name == RESET:
            given[RESET] = np.full(rows, reset)
    return given


def _root(slot: Slot) -> str:
    return slot.name.split(".")[0]
