"""Whether a policy fits an environment is known before anything is compiled."""

import jax
import pytest

from polyact import spaces
from polyact.envs.double_integrator import DoubleIntegrator
from polyact.envs.pendulum import Pendulum
from polyact.envs.tabular_builders import chain
from polyact.errors import PolyactError
from polyact.nets.mlp import Network
from polyact.policies.base import greedy
from polyact.policies.ensemble_policy import EnsemblePolicy
from polyact.policies.fitting import alike, bodies, check_fits
from polyact.policies.gaussian import Gaussian
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.spec import Spec

ENV = Pendulum()
POLICY = Gaussian.create(Spec.of(ENV.observation_space, ENV.action_space, 1), Network(width=4, depth=1), jax.random.key(0))
WRAPPED = [POLICY, greedy(POLICY), EnsemblePolicy.of([POLICY, POLICY])]


@pytest.mark.parametrize("policy", WRAPPED)
def test_a_policy_fits_its_own_environment_and_no_other(policy):
    check_fits(policy, Pendulum(gravity=3.0))
    with pytest.raises(PolyactError, match=r"was made for observations .*shape=\(3,\).*environment has .*shape=\(2,\)"):
        check_fits(policy, DoubleIntegrator())
    with pytest.raises(PolyactError, match=r"environment has Discrete\(n=5"):
        check_fits(policy, chain())
    assert len(bodies(policy)) == 1


def test_a_policy_without_a_body_passes():
    check_fits(RandomPolicy(ENV.action_space), chain())


def test_spaces_are_alike_whatever_their_bounds():
    box, wide = spaces.Box(-1, 1, (2,)), spaces.Box(-9, 9, (2,))
    assert alike(box, wide)
    assert alike(spaces.Dict({"a": box}), spaces.Dict({"a": wide}))
    assert alike(spaces.Tuple((box,)), spaces.Tuple((wide,)))
    assert not alike(spaces.Dict({"a": box}), spaces.Dict({"b": box}))
    assert not alike(spaces.Tuple((box,)), spaces.Tuple((box, box)))
    assert not alike(spaces.Discrete(3), spaces.Discrete(4))
    assert not alike(spaces.Box(-1, 1, (3,)), box)
