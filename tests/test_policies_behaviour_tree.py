"""Behaviour trees: the language round-trips, errors say where, and arrays tick exactly as the recursion does."""

import random

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyact.acting.rollout import rollout
from polyact.envs.catalogue import make
from polyact.errors import PolyactError
from polyact.nets.mlp import Network
from polyact.policies.behaviour_tree import arrays, recursive
from polyact.policies.behaviour_tree.check import Fact, Vocabulary, check
from polyact.policies.behaviour_tree.habits import _boards, habits
from polyact.policies.behaviour_tree.policy import BehaviourTree, PolicyLeaves
from polyact.policies.behaviour_tree.recursive import FAILURE, RUNNING, SUCCESS
from polyact.policies.behaviour_tree.sample import at, paths, random_edit, random_tree
from polyact.policies.behaviour_tree.syntax import parse, pretty, to_json, unparse
from polyact.policies.gaussian import Gaussian
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.recurrent import Recurrent
from polyact.policies.spec import Spec
from polyact.saving import load, save

WORDS = Vocabulary(
    {"near": Fact("something is near"), "health": Fact("left", 0, 10)},
    {"go": "walk", "hide": "hide", "fire": "shoot"},
    nodes=16,
    depth=5,
)


@given(st.integers(0, 1 << 30))
@settings(max_examples=200, deadline=None)
def test_a_tree_printed_and_read_again_is_the_same(seed):
    text = unparse(random_tree(WORDS, random.Random(seed)))
    assert unparse(parse(text)) == text
    assert parse(pretty(parse(text))) == parse(text)


@given(st.integers(0, 1 << 30))
@settings(max_examples=100, deadline=None)
def test_random_edits_change_a_tree_and_stay_within_the_language(seed):
    rng = random.Random(seed)
    tree = random_tree(WORDS, rng)
    assert check(random_edit(tree, WORDS, rng), WORDS) != tree


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("(task go", "line 1, column 1: this '(' is never closed"),
        ("(sequence\n  (tusk go))", "line 2, column 3: unknown kind of node 'tusk'; did you mean 'task'?"),
        ("(task go) (task go)", "line 1, column 11: '(' after the end"),
        ("(task)", "needs the name of a task"),
        ("(task go 3)", "takes no number"),
        ("(repeat (task go))", "needs a number (successes in all)"),
        ("(invert (task go) (task go))", "takes one child, got 2"),
        ("(selector)", "at least one child"),
        ("(cooldown -1 (task go))", "expects a whole number"),
        ("(sequence (task go) now)", "'now' after the children"),
    ],
)
def test_what_is_no_tree_is_said_with_its_place(text, said):
    with pytest.raises(PolyactError) as error:
        parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(sequence (task go) (task fier))", "sequence/2.task: unknown task 'fier'; did you mean 'fire'?"),
        ("(condition naer)", "unknown fact 'naer'; did you mean 'near'?"),
        ("(condition near 1)", "takes no number"),
        ("(condition health)", "needs a number in 0 .. 10"),
        ("(condition health 11)", "0 .. 10, got 11"),
        ("(parallel 3 (task go) (task fire))", "between 1 and 2"),
        ("(cooldown 0 (task go))", "1 .. 99"),
        ("(invert (invert (invert (invert (invert (task go))))))", "6 levels, at most 5"),
        ("(selector " + "(task go) " * 16 + ")", "17 nodes, at most 16"),
    ],
)
def test_the_checker_says_what_does_not_fit(text, said):
    with pytest.raises(PolyactError, match=None) as error:
        check(parse(text), WORDS)
    assert said in str(error.value)


def test_json_has_the_same_nodes():
    text = "(selector (cooldown 2 (task go)) (condition health 3))"
    inner = {"kind": "cooldown", "number": 2, "children": [{"kind": "task", "name": "go"}]}
    assert to_json(parse(text)) == {"kind": "selector", "children": [inner, {"kind": "condition", "name": "health", "number": 3}]}


def run(text, statuses, facts=None):
    """Root statuses over ticks; `statuses` maps tasks to what they return at each tick."""
    memory, ticks = recursive.Memory(), len(next(iter(statuses.values())))
    board = {"near": 1, "health": 5} | (facts or {})
    return [
        recursive.tick(parse(text), board, {name: values[t] for name, values in statuses.items()}, memory) for t in range(ticks)
    ]


def test_a_sequence_goes_on_with_its_running_child():
    memory = recursive.Memory()
    tree = parse("(sequence (task go) (task hide))")
    recursive.tick(tree, {}, {"go": SUCCESS, "hide": RUNNING}, memory)
    recursive.tick(tree, {}, {"go": FAILURE, "hide": SUCCESS}, memory)
    assert memory.ticked == [(), (1,)]


def test_a_cooldown_rests_after_a_success():
    assert run("(cooldown 2 (task go))", {"go": [SUCCESS] * 5}) == [SUCCESS, FAILURE, FAILURE, SUCCESS, FAILURE]


def test_a_repeat_runs_until_enough_successes_and_begins_anew_after_a_failure():
    results = run("(repeat 2 (task go))", {"go": [SUCCESS, FAILURE, SUCCESS, RUNNING, SUCCESS]})
    assert results == [RUNNING, FAILURE, RUNNING, RUNNING, SUCCESS]


