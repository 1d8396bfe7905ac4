"""A whole policy as StableHLO, as `jax.export` serialises it: for runtimes that compile it, with or without JAX."""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from polyact.errors import PolyactError, need, one_line
from polyact.exporting import sidecar
from polyact.exporting.program import Program
from polyact.files import whole_file

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(program: Program, facts: sidecar.Exported, path: Path) -> Run:
    """Write the program and its description; returns its function of arrays by name.

    The batch is free. It runs on CPUs, GPUs and TPUs where all its operations do. PolyactError when it asks the host.
    """
    need("flatbuffers", "export", "writing StableHLO")
    (batch,) = jax.export.symbolic_shape("batch")
    structs = [jax.ShapeDtypeStruct((batch, *slot.shape), slot.dtype) for slot in program.inputs]
    function = jax.jit(lambda *arrays: program.function(arrays))
    try:
        made = jax.export.export(function, platforms=PLATFORMS)(*structs)
    except (NotImplementedError, ValueError):  # LAPACK's routines exist on one platform only
        made = jax.export.export(function)(*structs)
    try:
        content = bytes(made.serialize())
    except (NotImplementedError, ValueError) as error:
        raise PolyactError(f"this policy can't be written as StableHLO: {one_line(error)}") from error
    with whole_file(path) as aside:
        aside.write_bytes(content)
    sidecar.write(facts, path)
    return read_stablehlo(path)


def read_stablehlo(path: Path) -> Run:
    """The written program as a function of arrays by name. Raises PolyactError when it is damaged."""
    facts = sidecar.read(path)
    try:
        made = jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:  # flatbuffers raises whatever it stumbles over
        raise PolyactError(f"{path} is no exported StableHLO: {one_line(error)}") from error

    def run(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = made.call(*(given[slot.name] for slot in facts.inputs))
        return {slot.name: np.asarray(result) for slot, result in zip(facts.outputs, results, strict=True)}

    return run
