"""Checkpoints: every array of the training states, so that a resumed run equals an uninterrupted one bit for bit.

A checkpoint holds arrays and JSON only. The structure is rebuilt from the learner; what does not match it is refused.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from polyact.errors import SavedError

VERSION = 1


def write(folder: Path, step: int, states: list[PyTree], history: list[dict[str, Any]], identity: dict[str, Any]) -> Path:
    """Write folder/<step>, aside and renamed, then drop older checkpoints in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    target, aside = folder / f"{step:09d}", folder / f".writing-{step:09d}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    save_file(
        {name: array for seed, state in enumerate(states) for name, array in _arrays(state, seed).items()},
        aside / "state.safetensors",
    )
    text = json.dumps(
        {"version": VERSION, "step": step, "seeds": len(states), "identity": identity, "history": history}, allow_nan=True
    )
    (aside / "checkpoint.json").write_text(text)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(aside, target)
    for old in folder.iterdir():
        if old.name.isdigit() and old.name < target.name:
            shutil.rmtree(old)
    return target


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in a folder, None when there is none."""
    found = sorted(p for p in folder.glob("*/checkpoint.json") if p.parent.name.isdigit()) if folder.is_dir() else []
    return found[-1].parent if found else None


def resumed(folder: Path | None, states: list[PyTree], identity: dict[str, Any]) -> tuple[int, list[PyTree], list[dict[str, Any]]]:
    """Where to go on: the newest checkpoint in `folder`, or the fresh `states` at step 0 when there is none."""
    newest = latest(folder) if folder else None
    return read(newest, states, identity) if newest else (0, states, [])


def read(path: Path, templates: list[PyTree], identity: dict[str, Any]) -> tuple[int, list[PyTree], list[dict[str, Any]]]:
    """(step, states, history) of a checkpoint, in the structure of `templates`.

    Raises SavedError when it is damaged, or was written by a run with other settings than `identity`.
    """
    try:
        facts = json.loads((path / "checkpoint.json").read_text())
        arrays = load_file(path / "state.safetensors")
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise SavedError(f"checkpoint {path} is damaged: {error}") from error
    if facts.get("version") != VERSION or facts.get("seeds") != len(templates):
        raise SavedError(
            f"checkpoint {path} has version {facts.get('version')} and {facts.get('seeds')} seeds, expected {VERSION} and {len(templates)}"
        )
    for name, value in identity.items():
        if facts["identity"].get(name) != value:
            raise SavedError(f"checkpoint {path} was written with {name} = {facts['identity'].get(name)}, this run has {value}")
    return facts["step"], [_restore(template, seed, arrays, path) for seed, template in enumerate(templates)], facts["history"]


def _arrays(state: PyTree, seed: int) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {f"{seed}{jax.tree_util.keystr(path)}": _plain(leaf) for path, leaf in leaves if isinstance(leaf, jax.Array)}


def _plain(leaf: jax.Array) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _restore(template: PyTree, seed: int, arrays: dict[str, np.ndarray], path: Path) -> PyTree:
    def one(where: Any, leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf
        name, expected = f"{seed}{jax.tree_util.keystr(where)}", _plain(leaf)
        found = arrays.get(name)
        if found is None or found.shape != expected.shape or found.dtype != expected.dtype:
            have = "nothing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise SavedError(f"checkpoint {path}: '{name}' is {have}, expected {expected.dtype}{list(expected.shape)}")
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(jnp.asarray(found), impl=jax.random.key_impl(leaf))
        return jnp.asarray(found)

    return jax.tree_util.tree_map_with_path(one, template)
