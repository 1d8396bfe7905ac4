"""What was found, as JSON, and the file in which verdicts are kept: one line per claim, the newest last."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from polyact.claims.claim import Always, Beats, Claim, Within
from polyact.claims.harness import Measured
from polyact.claims.power import Power
from polyact.claims.verdict import Finding
from polyact.errors import PolyactError, SavedError

RECORD = Path(__file__).with_name("record.jsonl")
Json = dict[str, Any]


def as_json(slug: str, finding: Finding, measured: Measured, scale: str, power: Power | None) -> Json:
    """One claim with the numbers it rests on. Effects of ratio claims are natural logarithms."""
    claim = finding.claim
    arms = {arm: _numbers(metrics[claim.metric]) for arm, metrics in measured.values.items() if claim.metric in metrics}
    return {
        "slug": slug,
        "claim": claim.name,
        "says": claim.says,
        "metric": claim.metric,
        "better": claim.better,
        "test": test_as_json(claim),
        "arms": {arm: {"role": _role(claim, arm), "values": values} for arm, values in arms.items()},
        "effects": [effect_as_json(effect) for effect in finding.effects],
        "verdict": finding.verdict if scale != "smoke" else None,
        "power": None if power is None else {"as measured": power.measured, "detectable (sd)": power.detectable},
        "seeds": list(measured.seeds),
        "seconds": round(measured.seconds, 1),
        "scale": scale,
    }


def test_as_json(claim: Claim) -> Json:
    match claim.test:
        case Beats(arm, rivals, ratio):
            return {"kind": "beats", "arm": arm, "rivals": dict(rivals), "ratio": ratio}
        case Within(arm, low, high):
            return {"kind": "within", "arm": arm, "low": low, "high": high}
        case Always(arm, low, high):
            return {"kind": "always", "arm": arm, "low": low, "high": high}


def effect_as_json(effect: Any) -> Json:
    e = effect.estimate
    numbers = {"value": e.value, "low": e.low, "high": e.high, "margin": effect.margin, "p_holm": effect.p_holm}
    return {"rival": effect.rival, **{name: _finite(number) for name, number in numbers.items()}}


def effect_line(entry: Json, effect: Json) -> str:
    """'+12.3 [8.1, 16.5] over td3-bc', or as a factor '1.35x [1.2, 1.5] over td3-bc'."""
    numbers = [math.nan if effect[name] is None else effect[name] for name in ("value", "low", "high")]
    if entry["test"]["kind"] == "beats" and entry["test"]["ratio"]:
        value, low, high = (f"{math.exp(number):.3g}" for number in numbers)
        return f"{value}x [{low}, {high}] over {effect['rival']}"
    value, low, high = (f"{number:.3g}".replace("-", "−") for number in numbers)
    rival = f" over {effect['rival']}" if effect["rival"] else ""
    return f"{'+' if rival and numbers[0] > 0 else ''}{value} [{low}, {high}]{rival}"


def append(entries: Iterable[Json], source: Path, file: Path = RECORD) -> None:
    """Add a line per claim. Raises PolyactError for a smoke run, tuning seeds, or where the file can't be written."""
    stamp = {"version": version(source), "platform": _platform(), "date": datetime.now(UTC).strftime("%Y-%m-%d")}
    lines = []
    for entry in entries:
        if entry["scale"] == "smoke":
            raise PolyactError("a smoke run has no verdict to record; use --scale laptop or paper")
        if min(entry["seeds"]) < 1000:
            raise PolyactError("tuning seeds (below 1000) are not recorded; leave out --first-seed")
        kept = {k: entry[k] for k in ("slug", "claim", "headline", "metric", "better", "test", "verdict", "effects", "power")}
        means = {arm: round(float(np.mean(values["values"])), 6) for arm, values in entry["arms"].items()}
        run = {"first_seed": entry["seeds"][0], "seeds": len(entry["seeds"]), "seconds": entry["seconds"], "scale": entry["scale"]}
        lines.append(json.dumps(kept | {"means": means} | run | stamp, ensure_ascii=False) + "\n")
    try:
        with file.open("a", encoding="utf-8") as out:
            out.write("".join(lines))
    except OSError as error:
        raise PolyactError(f"{file} can't be written ({error.strerror}); record from a checkout of the repository") from error


def read(file: Path = RECORD) -> list[Json]:
    """Every line of a record; none when there is no file. Raises SavedError for a damaged line."""
    if not file.exists():
        return []
    found = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise SavedError(f"{file}, line {number}: not JSON") from error
    return found


def latest(file: Path = RECORD) -> dict[tuple[str, str], Json]:
    """The newest line of every claim, by (slug, claim)."""
    return {(line["slug"], line["claim"]): line for line in read(file)}


def version(source: Path) -> Json:
    """Of the package, of the repository where there is one, and of the text of the system's file."""
    return {"polyact": metadata.version("polyact"), "commit": _commit(source), "file": text_hash(source)}


def text_hash(source: Path) -> str:
    """What tells whether a system's file is still the one that was measured: of all but its docstring, which says what came out."""
    text = source.read_text("utf-8")
    if (about := ast.get_docstring(ast.parse(text), clean=False)) is not None:
        text = text.replace(about, "", 1)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _commit(source: Path) -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=source.parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _platform() -> str:
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, jax {metadata.version('jax')}"


def _role(claim: Claim, arm: str) -> str:
    return claim.experiment.arms[arm].role if arm in claim.experiment.arms else "placebo"


def _numbers(values: np.ndarray) -> list[float | None]:
    return [_finite(float(value)) for value in values]


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None
