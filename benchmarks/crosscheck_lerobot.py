"""LeRobot's own library against ours, both ways: it opens what we write and we open what it records, number for number
(of videos, which it codes with loss, the right frame for every step).

    python benchmarks/crosscheck_lerobot.py --python PATH_TO_AN_ENVIRONMENT_WITH_LEROBOT/bin/python

The library's version says which format is checked (lerobot 0.3: v2.1, 0.4: v3.0). Prints one JSON object. Works offline.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

LENGTHS = (5, 1, 8)
FPS = 10
TASKS = ("reach", "grasp", "reach")
WIDTHS = {"observation.state": 4, "action": 2}
FILM = "observation.images.film"
BAR_SPEED = 6  # pixels per step


def numbers() -> dict[str, np.ndarray]:
    """The same data in both environments: features [N, ...]."""
    rng, steps = np.random.default_rng(0), sum(LENGTHS)
    vectors = {name: rng.normal(size=(steps, width)).astype(np.float32) for name, width in WIDTHS.items()}
    return vectors | {
        "observation.images.top": rng.integers(0, 256, (steps, 16, 20, 3)).astype(np.uint8),
        "observation.grid": rng.normal(size=(steps, 2, 3)).astype(np.float32),
        "next.reward": rng.normal(size=steps).astype(np.float32),
    }


def film() -> np.ndarray:
    """A bright bar that moves six pixels to the right at every step [N, 64, 96, 3]."""
    place = np.abs(np.arange(96) - BAR_SPEED * np.arange(sum(LENGTHS))[:, None] - 6)
    return np.broadcast_to(np.where(place < 4, 220, 30)[:, None, :, None], (sum(LENGTHS), 64, 96, 3)).astype(np.uint8)


def bar(frames: np.ndarray) -> np.ndarray:
    """Where the bar is in each frame (pixels)."""
    bright = np.clip(frames.mean((1, 3)) - 60, 0, None)
    return bright @ np.arange(96) / bright.sum(1)


def outside(python: str) -> dict:
    """Write, let the library read and record, read what it recorded."""
    from polyact.data.episodes import Episodes
    from polyact.data.formats import lerobot
    from polyact.data.formats.columns import with_final
    from polyact.data.source import Source

    data, lengths = numbers(), np.array(LENGTHS)
    observation = {name.removeprefix("observation."): column for name, column in data.items() if name.startswith("observation")}
    text = np.array(TASKS, object)[np.repeat(np.arange(len(lengths)), lengths)]
    episodes = Episodes(lengths, with_final(observation, lengths), data["action"], data["next.reward"], text=text)
    with tempfile.TemporaryDirectory() as folder:
        for version in ("v2.1", "v3.0"):
            lerobot.write([Source(episodes, "ours", embodiment="so100", control_hz=FPS)], Path(folder) / f"ours-{version}", version)
        command = [python, __file__, "--inside", folder]
        settings = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": f"{folder}/cache"}
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=settings)
        if run.returncode:
            return {"agree": False, "error": run.stderr.strip().splitlines()[-1]}
        result = json.loads(run.stdout.splitlines()[-1])
        (found,) = lerobot.read(Path(folder) / "theirs", videos=True)
    started = {
        name: np.delete(column, np.cumsum(lengths) + np.arange(len(lengths)), 0)
        for name, column in found.episodes.observation.items()
    }
    films = float(np.abs(bar(started.pop("images.film")) - bar(film())).max() / BAR_SPEED)
    differences = {name: float(np.abs(column - data[f"observation.{name}"]).max()) for name, column in started.items()}
    differences |= {"action": float(np.abs(found.episodes.action - data["action"]).max())}
    differences |= {"reward": float(np.abs(found.episodes.reward - data["next.reward"]).max())}
    same_text = found.episodes.text.tolist() == text.tolist() and found.episodes.lengths.tolist() == list(LENGTHS)
    result |= {"we_read_theirs": differences, "frames_off_in_their_films": films, "same_tasks_and_lengths": same_text}
    result["agree"] = same_text and films < 0.5 and not any([*differences.values(), *result["they_read_ours"].values()])
    return result


def inside(folder: Path) -> dict:
    """In the library's environment: read what polyact wrote, and record the same data."""
    import torch

    for operator in (
        "nms",
        "qnms",
    ):  # torchvision from PyPI does not match CPU builds of torch; data sets do not need its operators
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import lerobot
    from lerobot.datasets.lerobot_dataset import CODEBASE_VERSION, LeRobotDataset

    data, ends = numbers(), np.cumsum(LENGTHS)
    ours = LeRobotDataset("toy/ours", root=folder / f"ours-{CODEBASE_VERSION}")
    rows = [ours[number] for number in range(len(ours))]
    differences = dict.fromkeys(data, 0.0)
    for number, row in enumerate(rows):
        for name, column in data.items():
            found, expected = np.asarray(row[name]), column[number]
            if name.startswith("observation.images"):
                found = np.round(found.transpose(1, 2, 0) * 255)
            differences[name] = max(differences[name], float(np.abs(found.astype(float) - expected).max()))
        assert row["task"] == TASKS[int(np.searchsorted(ends, number, "right"))], row["task"]
    assert len(ours) == sum(LENGTHS)
    assert ours.num_episodes == len(LENGTHS)
    assert np.allclose(ours.meta.stats["action"]["mean"], data["action"].mean(0), atol=1e-6)
    # no matrix is recorded: lerobot 0.4 can't take statistics of one in an episode of one step
    features = {name: {"dtype": "float32", "shape": (width,), "names": None} for name, width in WIDTHS.items()}
    features["observation.images.top"] = {"dtype": "image", "shape": (16, 20, 3), "names": ["height", "width", "channels"]}
    features[FILM] = {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]}
    features["next.reward"] = {"dtype": "float32", "shape": (1,), "names": None}
    films = data | {FILM: film()}
    theirs = LeRobotDataset.create("toy/theirs", FPS, features, root=folder / "theirs", robot_type="so100")
    for number in range(sum(LENGTHS)):
        episode = int(np.searchsorted(ends, number, "right"))
        frame = {name: np.atleast_1d(films[name][number]) for name in features}
        if CODEBASE_VERSION == "v2.1":
            theirs.add_frame(frame, task=TASKS[episode])
        else:
            theirs.add_frame(frame | {"task": TASKS[episode]})
        if number + 1 == ends[episode]:
            theirs.save_episode()
    if hasattr(theirs, "finalize"):
        theirs.finalize()
    return {"lerobot": lerobot.__version__, "format": CODEBASE_VERSION, "they_read_ours": differences}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", help="a Python in whose environment lerobot is installed")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(inside(arguments.inside)))
        return
    if not arguments.python:
        parser.error("--python is needed: lerobot lives in an environment of its own")
    result = outside(arguments.python)
    print(json.dumps(result, indent=1))
    sys.exit(not result["agree"])


if __name__ == "__main__":
    main()
