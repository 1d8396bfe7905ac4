"""`polyact export`: a trained policy for runtimes that have no polyact."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from polyact import cache, saving
from polyact.app import runs
from polyact.app.arguments import Export
from polyact.app.show import print_json, say
from polyact.envs import catalogue
from polyact.errors import PolyactError, unknown
from polyact.exporting import sidecar
from polyact.exporting.difference import largest_difference
from polyact.exporting.numpy_file import write_numpy
from polyact.exporting.onnx_file import write_onnx
from polyact.exporting.program import Program, program_of, spaces_of
from polyact.exporting.stablehlo import write_stablehlo
from polyact.files import PARTIAL
from polyact.policies.base import ChunkPolicy, Policy, greedy
from polyact.policies.chunk_executor import RecedingHorizon
from polyact.policies.multibody import MultiBody

SUFFIXES = {"onnx": ".onnx", "stablehlo": ".stablehlo", "numpy": ".py"}


def run(command: Export) -> None:
    if command.format not in SUFFIXES:
        raise unknown("export format", command.format, SUFFIXES)
    if command.control_hz is not None and not 0 < command.control_hz < float("inf"):
        raise PolyactError(f"--control-hz is {command.control_hz:g}, expected a positive number of actions per second")
    cache.enable()
    folder, facts = _saved(command.run)
    policy = _acting(saving.load(folder, Policy), command)  # pyright: ignore[reportArgumentType]
    name = command.env or facts.get("env")
    env = catalogue.make(name) if name else None
    out = command.out or Path(command.run.resolve().name + SUFFIXES[command.format])
    _check_free(out, command)
    program = program_of(policy, *spaces_of(policy, env), chunk=command.chunk)
    provenance = {"run": str(command.run), "env": name} | saving.read_provenance(folder)
    description = sidecar.exported(program, command.format, policy, command.control_hz or _rate(env), provenance)
    largest = _written(policy, program, description, out)
    if command.json:
        print_json({"file": str(out), "description": str(sidecar.beside(out)), "largest_difference": largest})
        return
    say(f"{out}: {', '.join(slot.name for slot in program.inputs)} -> {', '.join(slot.name for slot in program.outputs)}")
    say(f"Largest difference from the policy on random inputs: {largest:.2g}")


def _written(policy: Policy, program: Program, description: sidecar.Exported, out: Path) -> float:
    """Write the files, which take their places once they have been run; returns how far they are from the policy."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=PARTIAL, dir=out.parent) as aside:
        trial = Path(aside) / out.name
        if description.runtime == "numpy":
            exported = write_numpy(policy, program, description, trial)
        else:
            exported = (write_onnx if description.runtime == "onnx" else write_stablehlo)(program, description, trial)
        largest = largest_difference(program, exported)
        if not np.isfinite(largest):
            raise PolyactError(
                "the policy or its export gives numbers that are not finite on random observations; nothing was written"
            )
        for file in sorted(Path(aside).iterdir()):
            os.replace(file, out.parent / file.name)
    return largest


def _rate(env: Any) -> float | None:
    """Actions per second, where the environment says so."""
    timestep = getattr(env, "timestep", None)
    return getattr(env, "control_hz", None) or (None if timestep is None or np.ndim(timestep) else round(1 / float(timestep), 6))


def _saved(path: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the one policy that a path names, and what its run says."""
    if (path / saving.DESCRIPTION).exists():
        outer = path.resolve().parent
        return path, runs.read(outer).facts if (outer / "run.json").exists() else {}
    facts = runs.read(path).facts
    if facts["seeds"] != 1:
        raise PolyactError(f"{path} has {facts['seeds']} policies; name one, such as {path / 'seed-0'}")
    return path / "seed-0", facts


def _acting(policy: Policy, command: Export) -> Policy:
    """The policy as it is to act: of one body, without exploration unless asked for, playing its chunks as asked."""
    if isinstance(policy, MultiBody):
        policy = policy.for_body(command.body)
    elif command.body is not None:
        raise PolyactError(f"--body {command.body} has no effect: the policy has one body")
    if command.chunk and command.execute is not None:
        raise PolyactError("--chunk and --execute contradict each other")
    if (command.chunk or command.execute is not None) and not isinstance(policy, ChunkPolicy):
        option = "--chunk" if command.chunk else "--execute"
        raise PolyactError(f"{option} has no effect: {type(policy).__name__} plans no chunks of actions")
    if isinstance(policy, ChunkPolicy) and command.execute is not None:
        policy = RecedingHorizon(policy, command.execute)
    return policy if command.stochastic else greedy(policy)


def _check_free(out: Path, command: Export) -> None:
    if out.suffix != SUFFIXES[command.format]:
        raise PolyactError(f"--out is {out}, expected a file that ends in {SUFFIXES[command.format]}")
    files = [out, sidecar.beside(out), *([out.with_suffix(".npz")] if command.format == "numpy" else [])]
    for file in files:
        if os.path.lexists(file) and not command.overwrite:
            raise PolyactError(f"{file} exists; use --overwrite to replace it, or another --out")
