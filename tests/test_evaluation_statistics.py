"""Estimates against closed forms, brute force and published definitions. What intervals are worth is in test_evaluation_coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from polyact.errors import PolyactError
from polyact.evaluation.statistics import compare as comparing
from polyact.evaluation.statistics import curves, designs, functionals
from polyact.evaluation.statistics import success as rates
from polyact.evaluation.statistics.estimate import Estimate, estimate

RNG = np.random.default_rng(0)
SCORES = hnp.arrays(np.float64, st.integers(2, 12), elements=st.floats(-100, 100).map(lambda x: round(x, 3)))


@pytest.mark.parametrize("n", [2, 4, 5, 7, 8, 20])
def test_iqm_is_scipys_trimmed_mean(n):
    x = RNG.normal(size=(3, n))
    np.testing.assert_allclose(functionals.iqm().value(x), stats.trim_mean(x, 0.25, axis=1))


def test_other_statistics_by_hand():
    x = np.array([0.0, 1.0, 2.0, 3.0, 10.0])
    assert functionals.mean().value(x) == 3.2
    assert functionals.median().value(x) == 2
    assert functionals.quantile(0.25).value(x) == 1
    assert functionals.optimality_gap(2.0).value(x) == pytest.approx((2 + 1) / 5)
    assert functionals.lower_tail_mean(0.4).value(np.arange(10.0)) == pytest.approx(1.5)


@pytest.mark.parametrize(
    "statistic", [functionals.mean(), functionals.iqm(), functionals.optimality_gap(0.3), functionals.lower_tail_mean(0.2)]
)
def test_influence_gives_the_variance_of_the_statistic(statistic):
    x = np.random.default_rng(1).normal(size=(4000, 80))
    predicted = designs.variance(statistic.influence(x)[..., None], "nested")[0].mean()
    assert predicted == pytest.approx(statistic.value(x).var(), rel=0.12)


def test_students_t_interval_is_the_textbook_one():
    x = RNG.normal(size=12)
    found = estimate(x, method="t")
    low, high = stats.t.interval(0.95, 11, x.mean(), stats.sem(x))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.n, found.resampled, found.statistic, found.level) == (12, "runs", "mean", 0.95)


def test_trimmed_t_interval_is_tukey_and_mclaughlins():
    x = RNG.normal(size=20)
    found = estimate(x, "iqm", method="t")
    winsorised = stats.mstats.winsorize(x, (0.25, 0.25))
    error = winsorised.std(ddof=1) / (0.5 * math.sqrt(20))
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 9) * error)


def test_bca_and_percentile_agree_with_scipy():
    x = np.random.default_rng(3).exponential(size=30)
    for method, theirs in (("bca", "BCa"), ("percentile", "percentile")):
        found = estimate(x, method=method, times=20_000)
        expected = stats.bootstrap(
            (x,), np.mean, method=theirs, n_resamples=20_000, rng=np.random.default_rng(0)
        ).confidence_interval
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_intervals_are_deterministic_given_a_seed():
    x = RNG.exponential(size=9)
    assert estimate(x, seed=3) == estimate(x, seed=3)
    assert estimate(x, seed=3) != estimate(x, seed=4)


@settings(max_examples=40, deadline=None)
@given(x=SCORES, shift=st.integers(-50, 50), scale=st.integers(1, 5))
def test_estimates_follow_shift_and_scale(x, shift, scale):
    for statistic in ("mean", "iqm", "median"):
        here, there = estimate(x, statistic, times=200), estimate(scale * x + shift, statistic, times=200)
        for name in ("value", "low", "high"):
            assert getattr(there, name) == pytest.approx(scale * getattr(here, name) + shift, rel=1e-6, abs=1e-4, nan_ok=True)
        assert not here.low > here.value + 1e-9
        assert not here.high < here.value - 1e-9


def test_median_limits_are_order_statistics():
    x = np.sort(RNG.normal(size=11))
    exact = estimate(x, "median", level=1 - 2 * stats.binom.cdf(1, 11, 0.5))
    assert (exact.low, exact.high) == pytest.approx((x[1], x[9]))
    five = estimate(x[:5], "median")
    assert (five.low, five.high) == (x[0], x[4])
    assert "93.8%" in five.note


def test_a_quantile_that_few_scores_cannot_bound_is_open():
    found = estimate(RNG.normal(size=6), functionals.quantile(0.05))
    assert math.isnan(found.low)
    assert math.isfinite(found.high)
    assert "too few" in found.note
    assert found.interval_text.startswith("[–")


def test_quantile_limits_are_mirror_images():
    x = RNG.exponential(size=40)
    low, high = estimate(x, functionals.quantile(0.3)), estimate(-x, functionals.quantile(0.7))
    assert (low.low, low.high) == pytest.approx((-high.high, -high.low))


def test_crossed_variance_is_the_analysis_of_variance():
    x = np.random.default_rng(5).normal(size=(4, 7)) + 3 * np.arange(7) + np.arange(4)[:, None]
    rows, columns = x.mean(1) - x.mean(), x.mean(0) - x.mean()
    noise = ((x - x.mean() - rows[:, None] - columns) ** 2).sum() / 18
    mean_rows, mean_columns = 7 * (rows**2).sum() / 3, 4 * (columns**2).sum() / 6
    spread, _ = designs.variance(x, "crossed")
    assert float(spread) == pytest.approx((mean_rows + mean_columns - noise) / 28)


def test_crossed_with_one_effect_only_reduces_to_that_axis():
    runs, states = RNG.normal(size=(5, 1)), RNG.normal(size=(1, 9))
    for table, axis in ((runs + np.zeros((5, 9)), runs[:, 0]), (np.zeros((5, 9)) + states, states[0])):
        spread, free = designs.variance(table, "crossed")
        assert float(spread) == pytest.approx(axis.var(ddof=1) / len(axis))
        assert float(free) == pytest.approx(len(axis) - 1)


def test_stratified_variance_adds_tasks():
    x = RNG.normal(size=(6, 3))
    spread, free = designs.variance(x, "stratified")
    parts = x.var(0, ddof=1) / 6 / 9
    assert float(spread) == pytest.approx(parts.sum())
    assert float(free) == pytest.approx(parts.sum() ** 2 / (parts**2 / 5).sum())


@pytest.mark.parametrize("design", ["crossed", "nested", "stratified"])
def test_resampling_draws_the_way_the_design_was_drawn(design):
    index = designs.resample(np.random.default_rng(0), 50, (4, 6), design)
    rows, columns = index // 6, index % 6
    assert index.shape == (50, 4, 6)
    if design == "stratified":
        assert (columns == np.arange(6)).all()
        assert (rows.min(-1) < rows.max(-1)).any()
    else:
        assert (rows == rows[:, :, :1]).all()
        assert ((columns == columns[:, :1]).all()) == (design == "crossed")


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones((1, 50)), "zero width"),
        ([1.0], "at least 2"),
        ([1.0, np.nan, 2.0], r"not finite, the first at index \(1,\)"),
        (np.ones((2, 2, 2)), "expected"),
        ([], "expected"),
        ([[1, 2], [3]], "rectangular"),
    ],
)
def test_unfit_scores_are_refused(scores, message):
    with pytest.raises(PolyactError, match=message) as caught:
        estimate(scores)
    assert "\n" not in str(caught.value)


def test_unfit_requests_are_refused():
    with pytest.raises(PolyactError, match="did you mean 'median'"):
        estimate([1, 2, 3], "medain")
    with pytest.raises(PolyactError, match="level"):
        estimate([1, 2, 3], level=95)
    with pytest.raises(PolyactError, match="bca"):
        estimate([1, 2, 3], "median", method="studentised")
    with pytest.raises(PolyactError, match="probability"):
        functionals.quantile(1.5)


def test_equal_scores_are_not_certainty():
    found = estimate(np.ones(10))
    assert found.low == found.high == 1
    assert "not seen" in found.note


def test_estimates_read_as_text():
    found = Estimate(-152.34, -170.2, -134.6, 0.95, 5, "mean", "runs × 64 initial states")
    assert str(found) == "−152 [−170, −135] (95%, 5 runs × 64 initial states)"
    assert Estimate(0.5, 0.456, 0.544, 0.9, 10, "mean", "runs").interval_text == "[0.456, 0.544]"


def test_paired_difference_is_the_paired_t_test():
    a, b = RNG.normal(size=(2, 15))
    found, p_value = comparing.difference(a, b)
    expected = stats.ttest_rel(a, b)
    assert p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_independent_difference_is_welchs_t_test():
    a, b = RNG.normal(size=15), RNG.normal(0, 3, size=9)
    found, p_value = comparing.difference(a, b)
    expected = stats.ttest_ind(a, b, equal_var=False)
    assert p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_pairing_removes_what_both_share():
    states, noise = 100 * RNG.normal(size=(1, 30)), RNG.normal(size=(2, 5, 30))
    a, b = 1 + states + noise[0], states + noise[1]
    paired, _ = comparing.difference(a, b)
    assert paired.high - paired.low < 0.1 * (estimate(a).high - estimate(a).low)
    assert paired.sample == "5 paired runs × 30 initial states"
    more, _ = comparing.difference(a, b[:4])
    assert more.high - more.low < 0.1 * (estimate(a).high - estimate(a).low)
    assert more.sample == "5 and 4 independent runs × 30 initial states"


def test_probability_of_improvement_by_brute_force():
    a, b = RNG.integers(0, 4, (5, 3)).astype(float), RNG.integers(0, 4, (6, 3)).astype(float)
    found = comparing.probability_of_improvement(a, b)
    wins = [(x > y) + 0.5 * (x == y) for task in range(3) for x, y in itertools.product(a[:, task], b[:, task])]
    assert found.value == pytest.approx(np.mean(wins))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_probability_of_improvement_is_antisymmetric_and_never_certain():
    a, b = RNG.normal(size=7), RNG.normal(size=5) + 0.5
    here, there = comparing.probability_of_improvement(a, b), comparing.probability_of_improvement(b, a)
    assert (here.low, here.value, here.high) == pytest.approx((1 - there.high, 1 - there.value, 1 - there.low))
    won = comparing.probability_of_improvement(a + 100, b)
    assert (won.value, won.high) == (1, 1)
    assert 0.5 < won.low < 0.9


def test_share_of_wins_counts_ties_half():
    found = comparing.share_of_wins([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 5.0, 3.0])
    assert found.value == 0.625
    low, high = stats.binomtest(5, 8).proportion_ci(method="wilson")
    assert np.ravel(comparing.wilson(np.array([5 / 8]), 8, 0.95)) == pytest.approx([low, high])


def test_holm_by_hand_and_against_its_definition():
    p = np.array([0.01, 0.04, 0.03, np.nan, 0.005])
    np.testing.assert_allclose(comparing.holm(p), [0.03, 0.06, 0.06, np.nan, 0.02])
    assert comparing.holm(np.array([0.9, 0.8])).max() == 1
    assert comparing.holm(np.zeros(0)).shape == (0,)


def test_benjamini_hochberg_against_scipy_and_by_hand():
    p = np.array([0.01, 0.03, 0.03, np.nan, 0.9])
    np.testing.assert_allclose(comparing.benjamini_hochberg(p), [0.04, 0.04, 0.04, np.nan, 0.9])
    many = RNG.uniform(size=30) ** 2
    np.testing.assert_allclose(comparing.benjamini_hochberg(many), stats.false_discovery_control(many))
    assert comparing.benjamini_hochberg(np.zeros(0)).shape == (0,)


def test_compare_corrects_all_comparisons_together():
    scores = {name: RNG.normal(shift, 1, (6, 20)) for name, shift in {"a": 0, "b": 0.1, "c": 3}.items()}
    found = comparing.compare(scores, "a")
    assert [(c.first, c.second) for c in found] == [("b", "a"), ("c", "a")]
    assert [c.p_holm for c in found] == pytest.approx(comparing.holm(np.array([c.p_value for c in found])))
    assert found[1].difference.value == pytest.approx(scores["c"].mean() - scores["a"].mean())
    with pytest.raises(PolyactError, match="reference"):
        comparing.compare(scores, "d")


def test_single_runs_with_different_numbers_of_episodes_are_independent_or_refused():
    scores = {"a": np.array([[0.0, 1, 0, 1, 0]]), "b": np.array([[2.0, 3, 2, 2, 3, 2, 3]])}
    with pytest.raises(PolyactError, match=r"'b' minus 'a': columns are paired \(initial states\), but there are 7 and 5"):
        comparing.compare(scores)
    (found,) = comparing.compare(scores, design="nested")
    assert found.improvement.value == 1
    assert found.difference.value == pytest.approx(17 / 7 - 0.4)


def test_compare_with_single_runs_says_what_it_resampled():
    scores = {"one": RNG.normal(size=(1, 20)), "other": RNG.normal(size=(1, 20)), "five": RNG.normal(size=(5, 20))}
    other, five = comparing.compare(scores)
    assert other.difference.sample == "20 paired initial states"
    assert other.improvement.sample == "20 paired initial states"
    assert five.difference.sample == "5 paired runs × 20 initial states"
    assert "one: one run" in five.difference.note


def test_columns_that_do_not_match_are_refused():
    with pytest.raises(PolyactError, match="'b' minus 'a': columns are paired"):
        comparing.compare({"a": np.ones((3, 4)), "b": np.ones((3, 5))})
    with pytest.raises(PolyactError, match="same tasks"):
        comparing.probability_of_improvement(np.ones((3, 4)), np.ones((3, 5)))


@pytest.mark.parametrize(
    ("first", "second"), [((7, 10), (4, 10)), ((0, 5), (5, 5)), ((500, 1000), (480, 1000)), ((10, 10), (10, 10))]
)
def test_probability_of_a_better_rate_is_the_closed_form(first, second):
    (a, b), (c, d) = ((k + 1, n - k + 1) for k, n in (first, second))
    i = np.arange(a)
    exact = np.exp(special.betaln(c + i, b + d) - np.log(b + i) - special.betaln(1 + i, b) - special.betaln(c, d)).sum()
    assert rates.probability_better(first, second, prior="uniform") == pytest.approx(exact, abs=1e-10)


def test_success_rate_is_the_jeffreys_interval_closed_at_the_ends():
    found = rates.success_rate(7, 10)
    assert (found.low, found.high) == pytest.approx(tuple(stats.beta(7.5, 3.5).ppf([0.025, 0.975])))
    assert rates.success_rate(0, 10).low == 0
    assert rates.success_rate(10, 10).high == 1
    assert rates.success_rate(10, 10).low == pytest.approx(stats.beta(10.5, 0.5).ppf(0.025))


def test_rate_difference_holds_half_the_posterior_on_either_side():
    found = rates.rate_difference((30, 50), (20, 50))
    draws = np.random.default_rng(0).beta([30.5, 20.5], [20.5, 30.5], (400_000, 2))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws[:, 0] - draws[:, 1], [0.025, 0.975])), abs=2e-3)
    swapped = rates.rate_difference((20, 50), (30, 50))
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), abs=1e-7)


def test_paired_rates_that_never_differ_are_not_certain():
    won = np.ones(20)
    found, p_value = rates.paired_rate_difference(won, won)
    assert (found.value, p_value) == (0, 1)
    assert found.low == pytest.approx(-found.high)
    assert found.high == pytest.approx(1.96 / 22, rel=1e-3)
    (compared,) = comparing.compare({"a": won[None], "b": won[None]})
    assert compared.difference == found


def test_impossible_counts_are_refused():
    for successes, trials in ((11, 10), (-1, 10), (0, 0)):
        with pytest.raises(PolyactError, match="successes"):
            rates.success_rate(successes, trials)


def test_curves_estimate_every_point():
    scores = RNG.normal(size=(5, 4))
    found = curves.curve("IQL", [0, 10, 20, 30], scores)
    assert found.x == (0, 10, 20, 30)
    assert found.estimates[2] == estimate(scores[:, 2])
    crossed = curves.curve("IQL", [0, 1], RNG.normal(size=(5, 8, 2)))
    assert crossed.estimates[0].sample == "5 runs × 8 initial states"
    with pytest.raises(PolyactError, match="expected"):
        curves.curve("IQL", [0, 1], scores)


def test_performance_profile_is_the_share_above():
    scores = np.array([[0.1, 0.5], [0.4, 0.9], [0.5, 0.7]])
    found = curves.performance_profile("A", scores, [0.0, 0.45, 1.0])
    assert [e.value for e in found.estimates] == pytest.approx([1, 4 / 6, 0])
    assert found.estimates[2].high > 0.2
