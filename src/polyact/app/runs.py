"""A run folder: what was trained, from what, how, and the policies of all seeds.

run.json            learner, settings, data or environment, steps, seeds, versions
history.json        one record per report and seed
seed-0/, seed-1/    a policy each (safetensors + JSON)
checkpoints/        the newest training state
"""

import json
import os
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from polyact import saving
from polyact.errors import PolyactError, SavedError
from polyact.learning.fitted import Fitted
from polyact.policies.base import Policy

VERSION = 1


@dataclass(frozen=True)
class Run:
    """A trained run as it lies on disk."""

    path: Path
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    def policies(self) -> list[Policy]:
        """The last policy of every seed."""
        return [saving.load(self.path / f"seed-{seed}", Policy) for seed in range(self.facts["seeds"])]  # pyright: ignore


def prepare(out: Path, resume: bool, overwrite: bool) -> None:
    """Clear the way for a run's folder. Raises PolyactError when it exists, unless it is to be resumed or overwritten."""
    if resume and overwrite:
        raise PolyactError("--resume and --overwrite contradict each other")
    if resume and not (out / "run.json").exists() and not (out / "checkpoints").exists():
        raise PolyactError(f"{out} holds no run to resume")
    if out.exists() and not resume:
        if not overwrite:
            raise PolyactError(f"{out} exists; use --resume to continue it, --overwrite to replace it, or another --out")
        if any(out.iterdir()) and not any((out / name).exists() for name in ("run.json", "checkpoints")):
            raise PolyactError(f"{out} holds something that is no run; it is not overwritten")
        shutil.rmtree(out)


def next_folder(learner: str) -> Path:
    """runs/LEARNER-N with the first free N."""
    number = 1
    while (path := Path("runs") / f"{learner}-{number}").exists():
        number += 1
    return path


def write(out: Path, fitted: Fitted, facts: dict[str, Any]) -> Run:
    """Write policies, history and facts; run.json comes last, so a folder that has it is complete."""
    last = {name: value for name, value in fitted.history[-1].items() if name != "seed"} if fitted.history else {}
    facts = {
        "version": VERSION,
        "polyact": version("polyact"),
        "jax": version("jax"),
        "seeds": len(fitted.states),
        "steps": fitted.steps,
        "seconds": round(fitted.seconds, 3),
        "identity": fitted.identity,
        **facts,
    }
    out.mkdir(parents=True, exist_ok=True)
    for seed, policy in enumerate(fitted.policies):
        provenance = {"seed": seed, "steps": fitted.steps, "data": fitted.identity.get("data"), "metrics": last}
        saving.save(policy, out / f"seed-{seed}", provenance | {"learner": facts.get("learner")}, overwrite=True)
    _replace(out / "history.json", fitted.history)
    _replace(out / "run.json", facts)
    return Run(out, facts)


def read(path: Path) -> Run:
    """A run from its folder. Raises SavedError when it is none, or damaged."""
    try:
        facts = json.loads((path / "run.json").read_text())
        if not isinstance(facts["seeds"], int) or facts["version"] != VERSION:
            raise SavedError(f"{path}/run.json has version {facts['version']}, this polyact reads {VERSION}")
    except FileNotFoundError as error:
        raise SavedError(f"{path} is no finished run: it has no run.json") from error
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise SavedError(f"{path}/run.json is damaged: {error}") from error
    return Run(path, facts)


def _replace(path: Path, value: Any) -> None:
    aside = path.with_name(f".{path.name}.writing")
    aside.write_text(json.dumps(value, indent=1))
    os.replace(aside, path)
