"""PolicyGuard: the judge's loss and likeness in closed form, guards that know everything and nothing, and the model behind an endpoint."""

import json
import random

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.gridweb_agents import CHOICES, SEEN, Case, demonstrations, features, new_agent, possible, run_cases
from polyact.data.compliance import LINES, encode, numbers, pairs
from polyact.envs.gridweb import Task, calls, reset
from polyact.envs.gridweb_sites import SITES
from polyact.envs.rulebook import Event, book_verdict, parse
from polyact.errors import DataError
from polyact.nets.transformer import Transformer
from polyact.policies.language.backend import Scripted
from polyact.systems.agents.policyguard import (
    DEFAULT,
    EXPERIMENT,
    Outcome,
    PolicyGuard,
    as_guard,
    ask,
    effects,
    encode_pairs,
    fit_batches,
    guard_loss,
    judged,
    keyword_blocker,
    read_pairs,
    violation_chances,
    without_policy,
)

KEY = jax.random.key(0)
JUDGE = PolicyGuard.create(Transformer(width=16, depth=1, heads=2, expansion=2, context=LINES + 1), KEY)
FOUND = pairs(SITES, 60, True, random.Random(0))
DATA = encode_pairs(FOUND)


def test_the_loss_is_the_cross_entropy_of_the_verdict():
    chances = np.asarray(violation_chances(JUDGE, DATA.rules, DATA.lines), np.float64)
    losses = -np.where(DATA.violated[:, None] > 0, np.log(chances), np.log(1 - chances))
    last = losses[np.arange(len(losses)), DATA.length - 1]
    loss = eqx.filter_jit(guard_loss)(JUDGE, jax.tree.map(jnp.asarray, DATA), 0.0)
    assert float(loss) == pytest.approx(last.mean(), rel=1e-4)


def test_a_policy_is_kept_when_all_its_rules_are():
    both, first, second = DATA.rules.copy(), DATA.rules.copy(), DATA.rules.copy()
    two = np.flatnonzero(DATA.rules[:, 1, 0] >= 0)
    first[:, 1] = -1
    second[:, 0], second[:, 1] = DATA.rules[:, 1], -1
    kept = [1 - np.asarray(violation_chances(JUDGE, rules, DATA.lines))[two] for rules in (both, first, second)]
    np.testing.assert_allclose(kept[0], kept[1] * kept[2], rtol=1e-4)


def test_a_verdict_on_a_prefix_does_not_depend_on_what_follows():
    longer = DATA.lines.copy()
    longer[:, 4:] = DATA.lines[::-1, 4:]
    first, second = (np.asarray(violation_chances(JUDGE, DATA.rules, lines)) for lines in (DATA.lines, longer))
    np.testing.assert_allclose(first[:, :4], second[:, :4], atol=1e-6)


def test_a_line_is_like_a_pattern_that_it_matches():
    lines = jnp.asarray([numbers(Event("fill", "flair", "news")), numbers(Event("click", "remove", ""))])
    for pattern in (Event("fill", "flair", "news"), Event("fill", "flair", "news")):
        likeness = JUDGE._likeness(JUDGE._words(lines), JUDGE._words(jnp.asarray(numbers(pattern))))
        np.testing.assert_allclose(likeness[0], 1.0, atol=1e-4)
        assert np.abs(likeness[1]).max() < 0.9


def test_without_the_policy_all_policies_are_the_same():
    blind = without_policy(DATA)
    assert len(np.unique(blind.rules, axis=0)) == 1
    np.testing.assert_array_equal(blind.lines, DATA.lines)


def test_scores_of_judgement_are_counted_by_hand():
    found = judged(JUDGE, DATA)
    chances = np.asarray(violation_chances(JUDGE, DATA.rules, DATA.lines))
    says = chances[np.arange(len(chances)), DATA.length - 1] > 0.5
    assert found["accuracy"] == pytest.approx((says == DATA.violated).mean())
    assert found["above"] == pytest.approx(found["accuracy"] - max(DATA.violated.mean(), 1 - DATA.violated.mean()))


def test_a_judge_learns():
    few = jax.tree.map(jnp.asarray, encode_pairs(FOUND[:16]))
    loss = eqx.filter_jit(guard_loss)
    before = float(loss(JUDGE, few))
    after = fit_batches(JUDGE, few, guard_loss, DEFAULT, 40, 16, KEY)
    assert float(loss(after, few)) < 0.8 * before
    np.testing.assert_array_equal(after.codes.of, JUDGE.codes.of)


SITE = SITES[4]
BOOK = parse("must not click publish\nclick backup before click save")


