"""What every system keeps: a card, an ablation, scales, a usage that can be read, and a place in the lists and pages."""

import ast
import importlib
import json

import pytest

from polyact.app.cli import main
from polyact.claims import pages, record
from polyact.claims.claim import Beats
from polyact.claims.harness import experiments
from polyact.errors import PolyactError
from polyact.systems import catalogue

SLUGS = list(catalogue.files())


@pytest.mark.parametrize("slug", SLUGS)
def test_a_system_has_a_card_claims_and_an_ablation(slug):
    system = catalogue.system(slug)
    assert vars(system.card) == vars(catalogue.cards()[slug])  # what is read from the text is what the module holds
    assert len({claim.name for claim in system.claims}) == len(system.claims) > 0
    roles = {arm.role for experiment in experiments(system.claims) for arm in experiment.arms.values()}
    assert {"system", "ablation"} <= roles
    assert any(isinstance(claim.test, Beats) for claim in system.claims)
    assert len(catalogue.docstring(slug).splitlines()) > 2


@pytest.mark.parametrize("slug", SLUGS)
def test_its_usage_is_python_whose_imports_exist(slug):
    tree = ast.parse(catalogue.cards()[slug].usage)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "polyact":
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_unknown_names_get_the_nearest_match():
    with pytest.raises(PolyactError, match="unknown family 'ofline'; did you mean 'offline'"):
        catalogue.cards("ofline")
    with pytest.raises(PolyactError, match="unknown system 'fedsara'; did you mean 'fedsarsa'"):
        catalogue.place("fedsara")


def test_systems_are_listed_and_shown(capsys):
    assert main(["systems", "--json"]) == 0
    assert [row["slug"] for row in json.loads(capsys.readouterr().out)] == SLUGS
    assert main(["systems", "show", SLUGS[0], "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["slug"] == SLUGS[0]
    assert shown["claims"][0]["says"]
    assert main(["systems", "show", SLUGS[0]]) == 0
    assert "polyact claim" in capsys.readouterr().out
    assert main(["systems", "hide"]) == 1


def test_claim_needs_a_choice_and_refuses_what_would_have_no_effect(capsys):
    assert main(["claim"]) == 1
    assert "name systems, or give --family F or --all" in capsys.readouterr().err
    assert main(["claim", SLUGS[0], "--all"]) == 1
    assert main(["claim", SLUGS[0], "--record", "--scale", "smoke"]) == 1
    assert "--record keeps verdicts of test seeds" in capsys.readouterr().err
    assert main(["claim", SLUGS[0], "--scale", "huge"]) == 1


def test_pages_hold_every_system_and_every_verdict():
    cards, lines = catalogue.cards(), record.latest()
    listed = pages.systems_page(cards)
    assert all(f"/{slug}.md)" in listed for slug in cards)
    text = pages.claims_page(lines, cards)
    assert all(claim in text for slug, claim in lines if slug in cards)
    assert all(line["verdict"] in ("holds", "fails", "not shown") for line in lines.values())


def test_an_effect_is_drawn_in_half_widths_beyond_its_margin():
    placed = pages.in_half_widths({"value": 5.0, "low": 4.0, "high": 6.0, "margin": 3.0})
    assert placed is not None
    assert (placed.value, placed.low, placed.high) == (2, 1, 3)
    assert pages.in_half_widths({"value": 5.0, "low": None, "high": None, "margin": 3.0}) is None
