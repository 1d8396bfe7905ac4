"""The JSON file beside an exported policy (FILE.json): names, shapes and dtypes of its arrays, spaces, control rate, where it comes from.

Whoever runs the file needs nothing else; its checksum says that the two belong together.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polyact import spaces
from polyact.errors import PolyactError, one_line
from polyact.exporting.program import Program, Slot
from polyact.files import whole_file
from polyact.policies.base import Policy
from polyact.spaces import Space

VERSION = 1
FORMAT = "polyact-export"


@dataclass(frozen=True, eq=False)
class Exported:
    """What the JSON file says. distributions: of the inputs that are random numbers, by name ("normal" or "uniform")."""

    runtime: str
    policy: str
    chunk: bool
    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    distributions: dict[str, str]
    observation_space: Space
    action_space: Space
    control_hz: float | None
    provenance: dict[str, Any]


def exported(program: Program, runtime: str, policy: Policy, control_hz: float | None, provenance: dict[str, Any]) -> Exported:
    """The description of a policy's program that is written for a runtime ("onnx", "stablehlo" or "numpy")."""
    distributions = {slot.name: slot.draw.kind for slot in program.inputs if slot.draw is not None}
    inputs, outputs = (tuple(Slot(s.name, s.shape, s.dtype) for s in slots) for slots in (program.inputs, program.outputs))
    seen, done = program.observation_space, program.action_space
    return Exported(runtime, _called(policy), program.chunk, inputs, outputs, distributions, seen, done, control_hz, provenance)


def _called(policy: Policy) -> str:
    """The classes of a policy and of those that it wraps: "Greedy(Gaussian)"."""
    inner = getattr(policy, "policy", None)
    return type(policy).__name__ + (f"({_called(inner)})" if isinstance(inner, Policy) else "")


def beside(path: Path) -> Path:
    """Where the description of an exported file lies."""
    return path.with_name(path.name + ".json")


def write(facts: Exported, path: Path) -> None:
    """Describe the file at `path`, which is there already."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "runtime": facts.runtime,
        "sha256": _checksum(path),
        "policy": facts.policy,
        "chunk": facts.chunk,
        "control_hz": facts.control_hz,
        "inputs": [_slot(slot) | _random(facts, slot) for slot in facts.inputs],
        "outputs": [_slot(slot) for slot in facts.outputs],
        "observation_space": spaces.to_json(facts.observation_space),
        "action_space": spaces.to_json(facts.action_space),
        "provenance": facts.provenance,
    }
    with whole_file(beside(path)) as aside:
        aside.write_text(json.dumps(content, indent=1))


def read(path: Path) -> Exported:
    """The description of an exported file. Raises PolyactError when one of the two is missing, damaged or belongs to another."""
    file = beside(path)
    if not path.is_file():
        raise PolyactError(f"{path} is no file")
    try:
        content = json.loads(file.read_text())
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise PolyactError(f"{file} is not a description of version {VERSION} of an exported policy")
        if content["sha256"] != _checksum(path):
            raise PolyactError(f"{path} is damaged or does not belong to {file}: its checksum is another")
        inputs, outputs = (tuple(map(_read_slot, content[side])) for side in ("inputs", "outputs"))
        distributions = {slot["name"]: str(slot["distribution"]) for slot in content["inputs"] if "distribution" in slot}
        seen, done = (spaces.from_json(content[name]) for name in ("observation_space", "action_space"))
        runtime, policy, chunk, hz = (content[name] for name in ("runtime", "policy", "chunk", "control_hz"))
        return Exported(
            str(runtime), str(policy), bool(chunk), inputs, outputs, distributions, seen, done, hz, dict(content["provenance"])
        )
    except FileNotFoundError as error:
        raise PolyactError(f"{path} has no description {file.name} beside it; it was not written by polyact export") from error
    except PolyactError:
        raise
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise PolyactError(f"{file} is damaged: {one_line(error)}") from error


def _slot(slot: Slot) -> dict[str, Any]:
    return {"name": slot.name, "shape": ["batch", *slot.shape], "dtype": slot.dtype.name}


def _random(facts: Exported, slot: Slot) -> dict[str, str]:
    return {"distribution": facts.distributions[slot.name]} if slot.name in facts.distributions else {}


def _read_slot(value: dict[str, Any]) -> Slot:
    return Slot(str(value["name"]), tuple(int(size) for size in value["shape"][1:]), np.dtype(value["dtype"]))


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