def test_a_parallel_that_finishes_halts_what_runs_below_it():
    tree = parse("(parallel 1 (sequence (task go) (task hide)) (task fire))")
    memory = recursive.Memory()
    recursive.tick(tree, {}, {"go": SUCCESS, "hide": RUNNING, "fire": RUNNING}, memory)
    assert memory.resume == {(0,): 1}
    recursive.tick(tree, {}, {"go": SUCCESS, "hide": RUNNING, "fire": SUCCESS}, memory)
    assert memory.resume == {}


@eqx.filter_jit
def ticks(trees, facts, statuses):
    """[B] trees, facts [B, K, C], statuses [B, K, T] over K ticks: root statuses [B, K], ticked nodes [B, K, N], cursors [B, N]."""

    def one(tree, facts, statuses):
        def step(memory, board):
            ticked, memory = arrays.tick(tree, *board, memory)
            return memory, ticked

        _, ticked = jax.lax.scan(step, arrays.begin(tree), (facts, statuses))
        return ticked.status, ticked.nodes

    return jax.vmap(one)(trees, facts, statuses)


@pytest.fixture
def unwatched():
    """Without checks of types in every call, which would take most of the time where there are millions."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_arrays_tick_as_the_recursion_does_on_ten_thousand_random_trees_and_boards(unwatched):
    rng, count, length = random.Random(0), 2500, 4
    trees = [random_tree(WORDS, rng) for _ in range(count)]
    numbers = np.random.default_rng(0)
    facts = np.stack([numbers.integers(0, 2, (count, length)), numbers.integers(0, 11, (count, length))], axis=-1)
    statuses = numbers.integers(0, 3, (count, length, 3))
    stacked = arrays.compile_trees(trees, WORDS)
    orders = np.asarray(stacked.order)
    roots, nodes = map(np.asarray, ticks(stacked, jnp.asarray(facts, jnp.float32), jnp.asarray(statuses)))
    for i, tree in enumerate(trees):
        memory, places = recursive.Memory(), paths(tree)
        for t in range(length):
            board = dict(zip(WORDS.facts, facts[i, t].tolist(), strict=True))
            returned = dict(zip(WORDS.tasks, statuses[i, t].tolist(), strict=True))
            assert recursive.tick(tree, board, returned, memory) == roots[i, t], unparse(tree)
            assert sorted(orders[i][nodes[i, t]].tolist()) == [places.index(path) for path in memory.ticked], unparse(tree)


ENV = make("double-integrator", horizon=12)
SPEC = Spec.of(ENV.observation_space, ENV.action_space, 1)


@pytest.mark.parametrize("kind", [Gaussian, Recurrent])
def test_a_tree_that_is_one_neural_leaf_is_that_leaf(kind):
    leaf = kind.create(SPEC, Network(width=8), jax.random.key(0))
    tree = BehaviourTree.of("(task net)", PolicyLeaves(("net",), (leaf,)))
    one, other = (rollout(policy, ENV, episodes=3, key=jax.random.key(1)) for policy in (tree, leaf))
    assert np.array_equal(one.action, other.action)
    assert np.all(one.info["status"] == RUNNING)


def test_the_last_task_that_sets_an_entry_has_it_and_a_tree_can_be_saved(tmp_path):
    wild, still = RandomPolicy(ENV.action_space), Gaussian.create(SPEC, Network(width=8), jax.random.key(0))
    tree = BehaviourTree.of("(parallel 1 (task wild) (task still))", PolicyLeaves(("wild", "still"), (wild, still)))
    save(tree, tmp_path / "tree")
    one = rollout(load(tmp_path / "tree", BehaviourTree), ENV, episodes=2, key=jax.random.key(1))
    assert np.array_equal(one.action, rollout(still, ENV, episodes=2, key=jax.random.key(1)).action)
    assert one.info["nodes"][:, :3].all()
    assert not one.info["nodes"][:, 3:].any()


def test_habits_are_what_the_recursion_ticks_on_the_same_boards():
    trees = [random_tree(WORDS, random.Random(seed)) for seed in range(6)]
    facts, high, statuses = _boards(WORDS)
    for tree, row in zip(trees, habits(trees, WORDS), strict=True):
        often = np.zeros((len(facts), len(WORDS.tasks)))
        for place, (known, ticks) in enumerate(zip(facts, statuses, strict=True)):
            memory = recursive.Memory()
            for answers in ticks:
                board = dict(zip(WORDS.facts, known.tolist(), strict=True))
                recursive.tick(tree, board, dict(zip(WORDS.tasks, answers.tolist(), strict=True)), memory)
                acting = {node.name for path in memory.ticked if (node := at(tree, path)).kind == "task"}
                often[place] += [name in acting for name in WORDS.tasks]
        often /= len(ticks)
        expected = np.concatenate([often.mean(0)[None], np.where(high, 1, -1).T @ often / len(facts)])
        np.testing.assert_allclose(row, expected.reshape(-1), atol=1e-5)


def test_trees_that_do_the_same_have_the_same_habits():
    one, other = habits([parse("(task go)"), parse("(sequence (invert (invert (task go))))")], WORDS)
    np.testing.assert_array_equal(one, other)
