"""Tactics from logged positions: numbers and sentences about how a side of the skirmish arena fought.

It stands in for a critic that looks at pictures of the map: it reads where everyone was, when they were seen and when they shot, and
says what a spectator would say. It sees no pictures and knows nothing that is not in those columns.
"""

from collections.abc import Mapping

import numpy as np

from polyact.data.episodes import Episodes
from polyact.envs.skirmish.maps import centre
from polyact.errors import DataError

COLUMNS = ("cell", "health", "shot", "seen", "success")

# fact, whether it is remarkable when above (1) or below (-1) a bound, and what is then said
REMARKS = (
    ("still", 1, 0.5, "our fighters stand still half of the time"),
    ("searching", 1, 0.5, "most of the time nobody sees anybody: go and look for them"),
    ("silent", 1, 0.8, "foes in sight are seldom shot at"),
    ("precision", -1, 0.25, "most shots miss"),
    ("watched", 1, 0.6, "our fighters are in sight of a foe most of the time: use walls"),
    ("apart", 1, 8.0, "the two fight far from each other"),
    ("apart", -1, 2.0, "the two stand in one place"),
    ("alone", 1, 0.2, "often one of ours is left to fight two"),
    ("range", 1, 7.0, "fights happen at long range"),
    ("range", -1, 3.0, "fights happen at close range"),
    ("explored", -1, 0.05, "hardly any of the map is visited"),
    ("drawn", 1, 0.5, "most games run out of time"),
)


def tactics(episodes: Episodes, damage: float = 0.34) -> dict[str, float]:
    """Facts about our side (fighters 0 and 1), averaged over episodes of `envs.skirmish`; `damage`: of one hit.

    won, lost, drawn: shares of the games. done, taken: damage per game. shots: per game; precision: share that hit. still, watched:
    share of our fighters' time without a step, and in sight of a foe. searching, silent: share of ticks when nobody sees anybody; of
    those with a foe in sight, share without a shot. apart: cells between the two; range: cells to the nearest foe while one is in sight.
    alone: share of ticks one of ours faces two. explored: share of the map one game visits. Raises DataError without these columns.
    """
    missing = [name for name in COLUMNS if name not in episodes.info]
    if missing:
        raise DataError(f"a trace of the map needs the info columns {', '.join(COLUMNS)}; there is no '{missing[0]}'")
    cell, health, shot, seen = (np.asarray(episodes.info[name]) for name in COLUMNS[:4])
    place, alive = centre(cell).astype(float), np.asarray(health > 0)
    first, last = np.asarray(episodes.starts), np.asarray(episodes.starts) + episodes.lengths - 1
    lead = health[last][:, :2].sum(1) - health[last][:, 2:].sum(1)
    ours, contact = alive[:, :2], np.asarray(seen[:, 2:].any(1))
    moved = np.ones_like(ours)
    moved[1:] = cell[1:, :2] != cell[:-1, :2]
    moved[first] = True
    gaps = np.linalg.norm(place[:, :2, None] - place[:, None, 2:], axis=-1)
    nearest = np.where(ours[:, :, None] & alive[:, None, 2:], gaps, np.inf).min((1, 2))
    both = np.asarray(ours.all(1))
    shots = shot[:, :2].sum()
    taken = 2 - health[last].reshape(-1, 2, 2).sum(-1)
    won = np.asarray(episodes.info["success"])[last]
    return {
        "won": float(won.mean()),
        "lost": float(np.mean(lead < 0)),
        "drawn": float(np.mean(~won & (lead >= 0))),
        "done": float(taken[:, 1].mean()),
        "taken": float(taken[:, 0].mean()),
        "shots": float(shots / episodes.count),
        "precision": float(taken[:, 1].sum() / damage / max(shots, 1)),
        "still": _share(~moved & ours, ours),
        "watched": _share(seen[:, :2] & ours, ours),
        "searching": float(np.mean(~seen.any(1))),
        "silent": _share(contact & ~shot[:, :2].any(1), contact),
        "apart": _mean(np.linalg.norm(place[:, 0] - place[:, 1], axis=-1), both),
        "range": _mean(nearest, np.asarray(contact & np.isfinite(nearest))),
        "alone": float(np.mean((ours.sum(1) == 1) & (alive[:, 2:].sum(1) == 2))),
        "explored": _explored(cell[:, :2], episodes) / 256,
    }


def remarks(facts: Mapping[str, float]) -> str:
    """What a spectator would say about these facts, one sentence after the other; empty when nothing is remarkable."""
    return "; ".join(words for name, side, bound, words in REMARKS if side * (facts[name] - bound) > 0)


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / max(whole.sum(), 1))


def _mean(values: np.ndarray, where: np.ndarray) -> float:
    return float(values[where].mean()) if where.any() else 0.0


def _explored(cells: np.ndarray, episodes: Episodes) -> float:
    """Different cells that our fighters visit in a game, on average."""
    game = np.repeat(np.arange(episodes.count), episodes.lengths)
    return len(np.unique(game[:, None] * 256 + cells)) / episodes.count
