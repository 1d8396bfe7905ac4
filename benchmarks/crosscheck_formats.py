"""d3rlpy's and OGBench's own code against our readers, on the same files, number for number.

    python benchmarks/crosscheck_formats.py --python PATH_TO_AN_ENVIRONMENT_WITH_D3RLPY_AND_OGBENCH/bin/python

d3rlpy writes data sets (vector, image, tuple and discrete) and its reading of them is the truth; OGBench's loader reads files made
here. Prints one JSON object; a library that is not there is reported as missing. Works offline.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

LENGTHS, ENDED = (4, 1, 6), (True, False, True)
STEPS = sum(LENGTHS)
KINDS = ("vector", "image", "discrete", "tuple")


def outside(python: str) -> dict[str, Any]:
    """Make the files for OGBench, let the libraries read and write, compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez_compressed(folder / "maze-v0.npz", **ogbench_arrays())
        run = subprocess.run([python, __file__, "--inside", name], capture_output=True, text=True, check=False)
        if run.returncode:
            return {"missing": run.stderr.strip().splitlines()[-1:] or ["the other Python failed"]}
        facts = json.loads(run.stdout.strip().splitlines()[-1])
        checks = {}
        if "d3rlpy" in facts:
            checks |= {f"d3rlpy {kind}": compare_d3rlpy(folder, kind) for kind in KINDS}
        if "ogbench" in facts:
            checks |= {f"ogbench {layout}": compare_ogbench(folder, layout) for layout in ("files", "regular", "compact")}
    return {"libraries": facts, "checks": checks, "all_equal": bool(checks) and all(check == "equal" for check in checks.values())}


def compare_d3rlpy(folder: Path, kind: str) -> str:
    """Our reading of a file that d3rlpy wrote against d3rlpy's."""
    from polyact.data import formats
    from polyact.data.formats.columns import without_final

    (source,) = formats.read(folder / f"d3rlpy-{kind}.h5", "d3rlpy")
    episodes, truth = source.episodes, np.load(folder / f"d3rlpy-{kind}.npz")
    assert episodes.observation is not None
    ours: dict[str, Any] = {"actions": episodes.action, "rewards": episodes.reward, "lengths": episodes.lengths}
    ours["terminated"] = np.logical_or.reduceat(np.asarray(episodes.terminated), episodes.starts)
    observation = without_final(episodes.observation, episodes.lengths)[0]
    parts = observation if isinstance(observation, dict) else {"": observation}
    ours |= {f"observations{key}": part for key, part in parts.items()}
    return differences(ours, {name: truth[name] for name in truth.files})


def compare_ogbench(folder: Path, layout: str) -> str:
    """Our reading of OGBench's files, or of what its loader makes of them, as transitions, against its loader's."""
    from polyact.data import formats

    name = "maze-v0.npz" if layout == "files" else f"{layout}-v0.npz"
    (source,) = formats.read(folder / name, "ogbench")
    episodes, truth = source.episodes, np.load(folder / "regular-v0.npz")
    observation: Any = episodes.observation
    rows = np.arange(episodes.steps) + np.repeat(np.arange(episodes.count), episodes.lengths)
    end = np.zeros(episodes.steps, np.float32)
    end[np.cumsum(episodes.lengths) - 1] = 1
    ours = {
        "observations": observation[rows],
        "next_observations": observation[rows + 1],
        "actions": episodes.action,
        "terminals": end,
    }
    return differences(ours, {key: truth[key] for key in ours})


def differences(ours: dict[str, Any], truth: dict[str, Any]) -> str:
    """'equal', or the names that differ. Trailing axes of one, which some write and some do not, count as equal."""
    if ours.keys() != truth.keys():
        return f"names differ: {sorted(ours.keys() ^ truth.keys())}"
    odd = [name for name in ours if not np.array_equal(np.squeeze(ours[name]), np.squeeze(truth[name]))]
    return f"values differ: {odd}" if odd else "equal"


def ogbench_arrays() -> dict[str, Any]:
    rng, rows = np.random.default_rng(0), STEPS + len(LENGTHS)
    end = np.zeros(rows, np.float32)
    end[np.cumsum(np.array(LENGTHS) + 1) - 1] = 1
    observation = rng.normal(size=(rows, 3)).astype(np.float32)
    return {"observations": observation, "actions": rng.normal(size=(rows, 2)).astype(np.float32), "terminals": end}


def inside(folder: Path) -> dict[str, str]:
    """Runs where the libraries are: every file they write, and what they read."""
    facts = {}
    for name, make in {"d3rlpy": inside_d3rlpy, "ogbench": inside_ogbench}.items():
        try:
            facts[name] = make(folder)
        except ImportError as error:
            print(f"{name}: {error}", file=sys.stderr)
    return facts


def inside_d3rlpy(folder: Path) -> str:
    import d3rlpy
    from d3rlpy.dataset import Episode, InfiniteBuffer, ReplayBuffer

    rng = np.random.default_rng(0)
    for kind in KINDS:
        shapes = {"image": [(3, 8, 8)], "tuple": [(3,), (2,)]}.get(kind, [(3,)])
        episodes = []
        for length, ended in zip(LENGTHS, ENDED, strict=True):
            parts = [rng.integers(0, 255, (length, *shape)).astype(np.uint8 if kind == "image" else np.float32) for shape in shapes]
            action = rng.integers(0, 4, (length, 1)) if kind == "discrete" else rng.normal(size=(length, 2)).astype(np.float32)
            reward = rng.normal(size=(length, 1)).astype(np.float32)
            episodes.append(Episode(tuple(parts) if kind == "tuple" else parts[0], action, reward, ended))
        path = folder / f"d3rlpy-{kind}.h5"
        with path.open("w+b") as file:
            ReplayBuffer(InfiniteBuffer(), episodes=episodes).dump(file)
        with path.open("rb") as file:
            back = ReplayBuffer.load(file, InfiniteBuffer()).episodes
        truth = {"actions": np.concatenate([e.actions for e in back]), "rewards": np.concatenate([e.rewards for e in back])}
        truth |= {"lengths": np.array([len(e) for e in back]), "terminated": np.array([e.terminated for e in back])}
        for i in range(len(shapes)):
            parts = [e.observations[i] if kind == "tuple" else e.observations for e in back]
            truth[f"observations{i if kind == 'tuple' else ''}"] = np.concatenate(parts)
        np.savez(folder / f"d3rlpy-{kind}.npz", **truth)
    return d3rlpy.__version__


def inside_ogbench(folder: Path) -> str:
    from importlib import metadata

    from ogbench.utils import load_dataset

    for layout, compact in (("regular", False), ("compact", True)):
        np.savez(folder / f"{layout}-v0.npz", **load_dataset(str(folder / "maze-v0.npz"), compact_dataset=compact))
    return metadata.version("ogbench")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="a Python that has d3rlpy and ogbench")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        print(json.dumps(inside(given.inside)))
    elif given.python:
        print(json.dumps(outside(given.python), indent=1))
    else:
        parser.error("--python is needed: a Python that has d3rlpy and ogbench")
