"""Settings as text: read by the annotation of their field, refused in one line, and never silently without effect."""

import dataclasses
import subprocess
import sys
from typing import Any, Literal

import equinox as eqx
import pytest

from polyact.errors import PolyactError
from polyact.learning.catalogue import LEARNERS, fields_of, learner
from polyact.learning.fitted_q import Target
from polyact.learning.setting_values import annotation, parsed
from polyact.policies.mixture import GaussianMixture


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int | None, "3", 3),
        (int | None, "None", None),
        (float | None, "none", None),
        (float | None, "1e-3", 1e-3),
        (float, "2", 2.0),
        (bool, "False", False),
        (str, "3", "3"),
        (str, "none", "none"),
        (str | None, "none", None),
        (Literal["any", "first"], "first", "first"),
        (tuple[float, float], "(-5, 2)", (-5.0, 2.0)),
        (tuple[int, ...], "(1, 2, 3)", (1, 2, 3)),
        (Any, "[1, 2]", [1, 2]),
    ],
)
def test_text_becomes_a_value_of_the_annotated_type(kind, text, value):
    found = parsed(kind, text, "field")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        (int | None, "abc", "a whole number or none"),
        (int | None, "3.0", "a whole number or none"),
        (int, "true", "a whole number"),
        (int, "none", "a whole number"),
        (float | None, "abc", "a finite number or none"),
        (float, "nan", "a finite number"),
        (float, "1e999", "a finite number"),
        (bool, "1", "true or false"),
        (Literal["any", "first"], "last", "one of any, first"),
        (tuple[float, float], "(1, 2, 3)", "(a finite number, a finite number)"),
        (tuple[int, ...], "(1, 'a')", "(a whole number, ...)"),
        (Target, "250", "an object of class Target, which has no text"),
        (Target | None, "250", "an object of class Target, which has no text, or none"),
    ],
)
def test_text_of_another_type_names_field_text_and_what_was_expected(kind, text, wanted):
    with pytest.raises(PolyactError) as refused:
        parsed(kind, text, "field")
    assert str(refused.value) == f"field is '{text}', expected {wanted}"


@pytest.mark.parametrize("name", LEARNERS)
def test_no_setting_takes_a_value_of_any_type(name):
    made = learner(name)
    for path, value in fields_of(made).items():
        if path != "policy" and not isinstance(value, str):
            with pytest.raises(PolyactError, match="expected"):
                learner(name, [f"{path}=[]"])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("td3", ["q_weight=abc"], "q_weight is 'abc', expected a finite number or none"),
        ("sac", ["target_entropy=abc"], "target_entropy is 'abc', expected a finite number or none"),
        ("ppo", ["clip_norm=abc"], "clip_norm is 'abc', expected a finite number or none"),
        ("ppo", ["actor=mlp"], "actor is 'mlp', expected an object of class Actor, which has no text, or none"),
        ("bc", ["batches=Steps"], "batches is 'Steps', expected an object of class Sampling"),
        ("bc", ["schedule=stepwise"], "schedule is 'stepwise', expected one of constant, linear, cosine"),
        ("fqi", ["every=often"], "every is 'often', expected a whole number or none"),
        ("bc", ["policy=mixture", "policy.components=many"], "policy.components is 'many', expected a whole number"),
        ("bc", ["policy=mixture", "policy.parts=3"], "option of GaussianMixture 'parts'"),
        ("sac", ["tune_temperature=false", "target_entropy=-1"], "no effect with tune_temperature=False"),
        ("iql", ["actor_optimiser.learning_rate=1e-4", "learning_rate=1e-3"], "'actor_optimiser.learning_rate' has no effect"),
    ],
)
def test_learners_refuse_in_one_line(name, settings, message):
    with pytest.raises(PolyactError) as refused:
        learner(name, settings)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bc", ["final=0.1", "schedule=cosine"]),
        ("fqi", ["target.rate=0.01", "target.every=none"]),
        ("bc", ["fourier_scale=2.0", "fourier=8"]),
        ("bc", ["policy.components=3", "policy=mixture", "actor.network.width=8"]),
    ],
)
def test_settings_that_need_each_other_come_in_any_order(name, settings):
    one, other = learner(name, settings), learner(name, settings[::-1])
    assert eqx.tree_equal(one, other)
    assert not eqx.tree_equal(one, learner(name))


def test_a_later_setting_may_refine_an_earlier_one():
    made = learner("iql", ["learning_rate=1e-3", "actor_optimiser.learning_rate=1e-4"])
    assert made.actor_optimiser.learning_rate == 1e-4
    assert made.critic_optimiser.learning_rate == made.value_optimiser.learning_rate == 1e-3


def test_annotations_of_classes_and_functions():
    assert annotation(Target, "every") == int | None
    assert annotation(GaussianMixture.create, "components") is int
    assert annotation(GaussianMixture.create, "nothing") is Any
    assert {field.name for field in dataclasses.fields(Target)} == {"every", "rate"}


def test_naming_learners_imports_no_jax():
    code = "import sys, polyact.learning.catalogue; assert not {'jax', 'numpy', 'equinox'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
