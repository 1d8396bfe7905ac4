"""Randomised comparisons: exact levels by enumeration, closed forms for normal and binary data, cross-fitting that never peeks."""

from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats

from polyact.errors import PolyactError
from polyact.evaluation.experiments.characterise import doubly_robust_scores, dr_learner, spread, t_learner, x_learner
from polyact.evaluation.experiments.cross_fit import cross_fitted, folds, inverse, ridge
from polyact.evaluation.experiments.detect import detect, exact_p, plain_ks_p, randomisation_p, rejects, shifted_distance
from polyact.evaluation.experiments.surface import (
    coupled,
    dimensions,
    explained,
    forward_selection,
    only,
    piece_widths,
    systematic,
    variance_bounds,
)
from polyact.evaluation.experiments.trial import Trial

RNG = np.random.default_rng(0)


def trial(n: int = 400, slope: float = 1.0, seed: int = 0, dims: int = 3) -> Trial:
    """Effects 1 + slope * sign(x1); x2 moves outcomes and not effects."""
    rng = np.random.default_rng(seed)
    x, treated = rng.normal(size=(n, dims)), rng.permutation(n) < n // 2
    outcome = x[:, 1] + 0.7 * rng.normal(size=n) + treated * (1 + slope * np.sign(x[:, 0]))
    return Trial(outcome, treated, x)


def test_the_distance_is_kolmogorov_smirnovs_after_removing_means():
    first, second = RNG.normal(size=30), RNG.exponential(size=23)
    expected = stats.ks_2samp(first - first.mean(), second - second.mean()).statistic
    assert shifted_distance(first, second) == pytest.approx(expected, abs=1e-12)
    assert shifted_distance(first + 5, second) == pytest.approx(expected, abs=1e-12)


def test_with_known_effect_the_level_is_exact_over_all_assignments():
    """Every one of the 70 assignments of 8 units is the observed one once: p falls to k / 70 or below in at most k of them."""
    control = RNG.normal(size=8)
    p_values = []
    for rows in combinations(range(8), 4):
        treated = np.isin(np.arange(8), rows)
        p_values.append(exact_p(control + 1.7 * treated, treated, 1.7))
    for count in range(1, 71):
        assert np.sum(np.array(p_values) <= count / 70 + 1e-9) <= count


def test_random_assignments_tend_to_all_of_them():
    treated = np.arange(10) % 2 == 0
    outcome = RNG.normal(size=10) + treated * RNG.exponential(size=10) * 3
    exact = exact_p(outcome, treated, 1.0)
    assert randomisation_p(outcome, treated, 1.0, 4000) == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4000))


def test_the_test_sees_differing_effects_and_not_equal_ones():
    equal = [detect(trial(slope=0.0, seed=s), draws=99, points=3).p_value for s in range(20)]
    differ = [detect(trial(slope=1.5, seed=s), draws=99, points=3).p_value for s in range(20)]
    assert np.mean(np.array(equal) <= 0.05) <= 0.1
    assert np.mean(np.array(differ) <= 0.05) >= 0.9
    assert plain_ks_p(trial(slope=0.0)) < 1e-3


@pytest.mark.parametrize("slope", [0.0, 0.8, 2.0])
def test_stopping_early_decides_as_the_full_test(slope: float):
    for seed in range(15):
        data = trial(100, slope, seed)
        for level in (0.02, 0.1):
            full = detect(data, draws=59, points=3).p_value <= level
            assert rejects(data, level, draws=59, points=3) == full


def test_the_largest_p_over_the_interval_counts():
    found = detect(trial(100), draws=99, points=5)
    assert found.p_value >= found.p_at_effect
    with pytest.raises(PolyactError, match="odd"):
        detect(trial(100), points=4)


def test_bounds_of_normal_outcomes_have_a_closed_form():
    quantiles = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    low, high = variance_bounds(1.0 + 1.5 * quantiles, 0.6 * quantiles)
    assert low == pytest.approx((1.5 - 0.6) ** 2, rel=2e-3)
    assert high == pytest.approx((1.5 + 0.6) ** 2, rel=2e-3)


def test_bounds_are_the_extremes_over_all_matchings():
    first, second = RNG.normal(size=5), RNG.normal(size=5)
    every = [np.var(first - second[list(order)]) for order in permutations(range(5))]
    assert variance_bounds(first, second) == pytest.approx((min(every), max(every)), abs=1e-12)


@pytest.mark.parametrize("sizes", [(6, 6), (7, 4), (3, 8)])
def test_quantile_effects_average_to_the_average_effect(sizes):
    first, second = RNG.normal(size=sizes[0]), RNG.normal(size=sizes[1])
    widths = piece_widths(*sizes)
    assert widths.sum() == pytest.approx(1)
    for part in coupled(first, second):
        assert widths @ part == pytest.approx(first.mean() - second.mean(), abs=1e-12)


def test_a_binary_covariate_has_systematic_variance_in_closed_form():
    """p (1 - p) (tau1 - tau0)^2, without sampling error when outcomes are determined and arms are balanced."""
    x = np.repeat([0.0, 0, 0, 1], 4)[:, None]
    treated = np.tile([True, False], 8)
    found = systematic(Trial(np.where(x[:, 0] > 0, 3.0, 1.0) * treated, treated, x))
    assert found.slopes[0] == pytest.approx(2.0)
    bias = found.covariance[0, 0] * x.var()
    assert found.variance + bias == pytest.approx(0.25 * 0.75 * 2.0**2)


