"""The three steps together, on data whose answer is known; the statistics' own oracles are in test_evaluation_experiments."""

import json

import numpy as np

from polyact.systems.society.hte_paradigm import analyse, heterogeneity, segments, simulated


def test_all_three_steps_find_what_was_put_in():
    trial = simulated(1500, 4, 1.0, np.random.default_rng(0))
    found = analyse(trial, draws=99)
    assert found.detection.p_value <= 0.05
    assert found.selected == ("x1",)
    assert found.dimensions[0].name == "x1"
    assert found.explained.share[0] < 1
    assert found.explained.systematic > 0.4
    np.testing.assert_allclose([s.mean for s in found.spread.segments], [0, 2], atol=0.2)
    assert np.corrcoef(found.single, np.sign(trial.covariates[:, 0]))[0, 1] > 0.7


def test_equal_effects_make_one_segment():
    found = analyse(simulated(1000, 4, 0.0, np.random.default_rng(1)), draws=99)
    assert found.detection.p_value > 0.05
    assert found.selected == ()
    assert len(found.spread.segments) == 1


def test_segments_are_cells_of_median_splits():
    trial = simulated(400, 3, 1.0, np.random.default_rng(2))
    label = segments(trial, ("x1", "x3"))
    above = trial.covariates > np.median(trial.covariates, 0)
    np.testing.assert_array_equal(label, above[:, 0] + 2 * above[:, 2])


def test_the_report_says_all_of_it():
    report = heterogeneity(simulated(600, 3, 1.0, np.random.default_rng(3)), draws=99)
    assert [section.title for section in report.sections] == ["Detect", "Surface", "Characterise"]
    assert "x1" in report.section("Surface").text
    assert "Benjamini" in json.dumps([table.columns for table in report.section("Surface").tables])
