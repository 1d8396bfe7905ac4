"""Do 95% intervals hold the truth 93 to 97 times in 100? Simulated for the sizes and distributions that the docstrings promise."""

import numpy as np
import pytest
from scipy import stats

from polyact.evaluation.statistics.compare import mann_whitney_interval, probability_of_improvement, wilson
from polyact.evaluation.statistics.designs import variance, variance_of_difference
from polyact.evaluation.statistics.estimate import estimates
from polyact.evaluation.statistics.functionals import iqm, optimality_gap
from polyact.evaluation.statistics.success import paired_rate_difference, success_rate

DISTRIBUTIONS = {
    "normal": lambda rng, size: rng.normal(size=size),
    "uniform": lambda rng, size: rng.random(size),
    "heavy": lambda rng, size: rng.standard_t(5, size),
    "bounded": lambda rng, size: rng.beta(8, 2, size),
    "skewed": lambda rng, size: rng.gamma(4, 1, size),
    "exponential": lambda rng, size: rng.exponential(1, size),
}
MEANS = {"normal": 0, "uniform": 0.5, "heavy": 0, "bounded": 0.8, "skewed": 4, "exponential": 1}


def coverage(low, high, truth):
    return 100 * np.mean((np.nan_to_num(low, nan=-np.inf) <= truth) & (np.nan_to_num(high, nan=np.inf) >= truth))


def simulate(tables, statistic, truth, **options):
    """Coverage over a batch of tables [simulations, rows, columns] or vectors [simulations, n]."""
    tables = tables[:, :, None] if tables.ndim == 2 else tables
    found = estimates(tables, statistic, times=500, **options)
    return coverage(np.array([e.low for e in found]), np.array([e.high for e in found]), truth)


CASES = [(n, name) for name in DISTRIBUTIONS for n in (5, 10) if (n, name) != (5, "exponential")]


@pytest.mark.parametrize(("n", "name"), CASES)
def test_means_of_few_scores(n, name):
    rng = np.random.default_rng(n)
    assert 93 <= simulate(DISTRIBUTIONS[name](rng, (3000, n)), "mean", MEANS[name]) <= 97.2


def test_means_of_five_exponential_scores_fall_a_little_short():
    rng = np.random.default_rng(0)
    assert 90 <= simulate(rng.exponential(size=(3000, 5)), "mean", 1) <= 94


@pytest.mark.parametrize("name", ["normal", "skewed", "bounded"])
@pytest.mark.parametrize("n", [5, 20])
def test_interquartile_means(n, name):
    rng = np.random.default_rng(n)
    truth = iqm().value(DISTRIBUTIONS[name](rng, 400_000))
    assert 93 <= simulate(DISTRIBUTIONS[name](rng, (2000, n)), "iqm", truth) <= 98


@pytest.mark.parametrize(("statistic", "n"), [("median", 5), ("median", 12), (optimality_gap(1.0), 20)])
def test_medians_and_optimality_gaps(statistic, n):
    rng = np.random.default_rng(1)
    truth = np.log(2) if statistic == "median" else np.exp(-1)
    assert 93 <= simulate(rng.exponential(size=(2000, n)), statistic, truth) <= 98


def t_coverage(value, spread, free):
    reach = stats.t.ppf(0.975, np.maximum(free, 1)) * np.sqrt(spread)
    return 100 * np.mean(np.abs(value) <= reach)


def crossed(rng, rows, columns, parts, times=4000):
    shapes = ((times, rows, 1), (times, 1, columns), (times, rows, columns))
    return sum(scale * rng.normal(size=shape) for scale, shape in zip(parts, shapes, strict=True))


SHARES = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0.2, 1, 0.3), (0, 0.3, 1), (0.1, 0.1, 1), (0.3, 0.3, 1), (0, 1, 1)]


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (5, 64), (10, 10)])
def test_runs_by_initial_states(rows, columns):
    for seed, parts in enumerate(SHARES):
        table = crossed(np.random.default_rng(seed), rows, columns, parts)
        found = t_coverage(table.mean((1, 2)), *variance(table, "crossed"))
        assert 93 <= found <= 97.5, parts


def test_three_runs_by_initial_states_fall_a_little_short():
    for seed, parts in enumerate(SHARES):
        table = crossed(np.random.default_rng(seed), 3, 20, parts)
        assert 91 <= t_coverage(table.mean((1, 2)), *variance(table, "crossed")) <= 97.5, parts


def test_leaving_out_the_initial_states_would_not_do():
    table = crossed(np.random.default_rng(0), 5, 16, (0.2, 1, 0.3))
    assert t_coverage(table.mean((1, 2)), *variance(table, "nested")) < 70


