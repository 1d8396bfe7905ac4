"""Logged feedback for off-policy evaluation: Open Bandit and SCOPE-RL dictionaries, from and to sources, or in NPZ files (read).

A bandit round is an episode of one step: the context is its observation. What the field calls `pscore` is the probability (density)
of the logged action under the policy that logged it, here the exponential of the column `log_prob`, which stays missing when the
log has none. SCOPE-RL trajectories may differ in length; its `done` marks every end, `terminal` those that came from a time limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from polyact import spaces
from polyact.data.formats.columns import check_flag, check_vector, from_steps, lengths_from_ends, without_final
from polyact.data.formats.common import PathLike, naming
from polyact.data.formats.npz import entry_names, load_arrays
from polyact.data.source import Source
from polyact.errors import DataError

NAME = "ope"
_BANDIT = {
    "n_rounds",
    "n_actions",
    "context",
    "action_context",
    "action",
    "position",
    "reward",
    "pscore",
    "expected_reward",
    "pi_b",
}
_SCOPE_FACTS = ("state_keys", "action_keys", "action_meaning", "dataset_id")
_SCOPE_SIZES = ("size", "n_trajectories", "step_per_trajectory", "action_type", "n_actions", "action_dim", "state_dim")
_SCOPE = {*_SCOPE_FACTS, *_SCOPE_SIZES, "state", "action", "reward", "done", "terminal", "info", "pscore", "behavior_policy"}


def detect(path: PathLike) -> bool:
    """An NPZ file with the arrays of one of the two dictionaries."""
    names = entry_names(path) if Path(path).suffix == ".npz" else set()
    return names >= {"n_rounds", "action", "reward"} or ("state" in names and bool(names & {"n_trajectories", "behavior_policy"}))


def read(path: PathLike) -> list[Source]:
    """The source in an NPZ file that holds a dictionary entry by entry (`info/<key>` for what lies in `info`)."""
    arrays = load_arrays(path)
    value: dict[str, Any] = {name: array for name, array in arrays.items() if not name.startswith("info/")}
    info = {name[5:]: array for name, array in arrays.items() if name.startswith("info/")}
    value |= {"info": info} if info else {}
    make = from_obp if "n_rounds" in value else from_scope_rl
    return [make(value, str(path), Path(path).stem)]


def from_obp(feedback: Mapping[str, Any], where: str = "bandit feedback", name: str = "bandit") -> Source:
    """Open Bandit's dictionary as a source of one-step episodes.

    context [n, d] -> observation; action [n] (with n_actions) or [n] / [n, k] real; pscore [n] -> log_prob; position, pi_b
    [n, n_actions, len_list] and expected_reward [n, n_actions] -> info; action_context -> metadata. `where` starts the messages of
    DataErrors.
    """
    rounds = _whole(where, "n_rounds", feedback)
    values = _given(feedback)
    actions = _whole(where, "n_actions", feedback) if "n_actions" in values else None
    columns: dict[str, Any] = {"action": _actions(where, values, actions), "terminated": np.ones(rounds, bool)}
    columns["reward"] = check_vector(where, "reward", _array(where, values, "reward"))
    if "context" in values:
        columns["observation"] = _array(where, values, "context")
    if "pscore" in values:
        columns["log_prob"] = _log_prob(where, values, actions is not None)
    info = {key: _array(where, values, key) for key in values.keys() - (_BANDIT - {"position", "pi_b", "expected_reward"})}
    for key, rows in (("pi_b", (rounds, actions)), ("expected_reward", (rounds, actions))):
        if key in info and actions is not None and info[key].shape[:2] != rows:
            raise DataError(f"{where}: {key} has shape {info[key].shape}, expected {rows[0]} rounds x {actions} actions")
    facts = {key: info.pop(key) for key in sorted(info) if not (info[key].ndim and len(info[key]) == rounds)}
    metadata = {key: value.tolist() for key, value in facts.items()}
    if "action_context" in values:
        metadata["action_context"] = _array(where, values, "action_context").tolist()
    episodes, more = from_steps(where, columns | {"info": info}, np.ones(rounds, np.int64))
    with naming(where):
        return Source(episodes, name, action_space=_space(columns["action"], actions), metadata=metadata | more)


def to_obp(source: Source) -> dict[str, Any]:
    """A source of one-step episodes as Open Bandit's dictionary; raises DataError when episodes are longer."""
    episodes = source.episodes
    if np.any(episodes.lengths != 1):
        raise DataError(
            f"source '{source.name}': bandit feedback needs episodes of 1 step, the longest has {episodes.lengths.max()}"
        )
    if episodes.action is None or episodes.reward is None or isinstance(episodes.observation, dict):
        raise DataError(f"source '{source.name}': bandit feedback needs actions, rewards and contexts that are one array")
    out: dict[str, Any] = {"n_rounds": episodes.count}
    if isinstance(source.action_space, spaces.Discrete):
        out["n_actions"] = source.action_space.n
    if episodes.observation is not None:
        out["context"] = without_final(episodes.observation, episodes.lengths)[0]
    if "action_context" in source.metadata:
        out["action_context"] = np.asarray(source.metadata["action_context"])
    out |= {"action": episodes.action, "position": None, "reward": episodes.reward}
    out["pscore"] = None if episodes.log_prob is None else np.exp(episodes.log_prob)
    return out | episodes.info


