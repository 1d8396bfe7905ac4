"""Rows as 64-bit numbers: equal rows have equal hashes, different rows almost surely different ones. Finds duplicates, names data."""

from __future__ import annotations

import hashlib

import numpy as np

from polyact.data.episodes import Column, Episodes, leaves

_CHUNK = 1 << 17  # bytes hashed at a time: what stays in a core's cache through all passes


def row_hashes(column: Column) -> np.ndarray:
    """A hash [N] of each row of a column [N, ...] (an array, or a dict of arrays), the same on every machine."""
    hashes = np.zeros(1, np.uint64)
    for path, array in leaves(column, ""):
        hashes = _mix(hashes + _salt(path)) ^ _array_hashes(array)
    return _mix(hashes)


def transition_hashes(episodes: Episodes) -> np.ndarray:
    """A hash [N] of each transition: observation, action, reward, terminated and next observation, as far as they were recorded."""
    hashes = np.zeros(episodes.steps, np.uint64)
    rows = np.arange(episodes.steps) + np.repeat(np.arange(episodes.count), episodes.lengths)
    for name in ("observation", "action", "reward", "terminated"):
        column = getattr(episodes, name)
        if column is None:
            continue
        part = row_hashes(column)
        for each in (part[rows], part[rows + 1]) if name == "observation" else (part,):
            hashes = _mix(hashes + _salt(name)) ^ each
    return hashes


def episode_hashes(episodes: Episodes, transitions: np.ndarray) -> np.ndarray:
    """A hash [E] of each episode: its transitions in their order. transitions [N]: from `transition_hashes`."""
    if not episodes.count:
        return np.zeros(0, np.uint64)
    starts = np.cumsum(episodes.lengths) - episodes.lengths
    step = (np.arange(episodes.steps) - np.repeat(starts, episodes.lengths)).astype(np.uint64)
    return np.add.reduceat(_mix(transitions ^ _mix(step)), starts)


def share_of_duplicates(hashes: np.ndarray) -> float:
    """Share of rows that repeat an earlier one; 0 where there are none."""
    return float(1 - len(np.unique(hashes)) / len(hashes)) if len(hashes) else 0.0


def fingerprint(episodes: Episodes) -> str:
    """32 hexadecimal digits that name the episodes' content: lengths, columns, types and values."""
    digest = hashlib.blake2b(episodes.lengths.astype("<i8").tobytes(), digest_size=16)
    for name, column, _ in sorted(episodes.columns(), key=lambda entry: entry[0]):
        for path, array in leaves(column, name):
            kind = "text" if array.dtype.kind in "OU" else array.dtype.newbyteorder("<").str
            digest.update(f"{path} {kind} {array.shape}".encode())
            digest.update(_array_hashes(array).astype("<u8").tobytes())
    return digest.hexdigest()


def _array_hashes(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "OU":
        codes = {text: _salt(str(text)) for text in dict.fromkeys(array.tolist())}
        return np.array([codes[text] for text in array.tolist()], np.uint64)
    if not len(array):
        return np.zeros(0, np.uint64)
    rows = max(1, _CHUNK // max(1, array[:1].nbytes))
    return np.concatenate([_block_hashes(array[start : start + rows]) for start in range(0, len(array), rows)])


def _block_hashes(block: np.ndarray) -> np.ndarray:
    """Every 8 bytes of a row are mixed with their place before they are added, so sums of similar numbers do not cancel."""
    flat = np.ascontiguousarray(block.reshape(len(block), -1), block.dtype.newbyteorder("<"))
    raw = flat.view(np.uint8).reshape(len(block), -1)
    words = np.zeros((len(raw), -(-raw.shape[1] // 8)), "<u8")
    words.view(np.uint8)[:, : raw.shape[1]] = raw
    words = words.astype(np.uint64, copy=False)
    words += _mix(np.arange(1, words.shape[1] + 1, dtype=np.uint64))
    return _mix_in_place(words).sum(1, dtype=np.uint64)


def _mix(value: np.ndarray) -> np.ndarray:
    return _mix_in_place(value.copy())


def _mix_in_place(x: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: every bit of the input changes about half of the output's."""
    x += np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _salt(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"))
