"""Checkpoints: every array of the training states, so that a resumed run equals an uninterrupted one bit for bit.

A checkpoint holds arrays and JSON only. The structure is rebuilt from the learner; what does not match it is refused.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from polyact.errors import SavedError
from polyact.files import is_partial, whole_folder

VERSION = 1


def write(folder: Path, step: int, states: list[PyTree], history: list[dict[str, Any]], identity: dict[str, Any]) -> Path:
    """Write folder/<step>, whole or not at all, then drop older checkpoints in the folder and what a killed run left half-written."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{step:09d}"
    with whole_folder(target) as aside:
        save_file(
            {name: array for seed, state in enumerate(states) for name, array in _arrays(state, seed).items()},
            aside / "state.safetensors",
        )
        facts = {"version": VERSION, "step": step, "seeds": len(states), "sha256": _digest(aside)}
        (aside / "checkpoint.json").write_text(json.dumps(facts | {"identity": identity, "history": history}, allow_nan=True))
    for old in folder.iterdir():
        if is_partial(old) or (old.name.isdigit() and old.name < target.name):
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
        if facts["version"] != VERSION:
            raise SavedError(f"checkpoint {path} has version {facts['version']}, this polyact reads {VERSION}")
        step, written, history = int(facts["step"]), dict(facts["identity"]), list(facts["history"])
        if facts["sha256"] != _digest(path):
            raise SavedError(f"checkpoint {path} is damaged: the checksum of state.safetensors does not match")
        arrays = load_file(path / "state.safetensors")
    except SavedError:
        raise
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise SavedError(f"checkpoint {path} is damaged: {error}") from error
    for name, value in identity.items():
        if written.get(name) != value:
            was, now = _difference(str(written.get(name)), str(value))
            raise SavedError(f"checkpoint {path} was written with {name} = {was}, this run has {now}")
    return step, [_restore(template, seed, arrays, path) for seed, template in enumerate(templates)], history


def _difference(one: str, other: str) -> tuple[str, str]:
    """Two texts cut down to where they begin to differ."""
    same = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(0, same - 30)
    return _excerpt(one, start), _excerpt(other, start)


def _excerpt(text: str, start: int, length: int = 80) -> str:
    return " ".join(f"{'...' if start else ''}{text[start : start + length]}{'...' if start + length < len(text) else ''}".split())


def _digest(folder: Path) -> str:
    with open(folder / "state.safetensors", "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(values: PyTree) -> str:
    """A short hash of every number in a tree: what `repr` does not show of arrays."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(values, eqx.is_array_like)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


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