def from_scope_rl(logged: Mapping[str, Any], where: str = "logged dataset", name: str = "logged") -> Source:
    """SCOPE-RL's dictionary as a source.

    The lengths of the trajectories are `step_per_trajectory` (a number or one per trajectory) or, where it is missing, what done
    and terminal say. Sizes that are given must fit. `where` starts the messages of DataErrors.
    """
    values = _given(logged)
    discrete = str(values.get("action_type", "discrete" if "n_actions" in values else "continuous")) == "discrete"
    actions = _whole(where, "n_actions", values) if discrete and "n_actions" in values else None
    columns: dict[str, Any] = {"observation": _array(where, values, "state"), "action": _actions(where, values, actions, discrete)}
    columns["reward"] = check_vector(where, "reward", _array(where, values, "reward"))
    steps = len(columns["reward"])
    flags = {key: check_flag(where, key, _array(where, values, key)) for key in ("done", "terminal") if key in values}
    lengths = _trajectories(where, values, flags, steps)
    if "terminal" in flags:
        columns["truncated"] = flags["terminal"]
    if "done" in flags:
        columns["terminated"] = flags["done"] & ~flags.get("terminal", np.zeros(steps, bool))
    if "pscore" in values:
        columns["log_prob"] = _log_prob(where, values, discrete)
    for key, width in (("state_dim", columns["observation"].shape[1:]), ("action_dim", columns["action"].shape[1:])):
        if key in values and not (discrete and key == "action_dim") and width != (_whole(where, key, values),):
            raise DataError(f"{where}: {key} is {values[key]}, the rows have shape {width}")
    info = values.get("info", {})
    if not isinstance(info, Mapping):
        raise DataError(f"{where}: info should be a dictionary of columns, got {type(info).__name__}")
    columns["info"] = {key: _array(where, info, key) for key in info}
    metadata = {key: np.asarray(values[key]).tolist() for key in (*_SCOPE_FACTS, *sorted(values.keys() - _SCOPE)) if key in values}
    episodes, more = from_steps(where, columns, lengths)
    with naming(where):
        space = _space(columns["action"], actions)
        source = Source(episodes, name, action_space=space, metadata=metadata | more)
        return replace(source, behaviour=str(values.get("behavior_policy", "")))


def to_scope_rl(source: Source) -> dict[str, Any]:
    """A source as SCOPE-RL's dictionary; `step_per_trajectory` is a number only when all episodes have the same length."""
    episodes, space = source.episodes, source.action_space
    if not isinstance(episodes.observation, np.ndarray) or not isinstance(episodes.action, np.ndarray) or episodes.reward is None:
        raise DataError(f"source '{source.name}': SCOPE-RL needs observations and actions that are arrays, and rewards")
    discrete, none = isinstance(space, spaces.Discrete), np.zeros(episodes.steps, bool)
    terminated, truncated = (none if flag is None else flag for flag in (episodes.terminated, episodes.truncated))
    ends = none.copy()
    ends[np.cumsum(episodes.lengths) - 1] = True
    truncated = truncated | (ends & ~terminated)
    same = len(np.unique(episodes.lengths)) == 1
    return {
        "size": episodes.steps,
        "n_trajectories": episodes.count,
        "step_per_trajectory": int(episodes.lengths[0]) if same else episodes.lengths,
        "action_type": "discrete" if discrete else "continuous",
        "n_actions": space.n if isinstance(space, spaces.Discrete) else None,
        "action_dim": None if discrete else episodes.action.shape[1],
        "state_dim": episodes.observation.shape[1],
        **{key: source.metadata.get(key) for key in _SCOPE_FACTS},
        "state": without_final(episodes.observation, episodes.lengths)[0],
        "action": episodes.action,
        "reward": episodes.reward,
        "done": (terminated | truncated).astype(float),
        "terminal": truncated.astype(float),
        "info": dict(episodes.info),
        "pscore": None if episodes.log_prob is None else np.exp(episodes.log_prob),
        "behavior_policy": source.behaviour,
    }


