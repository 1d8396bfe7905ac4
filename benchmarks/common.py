"""What every benchmark shares: options, rounds in which the sides take turns, peers as worker processes, bars, and one JSON.

Numbers from a machine with other work on it drift, so sides are never timed one after the other: every round gives each side a slice,
a ratio is taken within a round, and what is reported is the median over rounds with its range.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

BUSY = 0.15  # cores used by others beyond which no bar is judged
HERE = Path(__file__).resolve().parent
Json = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """smoke: tiny sizes, to see that everything runs. peers: the Python that has the peers. threads: cores for every side. tuning: with
    the seeds that settings are chosen on, not with those of the test."""

    smoke: bool
    peers: str | None
    threads: int
    only: tuple[str, ...] = ()
    tuning: bool = False

    def pick(self, full: Any, smoke: Any) -> Any:
        """The size for this run."""
        return smoke if self.smoke else full


def main(
    name: str, about: str, measure: Callable[[Options], Json], parts: Sequence[str] = (), *, times_matter: bool = True
) -> None:
    """Parse the command line, measure, print one JSON. parts: what `--only` may choose from.

    Bars are judged only when the run is no smoke run and, where times matter, others left the machine alone. Where they don't matter,
    what is learned does: `--tuning` then takes other seeds.
    """
    parser = argparse.ArgumentParser(description=about.strip().splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: seconds instead of minutes, numbers without meaning")
    parser.add_argument("--peers", default=os.environ.get("POLYACT_PEERS_PYTHON"), help="Python with the peers (see README.md)")
    parser.add_argument("--threads", type=int, default=cores(), help="cores that every side may use (default: all)")
    if parts:
        parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), help="what to measure (default: all)")
    if not times_matter:
        parser.add_argument("--tuning", action="store_true", help="seeds below 1000, to choose settings on; the test's stay unseen")
    given = parser.parse_args()
    limit_cores(given.threads)
    options = Options(given.smoke, given.peers, given.threads, tuple(getattr(given, "only", ())), getattr(given, "tuning", False))
    began, others = time.perf_counter(), Others()
    result = measure(options)
    seconds = time.perf_counter() - began
    result = {"benchmark": name, "smoke": options.smoke, "machine": machine(options.threads, others.used())} | result
    result["seconds"] = round(seconds, 1)
    if reason := _why_not_judged(options, result["machine"]["cores_used_by_others"] if times_matter else None):
        result = _unjudged(result) | {"not_judged": reason}
    print(json.dumps(result, indent=1))


def say(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_cores(count: int) -> None:
    """Keep this process and its children to `count` cores; must come before JAX is imported."""
    if count != cores():
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def machine(threads: int, used_by_others: float | None) -> Json:
    """What the numbers depend on; cores used by other processes during the run, on average (None where that can't be known)."""
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": threads,
        "cores_used_by_others": used_by_others,
        "python": platform.python_version(),
        "versions": versions("polyact", "jax", "jaxlib", "equinox", "optax", "numpy", "gymnasium"),
    }


def versions(*packages: str) -> dict[str, str]:
    """Installed versions; packages that are not there are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def summary(values: Sequence[float], digits: int = 4) -> Json:
    """Median and range over rounds."""
    return {
        "median": significant(statistics.median(values), digits),
        "low": significant(min(values), digits),
        "high": significant(max(values), digits),
        "rounds": len(values),
    }


def ratio(ours: Sequence[float], theirs: Sequence[float], *, at_least: float | None = None, at_most: float | None = None) -> Json:
    """Ours over theirs, round by round, beside the bar it should meet."""
    found = summary([a / b for a, b in zip(ours, theirs, strict=True)], 3)
    return found | bar(found["median"], at_least=at_least, at_most=at_most)


def bar(value: float, *, at_least: float | None = None, at_most: float | None = None) -> Json:
    """A bar and whether it is met; nothing when there is none."""
    if at_least is not None:
        return {"bar": f">= {at_least:g}", "met": bool(value >= at_least)}
    if at_most is not None:
        return {"bar": f"<= {at_most:g}", "met": bool(value <= at_most)}
    return {}


def significant(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")


def timed(action: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def take_turns(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Every side once per round, `rounds` times, after one round of warming up that does not count."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            value = side()
            if turn:
                found[name].append(value)
    return found


class Missing(Exception):
    """A peer that can't be measured here, with the reason."""


class Peer:
    """A worker process under the peers' Python that answers one JSON line per request (see peers/worker.py).

    Raises Missing when there is no such Python, or the peer's library is not installed in it.
    """

    def __init__(self, script: str, options: Options, settings: Json, python: str | None = None):
        python = python or options.peers
        if not python:
            raise Missing("no Python with the peers given (--peers or POLYACT_PEERS_PYTHON)")
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the worker lives)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(options.threads))
        try:
            self.process = subprocess.Popen(
                [python, str(HERE / "peers" / script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                env=os.environ | threads,
            )
        except OSError as error:
            raise Missing(f"the peers' Python can't be started: {error.strerror}") from error
        self.facts = self.ask(settings | {"threads": options.threads})
        self.rate = 0.0

    def ask(self, request: Json) -> Json:
        """One request, one answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"missing": f"worker ended: {self._last_words()}"}
        if "missing" in answer:
            self.close()
            raise Missing(answer["missing"])
        return answer

    def warm_up(self) -> None:
        """A few updates to compile, a few more to learn how fast it is."""
        self.ask({"updates": 4})
        self.rate = 8 / self.ask({"updates": 8})["seconds"]

    def slice(self, seconds: float) -> float:
        """Updates per second over about `seconds`."""
        count = max(1, round(self.rate * seconds))
        self.rate = count / self.ask({"updates": count})["seconds"]
        return self.rate

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _last_words(self) -> str:
        self.log.seek(0)
        lines = [line.strip() for line in self.log if line.strip()]
        return lines[-1][:300] if lines else "without a word"


class Others:
    """What other processes take of the machine: all busy time minus that of this process and its children."""

    def __init__(self):
        self.began, self.busy, self.own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def used(self) -> float | None:
        """Cores in use by others since the start, on average."""
        busy = _busy_seconds()
        if busy is None or self.busy is None:
            return None
        return round(max(0.0, busy - self.busy - _own_seconds() + self.own) / (time.perf_counter() - self.began), 2)


def _why_not_judged(options: Options, used_by_others: float | None) -> str | None:
    if options.smoke:
        return "a smoke run: sizes too small to mean anything"
    if used_by_others is not None and used_by_others > BUSY:
        return f"other processes used {used_by_others} cores on average: threads that wait for one another suffer unequally"
    return None


def _unjudged(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: None if key == "met" else _unjudged(part) for key, part in value.items()}
    return [_unjudged(part) for part in value] if isinstance(value, list) else value


def _busy_seconds() -> float | None:
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return None
    idle, iowait = fields[3], fields[4]
    return (sum(fields[:8]) - idle - iowait) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), platform.processor()
    )
