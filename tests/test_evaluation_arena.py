"""Pairwise comparisons: abilities against fixed points and direct maximisation, invariances, intervals, files, clear errors."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from polyact.errors import DataError, PolyactError
from polyact.evaluation.arena.agreement import mmrv, pearson
from polyact.evaluation.arena.bradley_terry import log_likelihood, minorise_maximise, penalised
from polyact.evaluation.arena.ranking import rank
from polyact.evaluation.arena.task_aware import Priors, fit_task_aware
from polyact.evaluation.arena.trials import Counts, Trial, count, mean_progress, read_trials, write_trials

FLAT = Priors(ability=0.0, offset=1e9, difficulty=0.0)
NAMES = ("a", "b", "c", "d")


def random_counts(seed=0, ties=True, many=4):
    rng = np.random.default_rng(seed)
    wins = rng.integers(1, 9, (many, many)).astype(float) * (1 - np.eye(many))
    drawn = np.triu(rng.integers(0, 6, (many, many)), 1).astype(float) * ties
    return Counts(NAMES[:many], wins, drawn + drawn.T)


def relabelled(counts, order):
    names = tuple(counts.policies[place] for place in order)
    return Counts(names, counts.wins[np.ix_(order, order)], counts.ties[np.ix_(order, order)])


def trials(number=60, seed=0, success=(0.2, 0.4, 0.6, 0.8)):
    rng, found = np.random.default_rng(seed), []
    for session in range(number):
        first, second = rng.choice(len(success), 2, replace=False)
        good = rng.random(2) < (success[first], success[second])
        preference = "tie" if good[0] == good[1] else ("first" if good[0] else "second")
        found.append(Trial(str(session // 2), NAMES[first], NAMES[second], preference, progress=tuple(100.0 * good)))
    return found


def test_two_policies_have_the_closed_form():
    counts = Counts(("a", "b"), np.array([[0.0, 6.0], [2.0, 0.0]]), np.zeros((2, 2)))
    np.testing.assert_allclose(minorise_maximise(counts), [np.log(3) / 2, -np.log(3) / 2], atol=1e-9)


def test_newton_finds_the_fixed_point_of_minorise_maximise():
    counts = random_counts()
    fixed = minorise_maximise(counts)
    np.testing.assert_allclose(penalised(counts, 0.0), fixed, atol=1e-8)
    expected = (counts.games * expit(fixed[:, None] - fixed)).sum(1)
    np.testing.assert_allclose(expected, counts.points.sum(1), atol=1e-7)


def test_penalised_is_the_direct_maximum():
    counts = random_counts(1)
    direct = minimize(lambda a: a @ a - log_likelihood(counts.points, a), np.zeros(4), tol=1e-10).x
    np.testing.assert_allclose(penalised(counts, 2.0), direct, atol=1e-5)


def test_batches_are_solved_side_by_side():
    one, other = random_counts(0), random_counts(1)
    both = Counts(NAMES, np.stack([one.wins, other.wins]), np.stack([one.ties, other.ties]))
    np.testing.assert_allclose(penalised(both), [penalised(one), penalised(other)], atol=1e-9)


def test_one_bucket_is_the_direct_maximum_of_the_same_likelihood():
    counts = random_counts(2)
    fit = fit_task_aware(counts, 1, priors=FLAT, restarts=1, iterations=3000, tolerance=1e-13)

    def negative(logits):
        good, bad = log_expit(logits), log_expit(-logits)
        tie = np.logaddexp(good[:, None] + good, bad[:, None] + bad)
        return -(counts.wins * (good[:, None] + bad)).sum() - (counts.ties * tie).sum() / 2

    starts = np.random.default_rng(0).normal(size=(8, 4))
    direct = min((minimize(negative, start, tol=1e-12) for start in starts), key=lambda result: result.fun)
    assert float(fit.objective) == pytest.approx(-direct.fun, abs=1e-6)
    np.testing.assert_allclose(fit.ability, direct.x - direct.x.mean(), atol=1e-3)


def test_the_objective_never_decreases():
    history = np.array(fit_task_aware(random_counts(3), 3, restarts=3).history)
    assert np.all(np.diff(history) > -1e-9)
    assert len(history) > 5


def test_more_restarts_are_never_worse():
    counts = random_counts(4)
    assert float(fit_task_aware(counts, 3, restarts=6).objective) >= float(fit_task_aware(counts, 3, restarts=1).objective) - 1e-9


@pytest.mark.parametrize("fit", [penalised, lambda counts: fit_task_aware(counts, 1).ability])
def test_other_names_permute_abilities(fit):
    counts, order = random_counts(5), [2, 0, 3, 1]
    np.testing.assert_allclose(fit(relabelled(counts, order)), fit(counts)[order], atol=1e-6)


def test_doubled_data_leave_the_estimate():
    counts = random_counts(6)
    double = Counts(NAMES, 2 * counts.wins, 2 * counts.ties)
    np.testing.assert_allclose(penalised(double, 0.0), penalised(counts, 0.0), atol=1e-8)
    options = {"priors": FLAT, "restarts": 1, "iterations": 3000, "tolerance": 1e-12}
    np.testing.assert_allclose(
        fit_task_aware(double, 1, **options).ability, fit_task_aware(counts, 1, **options).ability, atol=1e-4
    )


@pytest.mark.parametrize("model", ["bradley-terry", "task-aware"])
def test_doubled_data_shrink_the_intervals(model):
    once = trials(120)
    again = [Trial(f"again {t.session}", t.first, t.second, t.preference) for t in once]
    widths = [float(np.mean(r.high - r.low)) for r in (rank(data, model, buckets=2, draws=100) for data in (once, once + again))]
    assert widths[1] == pytest.approx(widths[0] / np.sqrt(2), rel=0.2)


def test_sessions_are_resampled_not_trials():
    once = trials(60)
    copied = [trial for trial in once for _ in range(8)]
    widths = [rank(data, "bradley-terry", priors=Priors(ability=p)) for data, p in ((once, 0.1), (copied, 0.8))]
    np.testing.assert_allclose(widths[1].high - widths[1].low, widths[0].high - widths[0].low, atol=1e-6)


def test_the_better_policy_comes_first():
    ranking = rank(trials(400), buckets=2, draws=20)
    assert ranking.policies == NAMES[::-1]
    assert np.all((ranking.low <= ranking.ability) & (ranking.ability <= ranking.high))
    assert "95% intervals over 200 sessions, 400 trials" in str(ranking)


def test_buckets_explain_what_one_ability_can_not():
    """A task where all mostly fail and one where all mostly succeed: many ties, and yet few upsets."""
    success = expit(np.array([-1.0, 0.0, 1.0])[:, None] - np.array([-3.0, 3.0]))
    apart = 1 - np.eye(3)
    wins = 400 * np.einsum("it,jt->ij", success, 1 - success) * apart
    ties = 800 * apart - wins - wins.T
    counts = Counts(NAMES[:3], wins, ties)
    one, two = (fit_task_aware(counts, buckets, restarts=4, priors=Priors(0.01, 100.0, 0.01)) for buckets in (1, 2))
    assert float(two.objective) > float(one.objective) + 50
    np.testing.assert_allclose(two.ability, [-1, 0, 1], atol=0.1)


def test_groups_that_never_met_are_named():
    apart = count([Trial("1", "a", "b", "first"), Trial("2", "c", "d", "tie")])
    with pytest.raises(PolyactError, match=r"2 groups that never met.*a, b; c, d"):
        fit_task_aware(apart)
    with pytest.raises(PolyactError, match="2 groups that never met"):
        penalised(apart)


def test_a_policy_that_never_loses_needs_a_prior():
    counts = count([Trial("1", "a", "b", "first"), Trial("2", "a", "b", "first")])
    with pytest.raises(PolyactError, match=r"never a win or tie of b over the others.*precision above 0"):
        minorise_maximise(counts)
    assert penalised(counts, 1.0)[0] > 0
    assert np.isfinite(fit_task_aware(counts, 2).ability).all()


def test_counts_and_progress():
    played = [
        Trial("1", "a", "b", "first", progress=(80.0, 20.0)),
        Trial("1", "b", "a", "first", progress=(60.0, 40.0)),
        Trial("2", "a", "b", "tie"),
    ]
    counts = count(played, weights=np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(counts.wins, [[0, 1], [2, 0]])
    np.testing.assert_array_equal(counts.ties, [[0, 3], [3, 0]])
    np.testing.assert_array_equal(mean_progress(played, ("a", "b")), [60, 40])


def test_mmrv_counts_what_is_ordered_the_other_way():
    truth = np.array([0.1, 0.5, 0.9])
    assert mmrv(truth, np.array([1.0, 2.0, 3.0])) == 0
    assert mmrv(truth, np.array([2.0, 1.0, 3.0])) == pytest.approx((0.4 + 0.4 + 0) / 3)
    assert mmrv(truth, -truth) == pytest.approx((0.8 + 0.4 + 0.8) / 3)
    assert pearson(truth, 3 - 2 * truth) == pytest.approx(-1)


def test_trials_survive_a_file(tmp_path):
    played = [*trials(5), Trial("x", "a", "b", "tie", "me", "fold it", None, "slow")]
    write_trials(tmp_path / "t.json", played)
    assert read_trials(tmp_path / "t.json") == played


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preference": "A"}, "trial 0: unknown preference in session '0' 'A'"),
        ({"progress": [1]}, "progress is two scores from 0 to 100"),
        ({"progress": [1, "x"]}, "expected two numbers or null"),
        ({"session": 3}, "session is 3, expected a text"),
        ({"colour": "red"}, "should have the fields session, first, second, preference"),
    ],
)
def test_damaged_files_say_what_is_wrong(tmp_path, change, message):
    path = tmp_path / "t.json"
    write_trials(path, trials(2))
    value = json.loads(path.read_text())
    value["trials"][0] |= change
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=message):
        read_trials(path)


def test_what_can_not_be_ranked_is_refused():
    with pytest.raises(PolyactError, match="no trials"):
        count([])
    with pytest.raises(PolyactError, match="at least 2"):
        rank([Trial("1", "a", "b", "tie")])
    with pytest.raises(PolyactError, match="with itself"):
        Trial("1", "a", "a", "tie")
    with pytest.raises(PolyactError, match="all the same"):
        pearson(np.zeros(3), np.arange(3.0))
