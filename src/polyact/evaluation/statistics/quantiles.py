"""Limits of a quantile: order statistics need no distribution and no standard error."""

import numpy as np
from jaxtyping import Float
from scipy import stats

from polyact.evaluation.statistics.designs import Design, variance


def quantile_limits(
    tables: Float[np.ndarray, "batch rows columns"], probability: float, design: Design, level: float
) -> tuple[Float[np.ndarray, " batch"], Float[np.ndarray, " batch"], str, list[str]]:
    """Both limits of a quantile of each table (NaN where too few scores bound it), how they were made, and a note for each."""
    if tables.shape[2] == 1:
        return _order_statistics(tables[:, :, 0], probability, level)
    return _woodruff(tables, probability, design, level)


def _order_statistics(scores: np.ndarray, probability: float, level: float) -> tuple[np.ndarray, np.ndarray, str, list[str]]:
    """Distribution-free limits of a quantile, interpolated between order statistics (Hettmansperger & Sheather 1986, Nyblom 1992)."""
    one_sided = (1 + level) / 2
    low, low_cover = _lower_limit(np.sort(scores), probability, one_sided)
    high, high_cover = _lower_limit(np.sort(-scores), 1 - probability, one_sided)
    cover, n, note = low_cover + high_cover - 1, scores.shape[1], ""
    if cover < level - 0.02:
        note = f"{n} scores are too few to bound this quantile at {100 * level:g}%"
        low, high = (
            end if c >= one_sided - 1e-9 else np.full_like(end, np.nan) for end, c in ((low, low_cover), (high, high_cover))
        )
    elif cover < level - 1e-9:
        note = f"{n} scores reach {100 * cover:.1f}% at most"
    return low, -high, "order statistics", [note] * len(scores)


def _lower_limit(ordered: np.ndarray, probability: float, level: float) -> tuple[np.ndarray, float]:
    """Lower confidence limits of a quantile, and the confidence they reach."""
    n = ordered.shape[1]
    cover = stats.binom.sf(np.arange(n), n, probability)  # entry i: that the quantile is above order statistic i
    if cover[0] < level:
        return ordered[:, 0], float(cover[0])
    i = int(np.flatnonzero(cover >= level)[-1])
    if i == n - 1:
        return ordered[:, i], level
    here = (i + 1) * (1 - probability) * (level - cover[i + 1])
    above = (n - i - 1) * probability * (cover[i] - level)
    return (here * ordered[:, i] + above * ordered[:, i + 1]) / (here + above), level


def _woodruff(
    tables: np.ndarray, probability: float, design: Design, level: float
) -> tuple[np.ndarray, np.ndarray, str, list[str]]:
    """Limits of a quantile of a table: those of the share of scores below it, read off the scores (Woodruff 1952)."""
    flat = tables.reshape(len(tables), -1)
    below = tables <= np.quantile(flat, probability, axis=1)[:, None, None]
    spread, free = variance(below.astype(float), design)
    reach = np.sqrt(spread) * stats.t.ppf((1 + level) / 2, np.maximum(free, 1.0))
    shares = np.stack([probability - reach, probability + reach], 1)
    ends = np.array([np.quantile(scores, np.clip(share, 0, 1)) for scores, share in zip(flat, shares, strict=True)])
    extreme = "the interval reaches the extreme scores: too few to bound this quantile"
    notes = [extreme if share[0] <= 0 or share[1] >= 1 else "" for share in shares]
    return ends[:, 0], ends[:, 1], "share below, by design", notes
