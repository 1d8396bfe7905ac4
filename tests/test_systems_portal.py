"""PORTAL: trees play as rollouts do, the loop keeps its budget, leaves do what their names say, hindsight labels are right."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.rollout import rollout
from polyact.acting.tree_games import Games
from polyact.envs.skirmish.bots import TURNS
from polyact.envs.skirmish.skirmish import skirmishes
from polyact.envs.skirmish.view import OLDEST, VISIBLE, pack, unpack
from polyact.learning.refine import feedback, read
from polyact.learning.skirmish_aim import hindsight, learn_to_aim
from polyact.policies.behaviour_tree.policy import BehaviourTree
from polyact.policies.behaviour_tree.recursive import FAILURE, RUNNING, SUCCESS
from polyact.policies.behaviour_tree.skirmish import LEARNED, SkirmishLeaves, hit_chances
from polyact.policies.behaviour_tree.syntax import parse
from polyact.policies.team import Team
from polyact.systems.agents.portal import editor_for, judged, portal

KEY = jax.random.key(0)
MAPS, LEAVES = skirmishes([0, 1], horizon=30), SkirmishLeaves()
GAMES = Games(MAPS, 6)


def test_many_trees_in_one_program_play_the_games_of_rollout():
    wary = (
        "(selector (sequence (condition reloaded) (task aim) (task fire)) (parallel 2 (task hide) (task aim-ahead)) (task flank))"
    )
    trees = [parse(wary), parse("(sequence (task advance) (task aim) (task fire))")]
    played = GAMES.play(trees, LEAVES, jnp.stack([KEY, KEY]))
    for tree, games in zip(trees, played, strict=True):
        episodes = rollout(Team(BehaviourTree.of(tree, LEAVES)), MAPS, episodes=6, key=KEY)
        assert np.array_equal(episodes.lengths, games.lengths)
        for name in ("cell", "health", "shot", "nodes"):
            np.testing.assert_array_equal(episodes.info[name], games.info[name], err_msg=name)


def test_the_loop_spends_its_budget_and_keeps_what_is_better():
    ledger = portal(GAMES, LEAVES, replace(editor_for(LEAVES.vocabulary), first=4, fresh=5, edits=10), budget=6, key=KEY, batch=2)
    scores = [trial.outcome.score for trial in ledger.trials]
    assert len(scores) == 6
    assert ledger.trials[ledger.best].outcome.score == max(scores)
    told, best = read(feedback("game")(ledger))
    assert best == ledger.best
    assert told[0].facts["shots"] == pytest.approx(ledger.trials[0].outcome.facts["shots"], abs=1e-3)


def test_branches_that_never_run_are_named():
    tree = parse("(selector (task hold) (task advance))")
    played, _ = GAMES.play([tree, tree], LEAVES, jnp.stack([KEY, KEY]))
    assert "never ticked: (task advance)" in judged(tree, played).notes


def offered(**parts):
    """(status, action, writes) of every task by name, for a view that is zero but for these parts."""
    blank = unpack(jnp.zeros(MAPS.observation_space.shape[1]))._replace(foe_alive=jnp.ones(2))
    view = blank._replace(**{name: jnp.asarray(value, jnp.float32) for name, value in parts.items()})
    offers, _ = LEAVES.offers(pack(view), None, KEY)
    return {
        name: (int(offers.statuses[i]), np.asarray(offers.actions[i]), np.asarray(offers.writes[i]))
        for i, name in enumerate(LEAVES.vocabulary.tasks)
    }


def test_tasks_do_what_their_names_say():
    tasks = offered(
        visible=[1, 0],
        age=[0, OLDEST],
        error=[TURNS[3], 0],
        half_width=[0.05, 0],
        blocked=[0, 0, 0, 0, 1],
        closer=[0, 1, -1, 1, -1],
        nearer=[0, 1, -1, 0.1, -1],
        exposure=[0.5, 0.5, 0.5, 0, 0.5],
    )
    assert tasks["advance"][0] == SUCCESS
    assert tasks["advance"][1][0] == 2
    assert tasks["hide"][0] == RUNNING
    assert tasks["hide"][1][0] == 3
    assert tasks["strafe"][1][0] == 3
    assert tasks["hold"][1][0] == 0
    assert tasks["aim"][0] == SUCCESS
    assert tasks["aim"][1][1] == 3
    assert tasks["fire"][0] == SUCCESS
    assert tasks["regroup"][0] == FAILURE
    assert [tasks["fire"][2].tolist(), tasks["aim"][2].tolist()] == [[False, False, True], [False, True, False]]


def test_hindsight_knows_what_hit():
    """Every shot that did hit is labelled as one that could: the turn taken is among the turns that would have hit."""
    episodes = rollout(
        Team(BehaviourTree.of("(parallel 1 (task advance) (sequence (task aim) (task fire)))", LEAVES)), MAPS, episodes=6, key=KEY
    )
    rows, hits = hindsight(episodes, MAPS)
    assert len(rows) == len(hits) > 10
    taken = np.asarray(episodes.action).reshape(-1, 2, 3)
    health = np.asarray(episodes.info["health"])
    fell = np.zeros(episodes.steps, bool)
    fell[1:] = (health[1:, 2:] < health[:-1, 2:] - 0.1).any(1)
    fell[episodes.starts] = False
    labels = {row.tobytes(): label for row, label in zip(rows, hits, strict=True)}
    game = np.repeat(np.arange(episodes.count), episodes.lengths)
    for step in np.flatnonzero(fell):
        seen = np.asarray(episodes.observation)[step + game[step]]
        shooters = np.flatnonzero(episodes.info["shot"][step, :2])
        assert any(labels[seen[who].tobytes()][taken[step, who, 1]] for who in shooters if seen[who].tobytes() in labels)


def test_the_learned_task_follows_the_network_and_ids_of_rules_stay():
    marksman = learn_to_aim(MAPS, episodes=4, steps=20, key=KEY, rows=256)
    both = SkirmishLeaves(marksman)
    assert tuple(both.vocabulary.tasks)[: len(LEAVES.vocabulary.tasks)] == tuple(LEAVES.vocabulary.tasks)
    assert both.vocabulary.without(*LEARNED).tasks == LEAVES.vocabulary.tasks
    row = jax.random.normal(KEY, MAPS.observation_space.shape[1:]).at[VISIBLE].set(1.0)
    offers, _ = SkirmishLeaves(marksman, expects=0.0).offers(row, None, KEY)
    chosen = offers.actions[list(both.vocabulary.tasks).index("aim-learned"), 1]
    assert chosen == jnp.argmax(hit_chances(marksman, row))
