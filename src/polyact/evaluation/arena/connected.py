"""Whether comparisons can rank their policies at all: a ranking exists only as far as the graph of comparisons hangs together."""

import numpy as np
from scipy.sparse.csgraph import connected_components

from polyact.errors import PolyactError
from polyact.evaluation.arena.trials import Counts

SHOWN = 6


def check_connected(counts: Counts) -> None:
    """Raise PolyactError when some policies were never compared with the others, directly or through third ones."""
    parts, part = connected_components(counts.games > 0, directed=False)
    if parts > 1:
        groups = "; ".join(_names(counts, part == number) for number in range(parts))
        raise PolyactError(f"the comparisons fall into {parts} groups that never met, so no ranking joins them: {groups}")


def check_strongly_connected(counts: Counts) -> None:
    """Raise PolyactError when a group of policies never took a point from the others.

    The maximum of the Bradley-Terry likelihood is then at infinity (Ford 1957); a prior on abilities makes it finite.
    """
    check_connected(counts)
    points = counts.points
    parts, part = connected_components(points > 0, directed=True, connection="strong")
    if parts > 1:
        inside = [part == number for number in range(parts)]
        losers = next(group for group in inside if not points[np.ix_(group, ~group)].any())
        raise PolyactError(
            f"never a win or tie of {_names(counts, losers)} over the others, so the maximum-likelihood abilities are infinite; "
            "give a precision above 0"
        )


def _names(counts: Counts, chosen: np.ndarray) -> str:
    names = [name for name, inside in zip(counts.policies, chosen, strict=True) if inside]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