@pytest.mark.parametrize("name", ["normal", "skewed"])
@pytest.mark.parametrize(("rows", "columns"), [(3, 6), (5, 3), (5, 26)])
def test_runs_within_tasks(rows, columns, name):
    draw, rng = DISTRIBUTIONS[name], np.random.default_rng(0)
    table = (draw(rng, (4000, rows, columns)) - MEANS[name]) * np.linspace(0.5, 1.5, columns) + np.linspace(-5, 5, columns)
    assert 93 <= t_coverage(table.mean((1, 2)), *variance(table, "stratified")) <= 97


def test_interquartile_mean_of_runs_within_tasks():
    rng, offset = np.random.default_rng(0), np.linspace(0, 3, 6)
    truth = float(iqm().value((rng.normal(size=(100_000, 6)) + offset).reshape(-1)))
    found = simulate(rng.normal(size=(1500, 5, 6)) + offset, "iqm", truth, design="stratified")
    assert 93 <= found <= 97.5


@pytest.mark.parametrize("others", [4, 3])
def test_differences_of_different_numbers_of_runs_on_common_initial_states(others):
    rng = np.random.default_rng(others)
    state = 5 * rng.normal(size=(3000, 1, 24))
    a = 0.3 * rng.normal(size=(3000, 5, 1)) + state + 0.5 * rng.normal(size=(3000, 1, 24)) + rng.normal(size=(3000, 5, 24))
    b = 0.3 * rng.normal(size=(3000, others, 1)) + state + rng.normal(size=(3000, others, 24))
    found = t_coverage(a.mean((1, 2)) - b.mean((1, 2)), *variance_of_difference(a, b, "crossed"))
    assert 93 <= found <= 97.2


def test_differences_are_found_by_chance_five_times_in_a_hundred():
    rng = np.random.default_rng(0)
    gap = (rng.gamma(4, 1, (4000, 6)) - rng.gamma(4, 1, (4000, 6)))[:, :, None]
    assert 93 <= t_coverage(gap.mean((1, 2)), *variance(gap, "nested")) <= 97


@pytest.mark.parametrize("truth", [0.5, 0.7, 0.85, 0.95])
@pytest.mark.parametrize(("n", "m"), [(5, 5), (5, 10), (20, 20)])
def test_probability_of_improvement(n, m, truth):
    rng = np.random.default_rng(int(100 * truth) + n)
    a, b = rng.normal(stats.norm.ppf(truth) * np.sqrt(2), 1, (2000, n, 1)), rng.normal(size=(2000, 1, m))
    assert 93 <= coverage(*mann_whitney_interval((a > b).mean((1, 2)), n, m, 0.95), truth) <= 97.5


def test_probability_of_improvement_over_tasks():
    rng, shift = np.random.default_rng(0), np.linspace(0, 1.5, 5)
    truth = stats.norm.cdf(shift / np.sqrt(2)).mean()
    found = [probability_of_improvement(rng.normal(size=(5, 5)) + shift, rng.normal(size=(5, 5))) for _ in range(500)]
    assert 93 <= coverage([e.low for e in found], [e.high for e in found], truth) <= 98


def test_share_of_wins_on_common_initial_states():
    rng, truth = np.random.default_rng(0), stats.norm.cdf(0.5 / np.sqrt(2))
    wins = (rng.normal(0.5, 1, (4000, 40)) > rng.normal(size=(4000, 40))).mean(1)
    assert 93 <= coverage(*wilson(wins, 40, 0.95), truth) <= 97


def test_success_rates_on_average_over_rates():
    rates = np.random.default_rng(0).random(4000)
    found = [success_rate(k, 20) for k in range(21)]
    successes = np.random.default_rng(1).binomial(20, rates)
    low, high = (np.array([getattr(e, name) for e in found])[successes] for name in ("low", "high"))
    assert 93 <= coverage(low, high, rates) <= 97


@pytest.mark.parametrize(("first", "second"), [(0.9, 0.8), (0.98, 0.95), (0.5, 0.5)])
def test_paired_success_rates(first, second):
    draws = np.random.default_rng(0).random((800, 50, 2)) < [first, second]
    found = [paired_rate_difference(*pair.T.astype(float))[0] for pair in draws]
    assert 93 <= coverage([e.low for e in found], [e.high for e in found], first - second) <= 98.5


def test_welchs_degrees_of_freedom_match_the_paired_case():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 30)), rng.normal(size=(5, 30))
    spread, free = variance_of_difference(a, b, "nested")
    assert spread == pytest.approx(a.mean(1).var(ddof=1) / 5 + b.mean(1).var(ddof=1) / 5)
    assert 4 <= free <= 8
