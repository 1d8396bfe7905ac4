"""A table: the experience of a mixture laid out for sampling, on the device or on the host.

Columns of sources with different widths are padded with zeros to the widest; `Index.sources` says whose row it is. Only what the
learner needs is loaded, and sources that lack a needed column are left out, with a warning that names them.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from polyact.data.source import Mixture, Source
from polyact.errors import DataError

STEPWISE = ("action", "reward", "terminated", "goal", "cost", "return_to_go", "log_prob")


class Index(eqx.Module):
    """Where episodes lie. N steps, E episodes; the observation row of step i is i + episodes[i].

    episodes [N]: episode of a step; starts, lengths [E]; successors [E]: how many steps of the episode have a usable next observation
    (one fewer than its length where the last observation was not recorded and the episode did not terminate); sources [E].
    """

    episodes: Int[Array, "N"]
    starts: Int[Array, "E"]
    lengths: Int[Array, "E"]
    successors: Int[Array, "E"]
    sources: Int[Array, "E"]

    @property
    def steps(self) -> int:
        return self.episodes.shape[0]


class Columns(eqx.Module):
    """Columns by name, each an array or a dictionary of arrays; `read` of a column that was not recorded is None."""

    arrays: dict[str, Any]

    def read(self, name: str, rows: Any) -> Any:
        column = self.arrays.get(name)
        return None if column is None else jax.tree.map(lambda array: array[rows], column)

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in jax.tree.leaves(self.arrays))

    def on_device(self) -> "Columns":
        """The same columns as device arrays, in 32 bits."""
        return Columns(jax.tree.map(lambda array: jnp.asarray(_narrow(np.asarray(array))), self.arrays))


class Stacked:
    """Host columns of several sources as one indexable array, padded to a common width; nothing is copied until it is read."""

    def __init__(self, parts: Sequence[np.ndarray]):
        trailing = {part.shape[1:] for part in parts}
        if len(trailing) > 1 and any(len(shape) != 1 for shape in trailing):
            raise DataError(f"columns of shapes {sorted(trailing)} can't share a batch: only vectors are padded")
        self.parts = list(parts)
        self.shape_of_row = next(iter(trailing)) if len(trailing) == 1 else (max(shape[0] for shape in trailing),)
        self.dtype = _narrow(np.zeros(0, np.result_type(*parts))).dtype
        self.ends = np.cumsum([len(part) for part in parts])

    @property
    def nbytes(self) -> int:
        return int(self.ends[-1]) * int(np.prod(self.shape_of_row)) * self.dtype.itemsize

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        whole = self.parts[0] if len(self.parts) == 1 else self[np.arange(len(self))]
        return np.asarray(whole).astype(dtype or self.dtype, copy=False)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows)
        if len(self.parts) == 1:
            return self.parts[0][rows].astype(self.dtype, copy=False)
        out = np.zeros((*rows.shape, *self.shape_of_row), self.dtype)
        part_of = np.searchsorted(self.ends, rows, side="right")
        for number, part in enumerate(self.parts):
            here = part_of == number
            block = part[rows[here] - (self.ends[number] - len(part))]
            if part.ndim > 1 and len(self.shape_of_row) == 1:
                out[here, : part.shape[1]] = block
            else:
                out[here] = block
        return out


@dataclass(frozen=True)
class Table:
    """Index and columns, with the share of each source and what a step weighs within its source (None: all the same)."""

    index: Index
    columns: Columns
    names: tuple[str, ...]
    shares: tuple[float, ...]
    weights: np.ndarray | None
    resident: bool


def build_table(mixture: Mixture, needs: Sequence[str], *, budget: int, weights: np.ndarray | None = None) -> tuple[Table, Mixture]:
    """Lay out the usable sources of a mixture; returns the table and the mixture of the sources that are in it.

    needs: columns the learner reads; `budget`: bytes of columns that may live on the device, beyond that they stay on the host.
    weights: further weights per step [N] or per episode [E] over all sources of the mixture as given, in order.
    """
    used, kept_weights = _usable(mixture, needs, weights)
    columns = Columns({name: column for name in ("observation", *STEPWISE) if (column := _stack(used.sources, name)) is not None})
    index = _index(used.sources)
    resident = columns.bytes <= budget
    names = tuple(source.name for source in used.sources)
    return Table(index, columns.on_device() if resident else columns, names, used.weights, kept_weights, resident), used


def _usable(mixture: Mixture, needs: Sequence[str], weights: np.ndarray | None) -> tuple[Mixture, np.ndarray | None]:
    lacking = {s.name: [n for n in needs if getattr(s.episodes, n) is None] for s in mixture.sources}
    good = [number for number, source in enumerate(mixture.sources) if not lacking[source.name] and source.episodes.steps]
    if not good:
        detail = "; ".join(f"'{name}' lacks {', '.join(missing) or 'any step'}" for name, missing in lacking.items())
        raise DataError(f"no source can feed this learner, which needs {', '.join(needs)}: {detail}")
    left_out = [f"'{s.name}' (no {', '.join(lacking[s.name])})" for s in mixture.sources if lacking[s.name]]
    if left_out:
        warnings.warn(f"left out of training: {'; '.join(left_out)}", stacklevel=4)
    if weights is not None:
        weights = _per_step(mixture, np.asarray(weights, np.float64))
        ends = np.cumsum([source.episodes.steps for source in mixture.sources])
        parts = np.split(weights, ends[:-1])
        weights = np.concatenate([parts[number] for number in good])
    chosen = [(mixture.sources[number], mixture.weights[number]) for number in good if mixture.weights[number] > 0]
    if not chosen:
        raise DataError("every usable source of the mixture has weight 0")
    if len(chosen) < len(good):
        if weights is not None:
            raise DataError("give step weights or a source weight of 0, not both")
        good = [number for number in good if mixture.weights[number] > 0]
    return Mixture(tuple(s for s, _ in chosen), tuple(w for _, w in chosen)), weights


def _per_step(mixture: Mixture, weights: np.ndarray) -> np.ndarray:
    lengths = np.concatenate([source.episodes.lengths for source in mixture.sources])
    if weights.shape == (len(lengths),) and len(lengths) != lengths.sum():
        return np.repeat(weights, lengths)
    if weights.shape != (lengths.sum(),):
        raise DataError(
            f"weights have shape {weights.shape}, expected one per step ({lengths.sum()}) or per episode ({len(lengths)})"
        )
    return weights


def _stack(sources: Sequence[Source], name: str) -> Any:
    columns = [getattr(source.episodes, name) for source in sources]
    if name == "terminated":
        unknown = [s.name for s, column in zip(sources, columns, strict=True) if column is None and s.episodes.reward is not None]
        if unknown:
            warnings.warn(
                f"no terminated column in {', '.join(unknown)}: their episodes are taken as cut off, not as ended", stacklevel=5
            )
        columns = [np.zeros(s.episodes.steps, bool) if c is None else c for s, c in zip(sources, columns, strict=True)]
    if any(column is None for column in columns):
        return None
    if any(part.dtype.kind not in "biuf" for part in jax.tree.leaves(columns)):
        raise DataError(f"{name} holds text, which can't be trained on; encode it into numbers first")
    structures = {str(jax.tree.structure(column)) for column in columns}
    if len(structures) > 1:
        raise DataError(
            f"{name} has different parts in different sources; join the parts into vectors first: polyact.data.flatten(source)"
        )
    return jax.tree.map(lambda *parts: Stacked(parts), *columns)


def _index(sources: Sequence[Source]) -> Index:
    lengths = np.concatenate([source.episodes.lengths for source in sources])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    if lengths.sum() + len(lengths) >= 2**31:
        raise DataError(f"{lengths.sum()} steps are more than 32-bit row numbers can address; split the mixture")
    successors = np.concatenate([_successors(source) for source in sources])
    numbers = np.repeat(np.arange(len(sources)), [source.episodes.count for source in sources])
    columns = (np.repeat(np.arange(len(lengths)), lengths), starts, lengths, successors, numbers)
    return Index(*(jnp.asarray(column.astype(np.int32)) for column in columns))


def _successors(source: Source) -> np.ndarray:
    episodes = source.episodes
    if source.metadata.get("final_observation") != "repeated":
        return episodes.lengths
    last = episodes.starts + episodes.lengths - 1
    ended = np.zeros(episodes.count, bool) if episodes.terminated is None else np.asarray(episodes.terminated)[last]
    return episodes.lengths - ~ended


def _narrow(array: np.ndarray) -> np.ndarray:
    """32-bit numbers: what the device computes in. Flags become floats because they enter TD targets as factors."""
    if array.dtype == bool or (array.dtype.kind == "f" and array.dtype.itemsize > 4):
        return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize > 4:
        return array.astype(np.int32)
    return array
