"""The Bradley-Terry model of pairwise comparisons: P(i beats j) = sigmoid(ability_i - ability_j), a tie as half a win of each.

Abilities are log odds and add up to zero. Sources: Bradley & Terry (1952); Hunter (2004), "MM algorithms for generalized
Bradley-Terry models".
"""

import numpy as np
from jaxtyping import Float
from scipy.special import expit, log_expit

from polyact.errors import PolyactError
from polyact.evaluation.arena.ascent import climb
from polyact.evaluation.arena.connected import check_connected, check_strongly_connected
from polyact.evaluation.arena.trials import Counts

Abilities = Float[np.ndarray, "*batch P"]
TOLERANCE = 1e-10


def minorise_maximise(counts: Counts, *, tolerance: float = TOLERANCE, iterations: int = 100_000) -> Float[np.ndarray, " P"]:
    """Maximum likelihood by Hunter's fixed point: strength_i <- points_i / sum_j games_ij / (strength_i + strength_j).

    Raises PolyactError when the comparisons do not determine the abilities, or when they still move after `iterations`.
    """
    check_strongly_connected(counts)
    points, games = counts.points.sum(1), counts.games
    ability = np.zeros(len(points))
    for _ in range(iterations):
        strength = np.exp(ability)
        new = np.log(points) - np.log((games / (strength[:, None] + strength)).sum(1))
        new -= new.mean()
        if np.abs(new - ability).max() < tolerance:
            return new
        ability = new
    raise PolyactError(f"Bradley-Terry abilities still moved after {iterations} iterations; use penalised with a precision")


def penalised(counts: Counts, precision: float = 0.1, *, iterations: int = 50) -> Abilities:
    """Maximum of log likelihood - precision / 2 * sum of ability^2, by Newton's method with step halving.

    Batches of counts [..., P, P] are solved side by side. A precision of 0 is maximum likelihood. Raises PolyactError when the
    comparisons do not determine the abilities (of a batch, only the sum of all is checked).
    """
    if precision < 0:
        raise PolyactError(f"precision must not be negative, got {precision}")
    total = Counts(counts.policies, *(part.reshape(-1, *part.shape[-2:]).sum(0) for part in (counts.wins, counts.ties)))
    (check_connected if precision else check_strongly_connected)(total)
    points, games = counts.points, counts.games

    def objective(at: np.ndarray) -> np.ndarray:
        return np.asarray(log_likelihood(points, at) - precision / 2 * (at**2).sum(-1))

    ability, level = np.zeros(points.shape[:-1]), np.full(points.shape[-1:] * 2, 1 / points.shape[-1])
    for _ in range(iterations):
        chance = expit(ability[..., :, None] - ability[..., None, :])
        slope = (points - games * chance).sum(-1) - precision * ability
        weight = games * chance * (1 - chance)
        curve = np.eye(len(level)) * (weight.sum(-1) + precision)[..., None] - weight
        # `level` fixes the mean, which the likelihood leaves free.
        step = np.linalg.solve(curve + level, slope[..., None])[..., 0]
        ability = climb(objective, ability, step)
        if np.abs(step).max() < TOLERANCE:
            break
    return ability - ability.mean(-1, keepdims=True)


def log_likelihood(points: Float[np.ndarray, "*batch P P"], ability: Abilities) -> Float[np.ndarray, "*batch"]:
    """Log likelihood of half-integer points [.., i, j] of i over j."""
    return np.asarray((points * log_expit(ability[..., :, None] - ability[..., None, :])).sum((-1, -2)))
