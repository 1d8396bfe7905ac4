"""Ways to say that several actions are good: bins, clusters with offsets, scores. And cloning inside a compiled program."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, filled

from polyact import saving, spaces
from polyact.acting.demonstrations import demonstrations
from polyact.data.sampling import Batch, Chunks
from polyact.envs.point_navigation import left_or_right, pass_left, pass_right
from polyact.errors import PolyactError
from polyact.learning.clone import clone, drawn_rows, minimise
from polyact.learning.optimiser import Optimiser
from polyact.nets.mlp import Network
from polyact.policies.binned import Binned
from polyact.policies.clustered import Clustered, kmeans
from polyact.policies.implicit import Implicit
from polyact.policies.spec import Spec

SPEC = Spec.of(spaces.Box(-1, 1, (1,)), spaces.Box(-2, 2, (2,)), 10)
NET = Network(width=32, depth=1, init="lecun")
TWO = jnp.array([[-0.6, 0.6], [0.6, -0.6]])  # in unit coordinates


def drawn(policy, count=600):
    act = lambda p, k: p.body.to_unit(p.act(jnp.ones(1), None, k)[0])  # noqa: E731
    return np.asarray(eqx.filter_jit(jax.vmap(act, (None, 0)))(policy, jax.random.split(KEY, count)))


def data(count=2000, left=0.25):
    side, move = jax.random.split(KEY)
    mode = jnp.where(jax.random.uniform(side, (count,)) < left, 0, 1)
    unit = TWO[mode] + 0.05 * jax.random.normal(move, (count, 2))
    return Batch(observation=jnp.ones((count, 1)), action=2 * unit)


cloned = eqx.filter_jit(
    lambda policy, rows, steps: clone(
        policy, rows, steps=steps, key=KEY, batch_size=128, optimiser=Optimiser(3e-3, schedule="cosine")
    )
)


def share_near(actions, centre):
    return np.mean(np.linalg.norm(actions - np.asarray(centre), axis=1) < 0.3)


def test_clusters_learn_both_modes_in_their_shares():
    actions = drawn(cloned(Clustered.around(SPEC, NET, 0.8 * TWO, KEY), data(), 600))
    assert share_near(actions, TWO[0]) == pytest.approx(0.25, abs=0.08)
    assert share_near(actions, TWO[1]) == pytest.approx(0.75, abs=0.08)


class TwoModes(eqx.Module):
    """The exact log density, up to a constant, of two Gaussians with weights 1 and 3."""

    def __call__(self, x):
        return jax.nn.logsumexp(-jnp.square(x[1:] - TWO).sum(-1) / (2 * 0.1**2), b=jnp.array([1.0, 3.0]))[None]


def test_exact_scores_are_drawn_from_and_learned_ones_tell_modes_from_the_rest():
    policy = filled(Implicit.create, SPEC, negatives=16, candidates=128)
    actions = drawn(eqx.tree_at(lambda p: p.network, policy, TwoModes()), 1000)
    assert share_near(actions, TWO[0]) == pytest.approx(0.25, abs=0.06)
    assert np.std(actions[actions[:, 0] > 0], axis=0) == pytest.approx(0.1, abs=0.02)
    learned = cloned(Implicit.create(SPEC, NET, KEY, negatives=16, candidates=128), data(), 600)
    scores = eqx.filter_jit(learned.scores)(jnp.ones(1), jnp.concatenate([TWO, -TWO * jnp.array([[1.0, -1.0]])]))
    assert scores[:2].min() > scores[2:].max() + 2


def test_bins_learn_each_entry_and_lose_what_they_have_in_common():
    actions = drawn(cloned(Binned.create(SPEC, NET, KEY), data(left=0.5), 800))
    assert np.mean(np.abs(np.abs(actions) - 0.6) < 0.2) > 0.95
    assert np.mean(actions[:, 0] * actions[:, 1] > 0) == pytest.approx(0.5, abs=0.08)


def test_bins_of_known_logits_are_drawn_evenly_within():
    policy = filled(Binned.create, SPEC, bins=4)
    only = eqx.tree_at(lambda p: p.network.last.bias, policy, jnp.array([-99.0, 99, -99, -99, -99, -99, -99, 99]))
    actions = drawn(only)
    assert np.all((actions[:, 0] >= -0.5) & (actions[:, 0] <= 0) & (actions[:, 1] >= 0.5))
    assert actions[:, 0].mean() == pytest.approx(-0.25, abs=0.02)
    inside = Batch(observation=jnp.zeros((1, 1)), action=jnp.array([[-0.4, 1.9]]))
    assert float(only.imitation_loss(inside, KEY)) == pytest.approx(0, abs=1e-5)


def test_kmeans_finds_the_means_of_separate_clusters():
    centres = jnp.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    points = (centres[:, None] + 0.1 * jax.random.normal(KEY, (3, 50, 2))).reshape(-1, 2)
    found = kmeans(points, 3, KEY)
    order = jnp.argmin(jnp.square(centres[:, None] - found).sum(-1), -1)
    np.testing.assert_allclose(found[order], points.reshape(3, 50, 2).mean(1), atol=1e-5)


@pytest.mark.parametrize("offsets", [True, False])
def test_a_cluster_without_an_offset_is_its_centre(offsets):
    policy = Clustered.around(SPEC, NET, TWO, KEY, offsets=offsets)
    _, actions = policy.outputs(jnp.ones(1))
    assert np.allclose(actions, TWO) != offsets


@pytest.mark.parametrize("kind", [Binned, Implicit])
def test_what_needs_bounds_says_so_and_comes_back_from_a_file(kind, tmp_path):
    free = Spec.of(spaces.Box(-1, 1, (1,)), spaces.Box(-np.inf, np.inf, (1,)), 10, actions=np.zeros((3, 1)))
    with pytest.raises(PolyactError, match="bounds"):
        kind.create(free, NET, KEY)
    policy = filled(kind.create, SPEC)
    back = saving.load(saving.save(policy, tmp_path / "p"), kind)
    np.testing.assert_array_equal(drawn(back, 3), drawn(policy, 3))


def test_minimise_reaches_the_minimum_and_averages_weights():
    module = {"x": jnp.array([3.0]), "n": 3}
    loss = lambda m, key: jnp.square(m["x"] - 1).sum()  # noqa: E731
    end = minimise(loss, module, steps=1000, key=KEY, optimiser=Optimiser(1e-2, schedule="cosine"))
    assert float(end["x"][0]) == pytest.approx(1, abs=1e-2)
    assert end["n"] == 3
    late = minimise(loss, module, steps=200, key=KEY, decay=0.99)
    now = minimise(loss, module, steps=200, key=KEY)
    assert float(late["x"][0]) > float(now["x"][0])


def test_demonstrations_go_both_ways_and_their_rows_have_one_shape():
    env = left_or_right()
    episodes = demonstrations(env, [pass_left, pass_right], 3, KEY)
    assert episodes.count == 6
    middle = [np.abs(p.observation[:, 1]).argmin() for p in map(episodes.episode, range(6))]
    sides = [np.sign(episodes.episode(i).observation[m, 0]) for i, m in enumerate(middle)]
    assert sides == [-1, -1, -1, 1, 1, 1]
    rows = drawn_rows(episodes, Chunks(4), 50, KEY)
    assert rows.action.shape == (50, 4, 2)
    assert rows.mask.shape == (50, 4)
    known = {tuple(a) for a in np.round(np.asarray(episodes.action), 5).tolist()}
    assert all(tuple(a) in known for a in np.round(np.asarray(rows.action[:, 0]), 5).tolist())
