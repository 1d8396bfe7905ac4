"""A run folder: what was trained, from what, how, and the policies of all seeds.

run.json            learner, settings, data or environment, steps, seeds, versions; why training stopped early, if it did
history.json        one record per report and seed
seed-0/, seed-1/    a policy each (safetensors + JSON)
checkpoints/        the newest training state
"""

import json
import os
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from polyact import saving
from polyact.errors import PolyactError, SavedError
from polyact.files import PARTIAL, REPLACED, whole_file
from polyact.learning.fitted import Fitted
from polyact.learning.loop import Progress, Record
from polyact.policies.base import Policy

VERSION = 1
OURS = re.compile(rf"run\.json|history\.json|seed-\d+|checkpoints|\..*({re.escape(PARTIAL)}|{re.escape(REPLACED)})")


@dataclass(frozen=True)
class Run:
    """A trained run as it lies on disk."""

    path: Path
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def policies(self) -> list[Policy]:
        """The last policy of every seed."""
        return [saving.load(self.path / f"seed-{seed}", Policy) for seed in range(self.facts["seeds"])]  # pyright: ignore


def check_free(out: Path, resume: bool, overwrite: bool) -> None:
    """Raise PolyactError when a run's folder exists and is not a run that is to be resumed or overwritten."""
    if resume and overwrite:
        raise PolyactError("--resume and --overwrite contradict each other")
    if resume and not (out / "run.json").exists() and not (out / "checkpoints").exists():
        raise PolyactError(f"{out} holds no run to resume")
    if resume or not os.path.lexists(out):
        return
    if not overwrite:
        raise PolyactError(f"{out} exists; use --resume to continue it, --overwrite to replace it, or another --out")
    if not out.is_dir():
        raise PolyactError(f"{out} is no folder; it is not overwritten")
    if strange := sorted(path.name for path in out.iterdir() if not OURS.fullmatch(path.name)):
        raise PolyactError(f"{out} also holds '{strange[0]}', which is not part of a run; it is not overwritten")


def next_folder(learner: str) -> Path:
    """runs/LEARNER-N with the first free N."""
    number = 1
    while (path := Path("runs") / f"{learner}-{number}").exists():
        number += 1
    return path


def write(out: Path, fitted: Fitted, facts: dict[str, Any]) -> Run:
    """Write policies, history and facts; run.json comes last, so a folder that has it is complete."""
    facts = {"seconds": round(fitted.seconds, 3), "identity": fitted.identity} | facts
    return _write(out, fitted.policies, fitted.history, fitted.steps, facts)


def write_stopped(out: Path, progress: Progress, why: str, facts: dict[str, Any]) -> Run | None:
    """The same for training that could not go on: the policies of its last good states. None when nothing was learned."""
    if progress.policy is None or not progress.good or not progress.done:
        return None
    policies = [progress.policy(state) for state in progress.states]
    return _write(out, policies, progress.history, progress.done, facts | {"stopped": why})


def _write(out: Path, policies: list[Policy], history: list[Record], steps: int, facts: dict[str, Any]) -> Run:
    versions = {"version": VERSION, "polyact": version("polyact"), "jax": version("jax")}
    facts = versions | {"seeds": len(policies), "steps": steps} | facts
    known = {name: facts.get(name) for name in ("learner", "settings", "env", "seed")}
    out.mkdir(parents=True, exist_ok=True)
    for number, policy in enumerate(policies):
        metrics = [{n: v for n, v in record.items() if n != "seed"} for record in history if record["seed"] == number]
        data = {"files": facts.get("data"), "fingerprint": facts.get("identity", {}).get("data")}
        provenance = known | {"number": number, "steps": steps, "data": data, "metrics": metrics[-1] if metrics else {}}
        saving.save(policy, out / f"seed-{number}", provenance, overwrite=True)
    _replace(out / "history.json", history)
    _replace(out / "run.json", facts)
    return Run(out, facts)


def read(path: Path) -> Run:
    """A run from its folder. Raises SavedError when it is none, or damaged."""
    file = path / "run.json"
    try:
        facts = json.loads(file.read_text())
        if facts["version"] != VERSION:
            raise SavedError(f"{file} has version {facts['version']}, this polyact reads {VERSION}")
        if not isinstance(facts["seeds"], int) or facts["seeds"] < 1 or not isinstance(facts.get("env"), str | None):
            raise SavedError(f"{file} is damaged: seeds must be a positive number and env a name")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SavedError(f"{path} is no finished run: it has no run.json") from error
    except SavedError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise SavedError(f"{file} is damaged: {error}") from error
    return Run(path, facts)


def _replace(path: Path, value: Any) -> None:
    with whole_file(path) as aside:
        aside.write_text(json.dumps(value, indent=1))