def all_knowing(books, logs):
    """The exact checker as a guard."""
    return np.array([float(book_verdict(book, log) == "violated") for book, log in zip(books, logs, strict=True)], np.float32)


def cases(count):
    chance = random.Random(0)
    tasks = [Task(chance.choice(SITE.items), (("status", "paid"),)) for _ in range(count)]
    return [Case(SITE, task, BOOK) for task in tasks]


def test_a_guard_that_knows_the_rules_lets_none_of_them_be_broken():
    outcome = run_cases(new_agent(KEY), cases(30), KEY, LINES, all_knowing)
    assert not outcome.violated.any()
    assert run_cases(new_agent(KEY), cases(30), KEY, LINES).violated.any()


def test_a_guard_that_minds_nothing_changes_nothing():
    alone = run_cases(new_agent(KEY), cases(20), KEY, LINES)
    guarded = run_cases(new_agent(KEY), cases(20), KEY, LINES, lambda books, logs: np.zeros(len(logs), np.float32))
    assert all(np.array_equal(*pair) for pair in zip(alone, guarded, strict=True))


def test_when_all_is_minded_the_least_is_chosen():
    def dislikes(books, logs):
        return np.array([0.6 if log[-1].verb == "stop" else 0.9 for log in logs], np.float32)

    seen = []
    run_cases(new_agent(KEY), cases(5), KEY, LINES, lambda books, logs: seen.append(len(logs)) or dislikes(books, logs))
    assert seen == [5 * len(calls(SITE, reset(SITE)))]


def test_keywords_block_what_rules_name():
    logs = [[Event("click", "publish", "")], [Event("click", "save", "")], [Event("goto", "invoices", "")]]
    assert keyword_blocker([BOOK] * 3, logs).tolist() == [1, 1, 0]


def test_the_judge_as_a_guard_reads_the_last_line():
    books, logs = [pair.book for pair in FOUND[:7]], [pair.log for pair in FOUND[:7]]
    data = encode([(book, log, False) for book, log in zip(books, logs, strict=True)])
    chances = np.asarray(violation_chances(JUDGE, data.rules, data.lines))
    np.testing.assert_allclose(as_guard(JUDGE)(books, logs), chances[np.arange(7), data.length - 1], atol=1e-6)


def test_effects_of_a_guard():
    alone = Outcome(np.array([True, True, False, True]), np.array([True, True, False, False]))
    guarded = Outcome(np.array([True, False, False, True]), np.array([True, False, False, False]))
    assert effects(alone, guarded) == {"violations cut": 0.5, "success lost": 0.25, "success": 0.5}


def test_cases_that_nobody_can_solve_within_the_policy_are_known():
    chance = random.Random(0)
    task = Task("invoices-2", (("status", "paid"),))
    assert possible(Case(SITE, task, BOOK), LINES, chance)
    assert not possible(Case(SITE, task, parse("must not fill status")), LINES, chance)


def test_features_name_no_words_of_a_site():
    """The same visit on two sites, word for word in other words, looks the same."""
    rows = []
    for site in SITES[3:]:
        item, (name, values) = site.items[4], site.fields[0]
        task = Task(item, ((name, values[1]),))
        rows.append([features(site, task, reset(site), call) for call in calls(site, reset(site))])
    np.testing.assert_array_equal(*rows)


def test_demonstrations_are_of_offered_calls():
    shown = demonstrations(SITES, 20, 60, LINES, random.Random(0))
    assert shown.looks.shape == (60, CHOICES, SEEN)
    assert shown.offered[np.arange(60), shown.made].all()


def test_a_language_model_can_be_the_judge():
    model = Scripted(lambda request: "violation" if "publish" in request.text.split("Trajectory:")[1] else "no violation")
    assert ask(model, "must not click publish", ["click publish"], KEY)
    assert not ask(model, "must not click publish", ["click save"], KEY)


def test_published_pairs_are_read(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"policy": "p", "trajectory": ["a", "b"], "label": label} for label in ("violation", "no violation")]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_pairs(path) == [("p", ["a", "b"], True), ("p", ["a", "b"], False)]
    path.write_text(json.dumps(rows[0] | {"label": "maybe"}))
    with pytest.raises(DataError, match=r"pairs.jsonl, line 1: expected policy"):
        read_pairs(path)


def test_the_paper_scale_says_what_it_needs(monkeypatch):
    monkeypatch.delenv("POLYACT_ENDPOINT", raising=False)
    assert "POLYACT_ENDPOINT" in EXPERIMENT.scales["paper"].missing()
