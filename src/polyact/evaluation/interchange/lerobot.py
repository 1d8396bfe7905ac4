"""LeRobot's `eval_info.json`, for one task and for several, read and written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from polyact.data.formats.common import PathLike, naming, read_json, reading, replacing
from polyact.errors import DataError


@dataclass(frozen=True)
class TaskScores:
    """One policy's episodes on one task.

    returns [E], successes [E] (bool), max_rewards [E], seeds [E]; None where not recorded. seconds: time the evaluation took.
    """

    returns: Float[np.ndarray, " E"]
    successes: np.ndarray | None = None
    max_rewards: np.ndarray | None = None
    seeds: np.ndarray | None = None
    group: str = ""
    task: int = 0
    seconds: float = math.nan

    def __post_init__(self):
        for name in ("successes", "max_rewards", "seeds"):
            column = getattr(self, name)
            if column is not None and np.shape(column) != self.returns.shape:
                raise DataError(f"{name} have shape {np.shape(column)}, the returns {self.returns.shape}; expected one per episode")


def read_eval_info(path: PathLike) -> list[TaskScores]:
    """The tasks in LeRobot's eval_info.json, one or several."""
    value = read_json(path)
    if "per_episode" in value:
        return [_single_task(path, value)]
    tasks = value.get("per_task")
    if not isinstance(tasks, list) or not tasks:
        raise DataError(f"{path}: has neither 'per_episode' nor a list 'per_task'; not a LeRobot eval_info.json")
    return [_one_of_tasks(path, number, task) for number, task in enumerate(tasks)]


def write_eval_info(path: PathLike, tasks: Sequence[TaskScores]) -> None:
    """Write LeRobot's eval_info.json: the single-task form for one task without a group, else per_task, per_group and overall."""
    if not tasks:
        raise DataError(f"{path}: nothing to write, there are no tasks")
    single = len(tasks) == 1 and not tasks[0].group
    value = _single_info(tasks[0]) if single else _multi_info(tasks)
    with replacing(path) as aside:
        aside.write_text(json.dumps(_nan_as_null(value), indent=2, allow_nan=False), "utf-8")


def _single_task(path: PathLike, value: dict[str, Any]) -> TaskScores:
    episodes = value["per_episode"]
    if not isinstance(episodes, list) or not episodes or not all(isinstance(episode, dict) for episode in episodes):
        raise DataError(f"{path}: 'per_episode' should be a list of episodes")
    columns = {name: [e.get(name) for e in episodes] for name in ("sum_reward", "max_reward", "success", "seed")}
    aggregated = value.get("aggregated")
    seconds = aggregated.get("eval_s") if isinstance(aggregated, dict) else None
    return _task(path, "per_episode", columns, "", 0, seconds)


def _one_of_tasks(path: PathLike, number: int, task: Any) -> TaskScores:
    metrics = task.get("metrics") if isinstance(task, dict) else None
    if not isinstance(metrics, dict):
        raise DataError(f"{path}: per_task[{number}] has no 'metrics'")
    names = {"sum_reward": "sum_rewards", "max_reward": "max_rewards", "success": "successes"}
    columns = {name: metrics.get(plural) or [] for name, plural in names.items()} | {"seed": []}
    identity = task.get("task_id", number)
    if not isinstance(identity, int):
        raise DataError(f"{path}: per_task[{number}].task_id is {identity!r}, expected a whole number")
    return _task(path, f"per_task[{number}].metrics", columns, str(task.get("task_group", "")), identity, None)


def _task(path: PathLike, where: str, columns: dict[str, Any], group: str, task: int, seconds: Any) -> TaskScores:
    def column(name: str, kind: Any) -> np.ndarray | None:
        values = columns[name]
        if not isinstance(values, list):
            raise DataError(f"{path}: {where}: '{name}' should be a list, got {type(values).__name__}")
        if not values or all(v is None for v in values):
            return None
        if not all(isinstance(v, int | float) for v in values):
            raise DataError(f"{path}: {where}: '{name}' holds values that are not numbers")
        with reading(path, f"{where}: '{name}'"):
            return np.asarray(values, kind)

    returns = column("sum_reward", np.float64)
    if returns is None:
        raise DataError(f"{path}: {where}: no episode has a 'sum_reward'")
    seconds = float(seconds) if isinstance(seconds, int | float) else math.nan
    found = {
        "successes": column("success", bool),
        "max_rewards": column("max_reward", np.float64),
        "seeds": column("seed", np.int64),
    }
    with naming(path):
        return TaskScores(returns, **found, group=group, task=task, seconds=seconds)


def _single_info(task: TaskScores) -> dict[str, Any]:
    columns = _lists(task)
    episodes = [{"episode_ix": i, **{name: column[i] for name, column in columns.items()}} for i in range(len(task.returns))]
    times = {"eval_s": task.seconds, "eval_ep_s": task.seconds / len(task.returns)}
    return {"per_episode": episodes, "aggregated": {**_averages([task]), **times}}


def _multi_info(tasks: Sequence[TaskScores]) -> dict[str, Any]:
    per_task = []
    for task in tasks:
        columns = _lists(task)
        metrics = {
            "sum_rewards": columns["sum_reward"],
            "max_rewards": columns["max_reward"],
            "successes": columns["success"],
            "video_paths": [],
        }
        per_task.append({"task_group": task.group, "task_id": task.task, "metrics": metrics})
    groups = {name: [task for task in tasks if task.group == name] for name in dict.fromkeys(task.group for task in tasks)}
    per_group = {
        name: {**_averages(members), "n_episodes": sum(len(t.returns) for t in members), "video_paths": []}
        for name, members in groups.items()
    }
    episodes, seconds = sum(len(task.returns) for task in tasks), sum(task.seconds for task in tasks)
    times = {"n_episodes": episodes, "eval_s": seconds, "eval_ep_s": seconds / episodes, "video_paths": []}
    return {"per_task": per_task, "per_group": per_group, "overall": {**_averages(tasks), **times}}


def _lists(task: TaskScores) -> dict[str, list]:
    empty = [None] * len(task.returns)
    return {
        "sum_reward": task.returns.tolist(),
        "max_reward": empty if task.max_rewards is None else np.asarray(task.max_rewards, float).tolist(),
        "success": empty if task.successes is None else np.asarray(task.successes, bool).tolist(),
        "seed": empty if task.seeds is None else np.asarray(task.seeds).tolist(),
    }


def _averages(tasks: Sequence[TaskScores]) -> dict[str, float]:
    def average(name: str) -> float:
        columns = [getattr(task, name) for task in tasks]
        known = [np.asarray(column, float) for column in columns if column is not None]
        return float(np.concatenate(known).mean()) if known else math.nan

    return {
        "avg_sum_reward": average("returns"),
        "avg_max_reward": average("max_rewards"),
        "pc_success": 100 * average("successes"),
    }


def _nan_as_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_as_null(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_nan_as_null(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
