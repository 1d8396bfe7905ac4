"""pass@k against counting all subsets; the judge against exact values."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.envs.language.tables import Match
from polyact.errors import PolyactError
from polyact.evaluation.language import judge_answers, pass_at_k
from polyact.policies.language.table import TableLM, entropy


@pytest.mark.parametrize("k", [1, 2, 5])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(k):
    right = [0, 1, 3, 5]
    shares = [np.mean([any(i < c for i in chosen) for chosen in combinations(range(5), k)]) for c in right]
    np.testing.assert_allclose(pass_at_k(jnp.array(right), 5, k), np.mean(shares), rtol=1e-5)


def test_pass_at_more_than_was_sampled_is_refused():
    with pytest.raises(PolyactError, match="between 1 and 5"):
        pass_at_k(jnp.array([1]), 5, 6)


def test_the_judge_finds_exact_chances():
    table, world = TableLM(jnp.log(jnp.array([[[0.5, 0.5]], [[0.2, 0.8]]]))), Match(jnp.array([[0], [0]]), 2)
    scores = jax.jit(lambda key: judge_answers(table, world, world.every, samples=3000, key=key, ks=(2,)))(jax.random.key(0))
    expected = {"pass@1": 0.35, "pass@2": (0.75 + 0.36) / 2, "entropy": float(entropy(table)), "tokens": 1.0}
    assert scores.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(scores[name], value, atol=0.03)
