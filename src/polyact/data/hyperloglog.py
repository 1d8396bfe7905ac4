"""Counting different things in a fixed, small memory: HyperLogLog (Flajolet et al. 2007), with Ertl's estimator (arXiv 1702.01284)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8, UInt64

from polyact.errors import PolyactError


@dataclass(frozen=True)
class HyperLogLog:
    """registers [2^precision]: the longest run of leading zeros, plus one, among the hashes that chose each register; 0 where none did.

    The standard error of the count is 1.04 / 2^(precision / 2), at every size.
    """

    registers: UInt8[np.ndarray, " registers"]

    @classmethod
    def empty(cls, precision: int = 14) -> HyperLogLog:
        """Nothing seen yet. Raises PolyactError unless precision lies in 4 .. 18."""
        if not 4 <= precision <= 18:
            raise PolyactError(f"precision must lie between 4 and 18, got {precision}")
        return cls(np.zeros(2**precision, np.uint8))

    @property
    def precision(self) -> int:
        return len(self.registers).bit_length() - 1

    def add(self, hashes: UInt64[np.ndarray, " N"]) -> HyperLogLog:
        """With these seen as well. Equal things must have equal hashes whose bits look random (`data.hashing.row_hashes`)."""
        rest = hashes << np.uint64(self.precision)
        registers = self.registers.copy()
        np.maximum.at(registers, (hashes >> np.uint64(64 - self.precision)).astype(np.int64), self._ranks(rest))
        return HyperLogLog(registers)

    def merge(self, other: HyperLogLog) -> HyperLogLog:
        """Of everything that either has seen. Raises PolyactError when the precisions differ."""
        if self.precision != other.precision:
            raise PolyactError(f"counters of precision {self.precision} and {other.precision} can't be merged")
        return HyperLogLog(np.maximum(self.registers, other.registers))

    def count(self) -> float:
        """How many different things were seen, about (algorithm 6)."""
        size, longest = len(self.registers), 64 - self.precision
        often = np.bincount(self.registers, minlength=longest + 2)
        total = size * _tau(1 - often[longest + 1] / size)
        for rank in range(longest, 0, -1):
            total = 0.5 * (total + often[rank])
        total += size * _sigma(often[0] / size)
        return size * size / (2 * math.log(2) * total) if math.isfinite(total) else 0.0

    def _ranks(self, rest: UInt64[np.ndarray, " N"]) -> UInt8[np.ndarray, " N"]:
        """Leading zeros of the first 64 - precision bits, plus one."""
        left, zeros = rest.copy(), np.zeros(len(rest), np.uint8)
        for width in (32, 16, 8, 4, 2, 1):
            short = left < np.uint64(1) << np.uint64(64 - width)
            zeros += np.where(short, width, 0).astype(np.uint8)
            left = np.where(short, left << np.uint64(width), left)
        return np.minimum(zeros, 64 - self.precision).astype(np.uint8) + np.uint8(1)


def _sigma(share: float) -> float:
    """What empty registers contribute; infinite when all are empty."""
    if share == 1:
        return math.inf
    total, before, factor = share, -1.0, 1.0
    while total != before:
        share, before = share * share, total
        total, factor = total + share * factor, 2 * factor
    return total


def _tau(share: float) -> float:
    """What full registers contribute."""
    if share in (0.0, 1.0):
        return 0.0
    total, before, factor = 1 - share, -1.0, 1.0
    while total != before:
        share, before, factor = math.sqrt(share), total, factor / 2
        total -= (1 - share) ** 2 * factor
    return total / 3
