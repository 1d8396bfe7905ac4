"""How soon things start: `polyact --help`, and the first update of `polyact train` with a cold and with a warm cache of programs.

The time to the first update is that of the whole command with a single step to do, from the shell to the saved policy, in a fresh
process each time; the cache is a new folder. Beside the time on the clock stands the processor time, which other work on the machine does
not change.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common import Json, Options, bar, main, say, significant, summary

HELP_BAR, WARM_BAR = 0.3, 0.5
LEARNERS = ("bc", "iql")


def measure(options: Options) -> Json:
    help_times = [_polyact("--help") for _ in range(options.pick(10, 2) + 1)][1:]
    wall = [times.wall for times in help_times]
    result: Json = {"unit": "seconds", "--help": summary(wall) | bar(statistics.median(wall), at_most=HELP_BAR)}
    result["--help"]["processor time"] = summary([times.processor for times in help_times])
    with tempfile.TemporaryDirectory() as folder:
        data = _data(Path(folder))
        for name in LEARNERS[: options.pick(len(LEARNERS), 1)]:
            say(f"first update of {name}")
            pairs = [_cold_and_warm(name, data, Path(folder) / f"{name}-{turn}") for turn in range(options.pick(3, 1))]
            result[f"{name}: first update"] = _report(pairs)
    return result


@dataclass(frozen=True)
class Times:
    """Of one process, in seconds: on the clock, and of the processor."""

    wall: float
    processor: float


def _report(pairs: list[tuple[Times, Times]]) -> Json:
    share = significant(statistics.median(warm.wall / cold.wall for cold, warm in pairs), 3)
    of_processor = significant(statistics.median(warm.processor / cold.processor for cold, warm in pairs), 3)
    return {
        "first run": summary([cold.wall for cold, _ in pairs]),
        "second run": summary([warm.wall for _, warm in pairs]),
        "second over first": {"median": share, "processor time": of_processor} | bar(share, at_most=WARM_BAR),
    }


def _cold_and_warm(learner: str, data: Path, folder: Path) -> tuple[Times, Times]:
    """The same command twice, the first with an empty cache."""

    def train(turn: int) -> Times:
        out = folder / f"run-{turn}"
        return _polyact("train", learner, "--data", str(data), "--steps", "1", "--out", str(out), cache=folder / "cache")

    return train(1), train(2)


def _data(folder: Path) -> Path:
    from fitting import synthetic

    from polyact.data.formats import write

    path = folder / "data.npz"
    write([synthetic(10_000)], path, "npz")
    return path


def _polyact(*arguments: str, cache: Path | None = None) -> Times:
    """Run one command. Raises RuntimeError with its last words when it fails."""
    command = [str(Path(sys.executable).with_name("polyact")), *arguments]
    environment = os.environ | ({} if cache is None else {"POLYACT_CACHE": str(cache)})
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    after, seconds = os.times(), time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"polyact {arguments[0]} failed: {done.stderr.strip()[-300:]}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Times(seconds, used)


if __name__ == "__main__":
    main("startup", __doc__ or "", measure)
