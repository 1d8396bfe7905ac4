"""How well an estimated ranking agrees with the true one."""

import numpy as np
from jaxtyping import Float

from polyact.errors import PolyactError


def pearson(truth: Float[np.ndarray, " P"], estimate: Float[np.ndarray, " P"]) -> float:
    """Linear correlation, in [-1, 1]. Raises PolyactError for fewer than two scores and for scores that are all the same."""
    truth, estimate = _checked(truth, estimate)
    if not truth.std() or not estimate.std():
        raise PolyactError("the correlation of scores that are all the same is undefined")
    return float(np.corrcoef(truth, estimate)[0, 1])


def mmrv(truth: Float[np.ndarray, " P"], estimate: Float[np.ndarray, " P"]) -> float:
    """Mean maximum rank violation (SIMPLER, arXiv 2405.05941), in the units of `truth`; 0 when the orders agree.

    mean_i max_j |truth_i - truth_j| over those j that the estimate orders the other way round relative to i.
    """
    truth, estimate = _checked(truth, estimate)
    swapped = (estimate[:, None] < estimate) != (truth[:, None] < truth)
    return float((np.abs(truth[:, None] - truth) * swapped).max(1).mean())


def _checked(truth: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    truth, estimate = (np.asarray(scores, float) for scores in (truth, estimate))
    if truth.shape != estimate.shape or truth.ndim != 1 or len(truth) < 2:
        raise PolyactError(
            f"agreement needs two vectors of one length of at least 2, got shapes {truth.shape} and {estimate.shape}"
        )
    return truth, estimate
