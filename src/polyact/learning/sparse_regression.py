"""Formulae from data: a library of monomials, and sequentially thresholded least squares that keeps few of them (SINDy, arXiv 1509.03580).

Fits are NumPy in float64 and take milliseconds; a `Library` also maps JAX arrays, so that what was fitted runs inside a compiled program.
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from polyact.errors import PolyactError

Features = Float[np.ndarray, "rows F"]
Targets = Float[np.ndarray, "rows T"]
Coefficients = Float[np.ndarray, "F T"]


@dataclass(frozen=True)
class Library:
    """All monomials of `inputs` variables up to `degree`, the constant first."""

    inputs: int
    degree: int

    def __post_init__(self):
        if self.inputs < 1 or self.degree < 0:
            raise PolyactError(f"a library needs inputs >= 1 and degree >= 0, got {self.inputs} and {self.degree}")

    @property
    def terms(self) -> tuple[tuple[int, ...], ...]:
        """Each term as the numbers of the variables that are multiplied."""
        return tuple(
            term for degree in range(self.degree + 1) for term in combinations_with_replacement(range(self.inputs), degree)
        )

    def __call__(self, x: Any) -> Any:
        """[..., inputs] -> [..., F], for NumPy and JAX arrays alike. Each term is one product with a shorter one."""
        array = jnp if isinstance(x, jax.Array) else np
        values: dict[tuple[int, ...], Any] = {(): array.ones_like(x[..., 0])}
        for term in self.terms[1:]:
            values[term] = values[term[:-1]] * x[..., term[-1]]
        return array.stack([values[term] for term in self.terms], -1)

    def names(self, variables: tuple[str, ...]) -> tuple[str, ...]:
        """The terms in words: '1', 'x', 'x^2', 'x y'."""
        return tuple(
            " ".join(variables[i] + (f"^{term.count(i)}" if term.count(i) > 1 else "") for i in sorted(set(term))) or "1"
            for term in self.terms
        )


def ridge(features: Features, targets: Targets, penalty: float) -> Coefficients:
    """Minimiser of |features w - targets|^2 + penalty |w|^2, on features divided by their root mean square."""
    normal = Normal.of(features, targets)
    return normal.solved(penalty, np.ones(normal.moment.shape, bool)) / normal.scale


def thresholded(features: Features, targets: Targets, *, penalty: float, threshold: float, rounds: int = 20) -> Coefficients:
    """Ridge regression whose small coefficients are dropped and the others fitted again, until none is small.

    A coefficient is small when what it contributes (itself times its feature's root mean square) is below `threshold`: thresholds on raw
    coefficients would judge a feature by its unit.
    """
    normal = Normal.of(features, targets)
    active = np.ones(normal.moment.shape, bool)
    found = normal.solved(penalty, active)
    for _ in range(rounds):
        keep = active & (np.abs(found) >= threshold)
        if np.array_equal(keep, active):
            break
        active, found = keep, normal.solved(penalty, keep)
    return found / normal.scale


def bagged(
    features: Features,
    targets: Targets,
    *,
    penalty: float,
    threshold: float,
    members: int,
    seed: int,
    dropped: int = 0,
) -> Float[np.ndarray, "members F T"]:
    """`thresholded` on resamples of the rows, each without `dropped` of the terms drawn at random (E-SINDy, arXiv 2111.10992).

    Their coefficient-wise median is the model: single members can be far off, and a mean would follow them.
    """
    if members < 1 or not 0 <= dropped < features.shape[1]:
        raise PolyactError(f"members must be positive and dropped leave a term, got {members} and {dropped}")
    generator, found = np.random.default_rng(seed), []
    for _ in range(members):
        rows = generator.integers(len(features), size=len(features))
        kept = np.sort(generator.permutation(features.shape[1])[dropped:])
        own = np.zeros((features.shape[1], targets.shape[1]))
        own[kept] = thresholded(features[rows][:, kept], targets[rows], penalty=penalty, threshold=threshold)
        found.append(own)
    return np.stack(found)


@dataclass(frozen=True)
class Normal:
    """The normal equations of features divided by their root mean square `scale` [F, 1]; all that fits of the same rows share."""

    scale: Float[np.ndarray, "F 1"]
    gram: Float[np.ndarray, "F F"]
    moment: Coefficients

    @classmethod
    def of(cls, features: Features, targets: Targets) -> "Normal":
        size = np.sqrt(np.mean(np.square(features), 0))
        scale = np.where(size > 0, size, 1.0)
        scaled = np.asarray(features, np.float64) / scale
        # einsum and not BLAS, whose threads wait for each other where several fits run side by side
        gram = np.einsum("ni,nj->ij", scaled, scaled)
        return cls(scale[:, None], gram, np.einsum("ni,nj->ij", scaled, np.asarray(targets, np.float64)))

    def solved(self, penalty: float, active: np.ndarray) -> Coefficients:
        """Ridge regression of each target on its active [F, T] features, in units of `scale`."""
        found = np.zeros(active.shape)
        for target, chosen in enumerate(active.T):
            if chosen.any():
                matrix = self.gram[np.ix_(chosen, chosen)] + penalty * np.eye(chosen.sum())
                found[chosen, target] = np.linalg.lstsq(matrix, self.moment[chosen, target], rcond=None)[0]
        return found