def _given(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry for key, entry in value.items() if entry is not None}


def _array(where: str, values: Mapping[str, Any], key: str) -> np.ndarray:
    if key not in values:
        raise DataError(f"{where}: '{key}' is missing; found: {', '.join(sorted(map(str, values)))}")
    array = np.asarray(values[key])
    if array.dtype.kind not in "biufU":
        raise DataError(f"{where}: '{key}' has type {array.dtype}, expected numbers")
    return array


def _whole(where: str, key: str, values: Mapping[str, Any]) -> int:
    array = _array(where, values, key)
    if array.size != 1 or array.dtype.kind not in "iuf" or array.item() < 1 or array.item() != int(array.item()):
        raise DataError(f"{where}: '{key}' should be a positive whole number, got {str(values[key])[:50]}")
    return int(array.item())


def _actions(where: str, values: Mapping[str, Any], count: int | None, discrete: bool | None = None) -> np.ndarray:
    action = _array(where, values, "action")
    if discrete is None:
        discrete = count is not None
    if not discrete:
        return action[:, None] if action.ndim == 1 else action
    action = check_vector(where, "action", action)
    whole = action.astype(np.int64)
    bad = np.flatnonzero((whole != action) | (whole < 0) | (whole >= (np.inf if count is None else count)))
    if len(bad):
        raise DataError(
            f"{where}: action {action[bad[0]]} in row {bad[0]} is not one of the {count or 'whole-numbered'} actions from 0"
        )
    return whole


def _space(action: np.ndarray, count: int | None) -> spaces.Space | None:
    return spaces.Discrete(count) if count is not None and action.ndim == 1 else None


def _log_prob(where: str, values: Mapping[str, Any], discrete: bool) -> np.ndarray:
    """log pscore [n]; densities given per action dimension [n, k] are multiplied."""
    pscore = _array(where, values, "pscore")
    bad = np.argwhere(~((pscore > 0) & (pscore < np.inf)) | (discrete & (pscore > 1)))
    if pscore.dtype.kind not in "iuf" or pscore.ndim not in (1, 2) or len(bad):
        what = f"is {pscore[tuple(bad[0])]} in row {bad[0][0]}" if len(bad) else f"has shape {pscore.shape}"
        raise DataError(
            f"{where}: pscore {what}, expected {'probabilities above 0' if discrete else 'positive densities'}, one per row"
        )
    logs = np.log(pscore.astype(np.float64))
    return logs if logs.ndim == 1 else logs.sum(1)


def _trajectories(where: str, values: Mapping[str, Any], flags: dict[str, np.ndarray], steps: int) -> np.ndarray:
    per = np.asarray(values["step_per_trajectory"]) if "step_per_trajectory" in values else None
    count = _whole(where, "n_trajectories", values) if "n_trajectories" in values else None
    if "size" in values and _whole(where, "size", values) != steps:
        raise DataError(f"{where}: size is {values['size']}, reward has {steps} rows")
    odd = [key for key, flag in flags.items() if len(flag) != steps]
    if odd:
        raise DataError(f"{where}: '{odd[0]}' has {len(flags[odd[0]])} rows, reward has {steps}")
    if per is not None and per.ndim == 1 and per.dtype.kind in "iu":
        lengths = per.astype(np.int64)
    elif per is not None and steps == _whole(where, "step_per_trajectory", values) * (count or -1):
        lengths = np.full(count or 0, int(per))
    elif flags:
        lengths = lengths_from_ends(np.logical_or.reduce(list(flags.values())))
    else:
        raise DataError(f"{where}: nothing says where trajectories end (step_per_trajectory, done, terminal)")
    if lengths.sum() != steps or np.any(lengths < 1) or count not in (None, len(lengths)):
        got = f"{len(lengths)} trajectories of {int(lengths.sum())} steps"
        raise DataError(f"{where}: the lengths make {got}, expected {count if count is not None else 'some'} of {steps}")
    return lengths
