"""What must hold for every world with continuous physics: parameters are data and matter, nothing breaks, experts beat chance."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact import spaces
from polyact.envs.catalogue import ENVIRONMENTS, expert, experts, make, names, summary
from polyact.errors import PolyactError
from polyact.policies.scripted import Scripted
from polyact.saving import load, save

PHYSICS = (
    "pendulum",
    "cartpole-swingup",
    "mountain-car",
    "double-integrator",
    "point-navigation",
    "point-maze",
    "push",
    "reacher",
    "hopper2d",
)
STEPS = 150
QUICK = {"xla_backend_optimization_level": 0}  # these programs run once: compiling them takes longest
KEYS, WHO = jax.random.split(jax.random.key(3), 15), jnp.arange(15) % 3


@functools.cache
def runner(name: str):
    """Compiled once for each world: (batch of environments, keys [K, W]) -> observations, rewards, terminated, states.

    who: 0 chance acts, 1 the expert, 2 someone who pushes far beyond the limits, this way and that.
    """
    rule = expert(name, experts(name)[0])

    def episode(env, key, who):
        state, observation = env.reset(key)

        def advance(carry, now):
            (state, observation), (key, time) = carry, now
            extreme = jnp.full(env.action_space.shape, jnp.where(time % 40 < 20, 1e4, -1e4))
            choices = spaces.sample(env.action_space, key), rule(env, observation, key), extreme
            state, step = env.step(state, jnp.stack(choices)[who], key)
            return (state, step.observation), (step.observation, step.reward, step.terminated)

        (state, _), out = jax.lax.scan(advance, (state, observation), (jax.random.split(key, STEPS), jnp.arange(STEPS)))
        return out, state

    worlds = jax.vmap(episode, (None, 0, 0))
    return jax.jit(jax.vmap(worlds, (0, None, None)), compiler_options=QUICK)


def changed_one_by_one(env):
    """The environment, and the environment with each of its parameters changed in turn, as one batch."""
    leaves, structure = jax.tree.flatten(env)
    copies = [leaves]
    for place, leaf in enumerate(leaves):
        copies.append([*leaves[:place], 1.3 * leaf + 0.05, *leaves[place + 1 :]])
    batch = [jnp.stack([jnp.asarray(copy[i], jnp.float32) for copy in copies]) for i in range(len(leaves))]
    return jax.tree.unflatten(structure, batch), [
        jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(env)
    ]


@pytest.fixture(scope="module", params=PHYSICS)
def ran(request):
    env = make(request.param)
    batch, paths = changed_one_by_one(env)
    out, state = runner(request.param)(batch, KEYS, WHO)
    return request.param, env, paths, jax.device_get(out), jax.device_get(state)


def test_every_parameter_is_an_array_leaf_that_matters(ran):
    name, _, paths, (observation, reward, terminated), _ = ran
    for place, path in enumerate(paths, 1):
        same = all(np.array_equal(x[0], x[place]) for x in (observation, reward, terminated))
        assert not same, f"{name}: changing {path} changes nothing"


def test_parameters_of_a_batch_act_each_in_its_own_world(ran):
    name, env, paths, out, _ = ran
    alike = jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.asarray(leaf, jnp.float32), (len(paths) + 1, *np.shape(leaf))), env)
    among_its_like, _ = runner(name)(alike, KEYS, WHO)
    for mixed, pure in zip(out, among_its_like, strict=True):
        np.testing.assert_array_equal(mixed[0], pure[0])


def test_observations_stay_finite_and_in_their_space_under_any_action(ran):
    _, env, _, (observation, reward, _), state = ran
    assert np.all(np.isfinite(observation[0]))
    assert np.all(np.isfinite(reward))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    low, high = env.observation_space.low - 1e-4, env.observation_space.high + 1e-4
    assert np.all((observation[0] >= low) & (observation[0] <= high))


def test_spaces_and_horizon_are_static(ran):
    _, env, _, _, _ = ran
    hash((env.observation_space, env.action_space, env.horizon))
    assert env.action_space.bounded
    assert all(eqx.is_inexact_array_like(leaf) for leaf in jax.tree.leaves(env))
    traced = jax.eval_shape(lambda e: e.reset(jax.random.key(0))[1], env)
    assert traced.shape == env.observation_space.shape
    assert traced.dtype == np.float32


def test_catalogue_names_fields_and_experts():
    assert set(PHYSICS) <= set(names())
    for name in PHYSICS:
        assert len(summary(name)) > 10
        assert make(name).horizon > 1
    assert make("pendulum", mass=2.0).mass == 2.0
    assert make("point-maze", maze="large").maze.count("\n") == 8
    assert all(callable(expert(name, which)) for name in PHYSICS for which in experts(name))
    assert all(len(entry.summary) < 90 for entry in ENVIRONMENTS.values())


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: make("pendulun"), "unknown environment 'pendulun'; did you mean 'pendulum'?"),
        (lambda: make("pendulum", mas=2.0), "unknown field of environment 'pendulum' 'mas'; did you mean 'mass'?"),
        (lambda: make("nowhere:thing"), "unknown environment prefix 'nowhere'"),
        (lambda: expert("push", "pull"), "unknown expert of environment 'push' 'pull'"),
        (lambda: make("reacher", links=1), "links must be a whole number of at least 2, got 1"),
        (lambda: make("hopper2d", substeps=0), "substeps must be a whole number of at least 1, got 0"),
        (lambda: make("push", shape=((0, 0, 1),)), "shape must have shape [any, 4], got (1, 3)"),
        (lambda: make("point-navigation", obstacles="here"), "obstacles must be numbers of shape [any, 3], got here"),
        (lambda: make("point-navigation", goals=()), "the number of goals must be a whole number of at least 1, got 0"),
        (lambda: make("point-maze", maze="no-such-map"), "unknown maze 'no-such-map'"),
        (lambda: make("point-maze", maze="####\n#..#\n###"), "line 3 of the maze has 3 characters, the first has 4"),
        (lambda: make("point-maze", maze="####\n#x.#\n####"), "line 2 of the maze has the character 'x'"),
        (lambda: make("point-maze", maze="####\n#...\n####"), "closed by # all around"),
        (lambda: make("point-maze", maze="#####\n#S#G#\n#####"), "no way leads through the maze"),
        (lambda: make("point-maze", maze="###\n###\n###"), "no free cell"),
    ],
)
def test_bad_names_and_values_get_one_clear_line(attempt, message):
    with pytest.raises(PolyactError) as caught:
        attempt()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scripted_policy_acts_by_its_rule_and_can_be_saved(tmp_path):
    env = make("pendulum", mass=2.0)
    rule = expert("pendulum", "swing_up")
    policy = load(save(Scripted(env, rule), tmp_path / "policy"), Scripted)
    key = jax.random.key(0)
    _, observation = env.reset(key)
    action, memory = policy.act(observation, policy.start(key), key)
    np.testing.assert_array_equal(action, rule(env, observation, key))
    assert memory is None
    assert Scripted(env, "pendulum/swing_up") == Scripted(env, rule)


def test_any_function_can_be_a_rule_and_unknown_names_can_not():
    env, key = make("pendulum"), jax.random.key(0)
    policy = Scripted(env, lambda env, observation, key: observation[:1] * env.gravity)
    np.testing.assert_array_equal(policy.act(jnp.ones(3), None, key)[0], [10.0])
    with pytest.raises(PolyactError, match="unknown expert of environment 'pendulum' 'swing_down'; did you mean 'swing_up'"):
        Scripted(env, "pendulum/swing_down")
    with pytest.raises(PolyactError, match="'environment/expert'"):
        Scripted(env, "swing_up")
