"""The critic of traces, on a game small enough to count by hand."""

import numpy as np
import pytest

from polyact.data.episodes import Episodes
from polyact.errors import DataError
from polyact.evaluation.map_trace import REMARKS, remarks, tactics


def trace():
    """Three ticks: fighter 0 goes right twice, 1 stays; 2 is seen at the last two ticks, shot at once and hit; time runs out."""
    cell = [[0, 16, 100, 200], [1, 16, 100, 200], [2, 16, 100, 200]]
    health = [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0.66, 1]]
    shot = [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    seen = [[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0]]
    columns = {"cell": np.array(cell), "health": np.array(health), "shot": np.array(shot, bool), "seen": np.array(seen, bool)}
    return Episodes(np.array([3]), info=columns | {"success": np.array([False, False, True])})


def test_facts_are_what_can_be_counted_by_hand():
    facts = tactics(trace())
    assert (facts["won"], facts["lost"], facts["drawn"]) == (1, 0, 0)
    assert (facts["done"], facts["taken"], facts["shots"]) == (pytest.approx(0.34), 0, 1)
    assert facts["precision"] == pytest.approx(1)
    assert facts["still"] == pytest.approx(2 / 6)
    assert facts["watched"] == pytest.approx(1 / 6)
    assert facts["searching"] == pytest.approx(1 / 3)
    assert facts["silent"] == pytest.approx(1 / 2)
    assert facts["apart"] == pytest.approx(np.mean([1, np.sqrt(2), np.sqrt(5)]))
    assert facts["range"] == pytest.approx(np.mean([np.hypot(4, 5), np.hypot(2, 6)]))
    assert facts["alone"] == 0
    assert facts["explored"] == 4 / 256


def test_remarks_are_made_of_remarkable_facts_only():
    usual = tactics(trace()) | {"still": 0.1, "range": 5.0, "explored": 0.2, "apart": 4.0}
    assert remarks(usual) == ""
    assert remarks(usual | {"still": 0.7, "range": 2.0}) == f"{REMARKS[0][3]}; {REMARKS[9][3]}"


def test_a_trace_without_positions_is_refused():
    with pytest.raises(DataError, match="there is no 'cell'"):
        tactics(Episodes(np.array([1]), info={"success": np.array([True])}))
