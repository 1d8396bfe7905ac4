"""Websites as values: what pages offer, what calls change, and that goals are exact differences of the database."""

import random

import pytest

from polyact.envs.gridweb import Task, calls, difference, render, reset, solved, step
from polyact.envs.gridweb_sites import SITES, Habits, habits, random_task, visit
from polyact.envs.rulebook import Event
from polyact.errors import PolyactError

SITE = SITES[4]
TASK = Task("invoices-2", (("status", "paid"),))


def walk(*words, site=SITE):
    state = reset(site)
    for call in words:
        state = step(site, state, Event(*call.split(), *[""] * (3 - len(call.split()))))
    return state


BROWSED = ("goto invoices", "open invoices-2", "fill status paid", "click save", "stop")


def test_a_task_is_solved_by_browsing_and_by_searching_with_either_commit():
    for way in (BROWSED[:2], ("search invoices-2",)):
        for commit in ("click save", "click publish"):
            assert solved(SITE, walk(*way, "fill status paid", commit, "stop"), TASK, reset(SITE))


@pytest.mark.parametrize(
    "calls_made",
    [
        BROWSED[:-1],
        (*BROWSED[:3], "stop"),
        (*BROWSED[:3], "goto home", "stop"),
        ("search invoices-1", *BROWSED[2:]),
        (*BROWSED[:2], "fill status refunded", *BROWSED[3:]),
        (*BROWSED[:3], "fill group trade", *BROWSED[3:]),
        (*BROWSED[:4], "open invoices-3", "click delete", "stop"),
    ],
    ids=["no stop", "no commit", "left before", "other item", "other value", "other field too", "deletes too"],
)
def test_anything_else_is_not_solved(calls_made):
    assert not solved(SITE, walk(*calls_made), TASK, reset(SITE))


def test_the_last_filled_value_counts_and_steps_change_nothing():
    state = walk(*BROWSED[:2], "fill status refunded", "click backup", "fill status paid", "click save")
    assert difference(SITE, reset(SITE), state) == {"invoices-2": (("pending", "general"), ("paid", "general"))}


def test_deleted_items_are_gone():
    state = walk("search invoices-2", "click delete")
    assert [call.object for call in calls(SITE, state) if call.verb == "open"] == ["invoices-1", "invoices-3"]
    assert "invoices-2" not in render(SITE, state)
    assert difference(SITE, reset(SITE), state)["invoices-2"][1] is None


def test_only_what_a_page_offers_can_be_done():
    with pytest.raises(PolyactError, match="can't be done on the page 'home'"):
        walk("click save")
    with pytest.raises(PolyactError, match="any more"):
        walk("stop", "goto invoices")


def test_pages_show_fields_values_and_buttons():
    page = render(SITE, walk(*BROWSED[:3]))
    assert [line.split() for line in page.splitlines()[1:3]] == [["status", "pending", "paid"], ["group", "general"]]
    assert "(verify-identity)" in page
    assert "invoices" in render(SITE, reset(SITE))
    assert "pending general" in render(SITE, walk("goto invoices"))


def test_sites_share_no_words():
    for i, site in enumerate(SITES):
        for other in SITES[:i]:
            assert not site.words & other.words


def test_careful_visitors_solve_every_task():
    chance = random.Random(0)
    for _ in range(300):
        site = chance.choice(SITES)
        task = random_task(site, chance)
        how = Habits(chance.random() < 0.5, chance.random(), chance.random() < 0.5, 0.0, False)
        page = visit(site, task, how, chance, 12)
        assert solved(site, page, task, reset(site))
        assert walk(*map(str, page.log), site=site).rows == page.rows


def test_visitors_of_mixed_quality_stop_in_time_and_sometimes_fail():
    chance, done = random.Random(0), []
    for _ in range(300):
        site = chance.choice(SITES)
        task = random_task(site, chance)
        page = visit(site, task, habits(chance), chance, 12)
        assert len(page.log) <= 12
        assert page.log[-1].verb == "stop"
        done.append(solved(site, page, task, reset(site)))
    assert 0.6 < sum(done) / 300 < 0.97
