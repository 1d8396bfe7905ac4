"""Teams: every member acts by the same rule on its own view, and a shared network treats members alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.errors import PolyactError
from polyact.nets.mlp import Network
from polyact.policies.deterministic import Deterministic
from polyact.policies.spec import Spec
from polyact.policies.team import SharedCategorical, Team
from polyact.spaces import Box, MultiDiscrete

KEY = jax.random.key(0)


def test_members_act_as_they_would_alone():
    one = Deterministic.create(Spec.of(Box(-1, 1, (3,)), Box(-1, 1, (2,)), 1), Network(width=8), KEY)
    team, rows = Team(one, 3), jax.random.normal(KEY, (3, 3))
    actions, _ = team.act(rows, team.start(KEY), KEY)
    np.testing.assert_allclose(actions, jnp.concatenate([one.act(row, None, KEY)[0] for row in rows]), rtol=1e-5)
    assert team.report(None) == {}


def test_a_shared_network_gives_swapped_members_swapped_choices():
    spec = Spec.of(Box(-1, 1, (2, 3)), MultiDiscrete((4, 2, 4, 2)), 1)
    policy = SharedCategorical.create(spec, Network(width=8), KEY)
    rows = jax.random.normal(KEY, (2, 3))
    one, other = policy.logits(rows), policy.logits(rows[::-1])
    np.testing.assert_allclose(one, jnp.concatenate([other[6:], other[:6]]), rtol=1e-5)


def test_what_cannot_be_shared_out_is_refused():
    with pytest.raises(PolyactError, match="can't be shared out among 2"):
        SharedCategorical.create(Spec.of(Box(-1, 1, (2, 3)), MultiDiscrete((4, 3)), 1), Network(width=8), KEY)
