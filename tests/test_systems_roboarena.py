"""RoboArena's synthetic truth and its rivals; the models themselves are in test_evaluation_arena."""

import numpy as np
import pytest

from polyact.evaluation.arena.agreement import pearson
from polyact.evaluation.arena.trials import count
from polyact.systems.robots.roboarena import World, _bots, centralised, draw_world, hold, scores_of

JUDGES = ("task-aware", "one bucket", "Bradley-Terry", "mean progress")


def test_trials_come_from_the_worlds_success():
    world = World(np.array([[9.0, -9.0], [-9.0, -9.0], [0.0, 0.0]]), np.tile([0.5, 0.5], (7, 1)))
    counts = count(hold(np.random.default_rng(0), world, 3000, uneven=False), ("0", "1", "2"))
    share = counts.wins / counts.games.clip(1)
    np.testing.assert_allclose([share[0, 1], share[1, 0], share[0, 2], share[1, 2]], [0.5, 0, 0.25, 0], atol=0.05)
    np.testing.assert_allclose(world.truth, [0.5, 0, 0.5], atol=1e-3)


def test_evaluators_have_a_taste():
    world = draw_world(np.random.default_rng(1), 4, 60)
    np.testing.assert_allclose(world.taste.sum(1), 1)
    ease = world.taste @ -world.logits.mean(0)
    assert ease[0] < ease[-1]


def test_a_pair_keeps_its_evaluator_when_uneven():
    trials = hold(np.random.default_rng(2), draw_world(np.random.default_rng(1), 4, 60), 200, uneven=True)
    homes = {(min(t.first, t.second), max(t.first, t.second)): set() for t in trials}
    for trial in trials:
        homes[min(trial.first, trial.second), max(trial.first, trial.second)].add(trial.evaluator)
    assert all(len(home) == 1 for home in homes.values())


def test_fixed_tasks_measure_only_themselves():
    logits = np.full((2, 6), 20.0)
    logits[1] = -20.0
    world = World(logits, np.full((7, 6), 1 / 6))
    np.testing.assert_allclose(centralised(np.random.default_rng(0), world, 100), [1, 0], atol=1e-6)


@pytest.mark.parametrize("judge", JUDGES)
def test_every_judge_finds_a_clear_order(judge):
    world = World(np.tile(np.array([-2.0, 0.0, 2.0])[:, None], (1, 10)), np.full((7, 10), 0.1))
    trials = hold(np.random.default_rng(3), world, 400, uneven=False)
    assert pearson(world.truth, scores_of(judge, trials, 3)) > 0.95


def test_bots_compare_policies_on_the_same_scene():
    progress = np.array([[100.0, 100.0, 0.0], [100.0, 20.0, 0.0]])
    for trial in _bots(np.random.default_rng(0), progress, 30):
        scene = int(trial.task)
        assert trial.progress == tuple(progress[[int(trial.first), int(trial.second)], scene])
        assert (trial.preference == "tie") == (scene != 1)