def test_systematic_variance_is_unbiased_whatever_the_number_of_covariates():
    none = [systematic(trial(300, 0.0, seed, dims=12)).variance for seed in range(60)]
    assert abs(np.mean(none)) < 3 * np.std(none) / np.sqrt(60)
    some = [systematic(only(trial(300, 1.0, seed, dims=12), (0,))).variance for seed in range(60)]
    assert np.mean(some) == pytest.approx(2 / np.pi, abs=3 * np.std(some) / np.sqrt(60))


def test_the_walds_p_is_uniform_when_effects_are_equal():
    p_values = [systematic(trial(400, 0.0, seed)).p_value for seed in range(200)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_the_dimension_of_the_effects_comes_first_not_that_of_outcomes():
    found = trial(1500)
    assert dimensions(found)[0].name == "x1"
    assert dimensions(found)[0].q_value < 0.01 < min(d.q_value for d in dimensions(found)[1:])
    assert forward_selection(found) == ("x1",)
    assert forward_selection(trial(1500, 0.0)) == ()


def test_the_explained_share_is_an_interval_that_holds_the_truth():
    """Effects 1 + x1 and outcomes without noise: everything is explained."""
    x, treated = RNG.normal(size=(4000, 1)), np.arange(4000) % 2 == 0
    found = explained(Trial(treated * (1 + x[:, 0]), treated, x))
    assert found.idiosyncratic == pytest.approx((0, 0), abs=1e-9)
    assert found.share == pytest.approx((1, 1))
    assert found.systematic == pytest.approx(1, abs=0.15)


def test_folds_are_balanced_and_models_never_see_what_they_predict():
    groups = np.arange(40) % 4 == 0
    fold = folds(groups, 5, 1)
    assert all(np.bincount(fold[groups == g], minlength=5).tolist() == [sum(groups == g) // 5] * 5 for g in (True, False))
    seen = np.arange(40.0)

    def fit(train):
        known = set(seen[train])
        return lambda new: np.array([float(row[0] in known) for row in new])

    np.testing.assert_array_equal(cross_fitted(fold, fit, seen[:, None]), 0)
    with pytest.raises(PolyactError, match="2 folds or more"):
        folds(groups, 1)


def test_ridge_against_its_normal_equations_and_limits():
    x, y = RNG.normal(size=(30, 3)) * [1, 10, 100], RNG.normal(size=30) + 4
    design = np.column_stack([np.ones(30), x])
    plain = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(ridge(x, y, 0.0)(x), plain, atol=1e-9)
    np.testing.assert_allclose(ridge(x, y, 1e12)(x), y.mean(), atol=1e-6)
    np.testing.assert_allclose(ridge(x / 7, y, 2.0)(x / 7), ridge(x, y, 2.0)(x), atol=1e-9)
    np.testing.assert_allclose(inverse(np.array([0.01, 0.5])), [20, 2])


@pytest.mark.parametrize("learner", [t_learner, x_learner, dr_learner])
def test_learners_of_single_effects_find_a_linear_one(learner):
    x, treated = RNG.normal(size=(4000, 2)), np.arange(4000) % 2 == 0
    data = Trial(x[:, 1] + RNG.normal(size=4000) * 0.5 + treated * (1 + x[:, 0]), treated, x)
    assert np.sqrt(np.mean((learner(data) - 1 - x[:, 0]) ** 2)) < 0.1
    assert doubly_robust_scores(data).mean() == pytest.approx(data.effect, abs=0.1)


def test_a_mixture_over_segments_keeps_means_and_bounds_harm():
    data = trial(2000, 2.0)
    found = spread(data, (data.covariates[:, 0] > 0).astype(int))
    assert sum(s.share for s in found.segments) == pytest.approx(1)
    assert [s.mean for s in found.segments] == pytest.approx([-1, 3], abs=0.25)
    assert found.segments[1].harmed[0] < found.segments[1].harmed[1] < 0.5 < found.segments[0].harmed[0]
    equal, opposite = (np.array([row[k] for row in found.quantiles]) for k in (1, 2))
    assert np.all(np.diff(equal) >= 0)
    assert opposite[-1] - opposite[0] > equal[-1] - equal[0]
    whole = spread(data, np.zeros(2000, int))
    assert whole.mean == pytest.approx(data.effect)


def test_adjusting_removes_what_covariates_predict_and_keeps_the_effect():
    data = trial(2000, 0.0)
    assert data.adjusted().effect_error < 0.7 * data.effect_error
    assert data.adjusted().effect == pytest.approx(1, abs=0.1)


def test_trials_that_make_no_sense_are_refused():
    x = RNG.normal(size=(10, 2))
    with pytest.raises(PolyactError, match="at least 4 units, got 2 treated of 10"):
        Trial(x[:, 0], np.arange(10) < 2, x)
    with pytest.raises(PolyactError, match="covariate 'b' is the same"):
        Trial(x[:, 0], np.arange(10) < 5, np.column_stack([x[:, 0], np.ones(10)]), ("a", "b"))
    with pytest.raises(PolyactError, match="not finite"):
        Trial(np.full(10, np.nan), np.arange(10) < 5, x)
    with pytest.raises(PolyactError, match="one row per unit"):
        Trial(x[:5, 0], np.arange(10) < 5, x)
