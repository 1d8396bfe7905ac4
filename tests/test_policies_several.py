"""Ensembles, random actions, VAE policies and policies of several bodies."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, filled

from polyact import spaces, tree
from polyact.data.episodes import Episodes
from polyact.data.sampling import Batch
from polyact.data.source import Source
from polyact.errors import PolyactError
from polyact.nets.mlp import Network
from polyact.policies.categorical import Categorical
from polyact.policies.deterministic import Deterministic
from polyact.policies.ensemble_policy import EnsemblePolicy
from polyact.policies.gaussian import Gaussian
from polyact.policies.mixture import GaussianMixture
from polyact.policies.multibody import MultiBody
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.recurrent import Recurrent
from polyact.policies.spec import Spec
from polyact.policies.vae_policy import VAEPolicy

SEEN, DONE = spaces.Box(-1, 1, (3,)), spaces.Box(np.array([-2.0, 0.0]), np.array([4.0, 0.5]))
X = jnp.array([0.3, -0.2, 0.9])
RNG = np.random.default_rng(0)
ACT = eqx.filter_jit(lambda policy, memory: policy.act(X, memory, KEY))
LOSS = eqx.filter_jit(lambda policy, batch: policy.imitation_loss(batch, KEY))


def policies(kind, action, count=3):
    return [filled(kind.create, Spec.of(SEEN, action, 1), seed=k) for k in range(count)]


def test_mean_is_the_members_mean():
    members = policies(Deterministic, DONE)
    action, _ = ACT(EnsemblePolicy.of(members), None)
    np.testing.assert_allclose(action, np.mean([ACT(m, None)[0] for m in members], 0), rtol=1e-5)


def sure_of(*choices):
    """A categorical policy that always picks these classes, out of 4 each."""
    policy = filled(Categorical.create, Spec.of(SEEN, spaces.MultiDiscrete((4,) * len(choices)), 1))
    logits = jnp.concatenate([1e6 * jax.nn.one_hot(choice, 4) for choice in choices])
    return eqx.tree_at(lambda p: p.network.last.bias, policy, logits)


@pytest.mark.parametrize(("votes", "winner"), [([(2,), (1,), (2,)], [2]), ([(3,), (1,)], [1]), ([(0, 2), (3, 2), (3, 1)], [3, 2])])
def test_vote_is_the_majority_with_ties_to_the_smaller(votes, winner):
    ensemble = EnsemblePolicy.of([sure_of(*choices) for choices in votes], "vote")
    assert ACT(ensemble, None)[0].tolist() == winner


def test_random_member_acts_for_a_whole_episode_with_its_own_memory():
    members = policies(Recurrent, DONE)
    ensemble = EnsemblePolicy.of(members, "random")
    chosen = set()
    for seed in range(6):
        memory = ensemble.start(jax.random.key(seed))
        index, own = int(memory[0]), members[int(memory[0])].start(KEY)
        chosen.add(index)
        for _ in range(2):
            action, memory = ACT(ensemble, memory)
            expected, own = ACT(members[index], own)
            np.testing.assert_allclose(action, expected, atol=1e-6)
        assert int(memory[0]) == index
    assert len(chosen) > 1


def test_rules_must_suit_the_actions():
    with pytest.raises(PolyactError, match="no mean"):
        EnsemblePolicy.of(policies(Categorical, spaces.Discrete(3))).act(X, None, KEY)
    with pytest.raises(PolyactError, match="voted"):
        EnsemblePolicy.of(policies(Deterministic, DONE), "vote").act(X, None, KEY)
    with pytest.raises(PolyactError, match="unknown ensemble rule"):
        EnsemblePolicy.of(policies(Deterministic, DONE), "median")


@pytest.mark.parametrize("space", [DONE, spaces.Discrete(3, 2), spaces.MultiDiscrete((2, 4)), spaces.MultiBinary(3)])
def test_random_policy_samples_its_space_with_uniform_density(space):
    policy = RandomPolicy(space)
    actions = [policy.act(X, None, jax.random.key(k))[0] for k in range(20)]
    assert all(spaces.contains(space, a) for a in actions)
    volume = {"Box": 6 * 0.5, "Discrete": 3, "MultiDiscrete": 8, "MultiBinary": 8}[type(space).__name__]
    assert float(policy.log_prob(X, actions[0])) == pytest.approx(-np.log(volume), abs=1e-5)
    with pytest.raises(PolyactError, match="no uniform"):
        RandomPolicy(spaces.Box(-np.inf, np.inf, (1,))).log_prob(X, jnp.zeros(1))


def descend(policy, batch, steps, rate):
    parameters, rest = tree.trainable(policy)

    @jax.jit
    def run(parameters, key):
        def step(parameters, key):
            loss, gradient = jax.value_and_grad(lambda p: tree.combine(p, rest).imitation_loss(batch, key))(parameters)
            return jax.tree.map(lambda p, g: p - rate * g, parameters, gradient), loss

        return jax.lax.scan(step, parameters, jax.random.split(key, steps))

    parameters, losses = run(parameters, KEY)
    return tree.combine(parameters, rest), np.asarray(losses)


def test_vae_policy_learns_both_ways_where_a_mean_would_learn_neither():
    spec = Spec.of(SEEN, spaces.Box(-1, 1, (1,)), 1)
    policy = VAEPolicy.create(spec, Network(width=16, depth=1), KEY, latent=1, kl_weight=0.02)
    ways = jnp.where(jnp.arange(64) % 2, 0.8, -0.8)[:, None]
    policy, losses = descend(policy, Batch(observation=jnp.zeros((64, 3)), action=ways), 1000, 0.1)
    actions = jax.jit(jax.vmap(lambda k: policy.act(jnp.zeros(3), None, k)[0]))(jax.random.split(KEY, 200))[:, 0]
    assert losses[-1] < 0.5 * losses[0]
    assert np.mean(actions > 0.4) > 0.25
    assert np.mean(actions < -0.4) > 0.25


def source(name, embodiment, seen, done):
    return Source(
        Episodes(np.array([20]), observation=RNG.normal(2, 3, (21, seen)), action=RNG.uniform(-1, 1, (20, done))),
        name,
        embodiment=embodiment,
    )


SOURCES = [source("a", "arm", 3, 2), source("b", "leg", 5, 1), source("c", "arm", 3, 2)]
BODIES = Spec.from_sources(SOURCES, 1)


def padded(fill):
    rows = [(0, 0), (1, 1), (2, 4), (1, 7)]
    seen, done = np.full((4, 5), fill, np.float32), np.full((4, 2), fill, np.float32)
    for i, (s, row) in enumerate(rows):
        episodes = SOURCES[s].episodes
        seen[i, : episodes.observation.shape[1]] = episodes.observation[row]
        done[i, : episodes.action.shape[1]] = episodes.action[row]
    return Batch(observation=jnp.asarray(seen), action=jnp.asarray(done), source=jnp.array([s for s, _ in rows]))


@pytest.mark.parametrize(
    ("head", "kind"), [("gaussian", Gaussian), ("deterministic", Deterministic), ("mixture", GaussianMixture), (None, Gaussian)]
)
def test_the_loss_of_many_bodies_is_the_mean_of_their_own_policies_losses(head, kind):
    policy = filled(MultiBody.create, BODIES, head=head)
    batch = padded(0.0)
    losses = []
    for i, number in enumerate([0, 1, 0, 1]):
        body = BODIES.bodies[number]
        own = policy.for_body(body.name)
        assert isinstance(own, kind)
        seen, done = batch.observation[i : i + 1, : body.observation_width], batch.action[i : i + 1, : body.action_width]
        losses.append(float(LOSS(own, Batch(observation=seen, action=done))))
    assert float(LOSS(policy, batch)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_padding_never_enters():
    policy = filled(MultiBody.create, BODIES)
    value = jax.jit(jax.value_and_grad(lambda p, b: tree.combine(p, tree.trainable(policy)[1]).imitation_loss(b, KEY)))
    loss, gradient = value(tree.trainable(policy)[0], padded(0.0))
    same, equal = value(tree.trainable(policy)[0], padded(1e30))
    assert float(loss) == float(same)
    jax.tree.map(np.testing.assert_array_equal, gradient, equal)


def test_each_body_acts_at_its_own_widths_and_shares_the_trunk():
    policy = filled(MultiBody.create, BODIES)
    arm, leg = policy.for_body("arm"), policy.for_body("leg")
    assert arm.act(jnp.zeros(3), None, KEY)[0].shape == (2,)
    assert leg.act(jnp.zeros(5), None, KEY)[0].shape == (1,)
    assert arm.network.trunk is leg.network.trunk
    with pytest.raises(PolyactError, match=r"2 bodies \(arm, leg\); choose one"):
        policy.act(jnp.zeros(5), None, KEY)
    with pytest.raises(PolyactError, match="unknown body 'lge'; did you mean 'leg'"):
        policy.for_body("lge")


def test_many_bodies_learn_together():
    policy = filled(MultiBody.create, BODIES, head="deterministic")
    _, losses = descend(policy, padded(0.0), 300, 0.1)
    assert losses[-1] < 0.1 * losses[0]


def test_discrete_bodies_share_a_trunk_too():
    sources = [
        Source(
            Episodes(np.array([4]), observation=np.array([0, 1, 2, 1, 0]), action=np.array([0, 1, 2, 0])), "grid", embodiment="grid"
        ),
        Source(Episodes(np.array([2]), observation=np.array([0, 1, 1]), action=np.array([1, 0])), "chain", embodiment="chain"),
    ]
    policy = filled(MultiBody.create, Spec.from_sources(sources, 1))
    batch = Batch(observation=jnp.array([2, 1]), action=jnp.array([2, 1]), source=jnp.array([0, 1]))
    expected = -np.mean(
        [
            float(policy.for_body("grid").log_prob(jnp.asarray(2), jnp.asarray(2))),
            float(policy.for_body("chain").log_prob(jnp.asarray(1), jnp.asarray(1))),
        ]
    )
    assert float(LOSS(policy, batch)) == pytest.approx(expected, rel=1e-5)
