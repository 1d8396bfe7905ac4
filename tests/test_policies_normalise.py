"""Normalisation statistics: right numbers, and an error instead of a silent identity."""

import jax.numpy as jnp
import numpy as np
import pytest

from polyact import spaces
from polyact.data.episodes import Episodes
from polyact.data.source import Source
from polyact.errors import DataError, PolyactError
from polyact.policies.encoding import encode
from polyact.policies.normalise import ActionScale, Normaliser, Statistics
from polyact.policies.spec import Body, Spec

RNG = np.random.default_rng(0)


def source(name, width, embodiment, action=2, shift=0.0):
    lengths = np.array([5, 7])
    seen = RNG.normal(shift, 2, (14, width))
    done = None if action is None else RNG.uniform(-1, 1, (12, action))
    return Source(Episodes(lengths, observation=seen, action=done), name, embodiment=embodiment)


def test_normaliser_is_mean_and_std_and_inverts():
    data = RNG.normal(1e4, 3, (1000, 4)).astype(np.float32)
    normaliser = Normaliser.of(data)
    np.testing.assert_allclose(normaliser.mean, data.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(normaliser.std, data.std(0, dtype=np.float64), rtol=1e-4)
    np.testing.assert_allclose(normaliser.inverse(normaliser(jnp.asarray(data[0]))), data[0], rtol=1e-5)


def test_constant_column_is_not_blown_up():
    assert Normaliser.of(np.full((10, 2), 7.0)).std.tolist() == [1, 1]


@pytest.mark.parametrize(("bad", "words"), [(np.zeros((0, 2)), "no rows"), (np.array([[1.0, np.nan]]), "column 1")])
def test_unusable_data_is_refused(bad, words):
    with pytest.raises(DataError, match=words):
        Normaliser.of(bad)


def test_statistics_pool_the_sources_of_one_body():
    one, two, other = source("a", 3, "arm"), source("b", 3, "arm", shift=5.0), source("c", 4, "leg")
    statistics = Statistics.of([one, two, other])
    pooled = np.concatenate([one.episodes.observation, two.episodes.observation])
    np.testing.assert_allclose(statistics.normaliser(("arm", "default"), "observation", 3).mean, pooled.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics.normaliser(("arm", "default"), "observation", 3).std, pooled.std(0), rtol=1e-5)
    assert statistics.normaliser(("leg", "default"), "action", 2).width == 2


def test_missing_or_wrong_width_statistics_are_errors():
    statistics = Statistics.of([source("a", 3, "arm", action=None)])
    with pytest.raises(PolyactError, match=r"no normalisation statistics for .*'leg'"):
        statistics.normaliser(("leg", "default"), "observation", 3)
    with pytest.raises(PolyactError, match=r"no normalisation statistics for .*'velocity'"):
        statistics.normaliser(("arm", "velocity"), "observation", 3)
    with pytest.raises(PolyactError, match="no action statistics"):
        statistics.normaliser(("arm", "default"), "action", 2)
    with pytest.raises(PolyactError, match="width 3, expected 5"):
        statistics.normaliser(("arm", "default"), "observation", 5)


def test_a_body_refuses_statistics_of_another_width():
    box = spaces.Box(-1, 1, (2,))
    with pytest.raises(PolyactError, match="width 3, expected 2"):
        Body("a", "a", "default", box, box, Normaliser.identity(3), ActionScale.of(box))


def test_spec_from_sources_joins_bodies_and_numbers_sources():
    sources = [source("a", 3, "arm"), source("c", 4, "leg", action=1), source("b", 3, "arm", action=None)]
    spec = Spec.from_sources(sources, 10)
    assert [body.name for body in spec.bodies] == ["arm", "leg"]
    assert spec.source_bodies == (0, 1, 0)
    assert [(body.observation_width, body.action_width) for body in spec.bodies] == [(3, 2), (4, 1)]
    with pytest.raises(PolyactError, match="one body, got 2"):
        _ = spec.normaliser


def test_sources_of_one_body_with_different_widths_are_refused():
    with pytest.raises(DataError, match="does not fit"):
        Spec.from_sources([source("a", 3, "arm"), source("b", 4, "arm")], 1)


def test_action_scale_maps_bounds_and_keeps_constants():
    scale = ActionScale.of(spaces.Box(np.array([-2.0, 1.0]), np.array([4.0, 1.0])))
    assert scale.to_env(jnp.array([-1.0, 0.7])).tolist() == [-2, 1]
    assert scale.to_unit(jnp.array([4.0, 1.0])).tolist() == [1, 0]
    assert np.isfinite(scale.log_volume())


def test_unbounded_actions_take_their_scale_from_data_or_are_refused():
    space = spaces.Box(np.array([-1.0, -np.inf]), np.array([1.0, np.inf]))
    with pytest.raises(PolyactError, match="entry 1"):
        ActionScale.of(space)
    scale = ActionScale.of(space, Normaliser(jnp.array([9.0, 3.0]), jnp.array([9.0, 2.0])))
    assert scale.to_env(jnp.array([1.0, 1.0])).tolist() == [1, 5]
    assert scale.squash(jnp.array([50.0, 50.0])).tolist() == [1, 50]


def test_encode_is_one_hot_for_classes_and_ravel_for_boxes():
    space = spaces.Dict({"place": spaces.Discrete(3, start=1), "picture": spaces.Box(0, 255, (1, 2), np.uint8)})
    value = {"place": jnp.asarray(2), "picture": jnp.array([[7, 8]], jnp.uint8)}
    assert encode(space, value).tolist() == [0, 1, 0, 7, 8]
    assert encode(spaces.MultiDiscrete((2, 3)), jnp.array([1, 2])).tolist() == [0, 1, 0, 0, 1]


def test_discrete_observations_are_not_normalised():
    data = Source(Episodes(np.array([4]), observation=np.array([0, 1, 2, 2, 1]), action=np.zeros((4, 1))))
    normaliser = Spec.from_sources([data], 1).normaliser
    assert normaliser.mean.tolist() == [0, 0, 0]
    assert normaliser.std.tolist() == [1, 1, 1]


def test_body_keeps_the_shape_of_the_action_space():
    body = Spec.of(spaces.Box(-1, 1, (2,)), spaces.Box(-3, 3, (2, 2)), 1).body
    action = jnp.array([[3.0, 0.0], [-3.0, 1.5]])
    np.testing.assert_allclose(body.to_env(body.to_unit(action)), action)
