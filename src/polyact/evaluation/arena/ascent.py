"""Newton steps that never make things worse, for many small concave problems side by side."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

HALVINGS = 30


def climb(
    objective: Callable[[np.ndarray], np.ndarray], at: Float[np.ndarray, "*batch D"], step: Float[np.ndarray, "*batch D"]
) -> Float[np.ndarray, "*batch D"]:
    """`at` plus the step, halved for those of the batch whose objective [...] it would lower."""
    before, scale = objective(at), np.ones((*at.shape[:-1], 1))
    for _ in range(HALVINGS):
        worse = objective(at + scale * step) < before - 1e-12 * np.abs(before)
        if not worse.any():
            break
        scale = np.where(worse[..., None], scale / 2, scale)
    return at + scale * step
