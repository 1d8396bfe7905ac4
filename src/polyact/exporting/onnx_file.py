"""A whole policy as an ONNX file, and an ONNX file as a function or a policy."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from polyact.errors import PolyactError, need, one_line
from polyact.exporting import sidecar
from polyact.exporting.program import ACTION, ACTIONS, MEMORY, NEXT, OBSERVATION, RESET, Program, shapes, slots, tree_of
from polyact.files import whole_file
from polyact.policies.base import Action, Memory, Observation, Policy
from polyact.policies.encoding import input_space
from polyact.policies.fitting import alike

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def write_onnx(program: Program, facts: sidecar.Exported, path: Path) -> Run:
    """Write the model and its description; returns its function of arrays by name.

    PolyactError names the first operation that ONNX does not have.
    """
    need("onnx", "export", "writing ONNX")
    from polyact.exporting.onnx.translate import model_of

    model = model_of(program)
    with whole_file(path) as aside:
        aside.write_bytes(model.SerializeToString())
    sidecar.write(facts, path)
    return read_onnx(path)


def read_onnx(path: Path) -> Run:
    """The model as a function of arrays by name, run by onnxruntime on one thread. PolyactError when it is damaged."""
    facts = sidecar.read(path)
    runtime = need("onnxruntime", "export", "running ONNX")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no class in common
        raise PolyactError(f"{path} is no model that onnxruntime runs: {one_line(error)}") from error
    names = [slot.name for slot in facts.outputs]

    def run(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, dict(given)), strict=True))

    return run


class Remembered(eqx.Module):
    """The memory outputs of the last step, and whether there was none yet."""

    values: tuple[Array, ...]
    fresh: Bool[Array, ""]


class OnnxPolicy(Policy):
    """An exported file that acts, with random numbers of its own. Of a chunk it plays the first action."""

    facts: sidecar.Exported = eqx.field(static=True)
    run: Run = eqx.field(static=True)

    @classmethod
    def load(cls, path: Path) -> "OnnxPolicy":
        """From a file. PolyactError when it is damaged or was not written for ONNX."""
        facts = sidecar.read(path)
        if facts.runtime != "onnx":
            raise PolyactError(f"{path} was exported as {facts.runtime}, expected onnx")
        return cls(facts, read_onnx(path))

    def start(self, key: PRNGKeyArray) -> Memory:
        known = [slot for slot in self.facts.inputs if slot.name.split(".")[0] == MEMORY]
        return Remembered(tuple(jnp.zeros(slot.shape, slot.dtype) for slot in known), jnp.asarray(True)) if known else None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        facts, seen = self.facts, slots(OBSERVATION, shapes(self.facts.observation_space))
        leaves = jax.tree.leaves(observation)
        given = {slot.name: jnp.asarray(leaf, slot.dtype) for slot, leaf in zip(seen, leaves, strict=True)}
        if memory is not None:
            known = [slot.name for slot in facts.inputs if slot.name.split(".")[0] == MEMORY]
            given |= dict(zip(known, memory.values, strict=True)) | {RESET: memory.fresh}
        for number, slot in enumerate(slot for slot in facts.inputs if slot.name in facts.distributions):
            draw = {"normal": jax.random.normal, "uniform": jax.random.uniform}[facts.distributions[slot.name]]
            given[slot.name] = draw(jax.random.fold_in(key, number), slot.shape, slot.dtype)
        results = self._called(given)
        done = {name: value for name, value in results.items() if not name.startswith(NEXT)}
        after = tuple(value for name, value in results.items() if name.startswith(NEXT))
        like = shapes(facts.action_space)
        action = tree_of(ACTIONS if facts.chunk else ACTION, like, done)
        action = jax.tree.map(lambda leaf: leaf[0], action) if facts.chunk else action
        return action, None if memory is None else Remembered(after, jnp.asarray(False))

    def _called(self, given: dict[str, Array]) -> dict[str, Array]:
        """The outputs for one step; a batch of steps is one call of the runtime."""
        facts = self.facts
        ranks = {slot.name: len(slot.shape) for slot in facts.inputs}

        def call(given: dict[str, Any]) -> dict[str, np.ndarray]:
            arrays = {name: np.asarray(value) for name, value in given.items()}
            first = facts.inputs[0].name
            lead = arrays[first].shape[: arrays[first].ndim - ranks[first]]
            rows = {name: array.reshape(-1, *array.shape[len(lead) :]) for name, array in arrays.items()}
            return {name: result.reshape(*lead, *result.shape[1:]) for name, result in self.run(rows).items()}

        made = {slot.name: jax.ShapeDtypeStruct(slot.shape, slot.dtype) for slot in facts.outputs}
        return jax.pure_callback(call, made, given, vmap_method="broadcast_all")


def check_fits_onnx(policy: OnnxPolicy, env: Any, name: str) -> None:
    """Raise PolyactError when the file was exported for other spaces than the environment's (bounds may differ)."""
    for word, own, other in (
        ("observations", policy.facts.observation_space, env.observation_space),
        ("actions", policy.facts.action_space, env.action_space),
    ):
        if not alike(input_space(own), input_space(other)):
            raise PolyactError(f"{name} was made for {word} {own}, the environment has {other}")
