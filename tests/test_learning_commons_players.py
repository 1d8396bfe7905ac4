"""Networks that share a commons: what is said is what is seen and fined, talk agrees on a median, and who does not plan takes all."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from polyact.envs.commons import Commons
from polyact.learning.commons_players import (
    BINS,
    NUMBER,
    SENTENCE,
    SILENT,
    Said,
    Training,
    lower_median,
    meta_train,
    play,
    random_group,
    scripted,
    seen,
)
from polyact.nets.mlp import Network

KEY = jax.random.key(0)


def said(talk=False, kind=SILENT, fine=0.0, chair=jnp.nan):
    return Said(jnp.asarray(talk), jnp.asarray(kind), jnp.asarray(fine), jnp.asarray(chair))


def test_greedy_teams_lose_everything_at_once_and_half_the_share_is_for_ever():
    members = scripted("greedy"), scripted("greedy")
    trace, _ = play(Commons(), members, jnp.zeros(5, bool), jnp.ones(5, bool), said(), KEY, 12)
    assert trace.alive.sum() == 1
    half = jax.tree.map(lambda x: x, scripted("random"))
    half = type(half)(_always(half.harvest, (BINS - 1) // 2), _always(half.talk, 5))
    trace, rounds = play(Commons(), (half, half), jnp.zeros(5, bool), jnp.ones(5, bool), said(talk=True), KEY, 12)
    assert trace.stock.tolist() == [100.0] * 12
    assert trace.wish.tolist() == [[10.0] * 5] * 12
    heard = rounds.seen[:, 0, 4:6]
    np.testing.assert_allclose(heard, [[0, 0], *[[1, 0.25]] * 11])


def _always(network, chosen):
    return eqx.tree_at(lambda n: n.last.bias, network, jnp.full(BINS + 1, -1e4).at[chosen].set(1e4))


def test_the_threshold_is_seen_only_with_its_number():
    def looks(kind):
        nobody = jnp.asarray(jnp.nan)
        return seen(Commons(), jnp.asarray(100.0), jnp.asarray(5.0), nobody, said(kind=kind), jnp.zeros((5, 2)))[0, 6:9].tolist()

    assert [looks(SILENT), looks(NUMBER), looks(SENTENCE)] == [[0, 0, 0], [1, 0.5, 0], [0, 0, 1]]


def test_fines_are_for_what_is_above_f_where_the_sentence_was_said():
    members = scripted("greedy"), scripted("greedy")
    for kind, fined in ((SILENT, 0.0), (NUMBER, 30.0), (SENTENCE, 30.0)):
        _, rounds = play(Commons(), members, jnp.zeros(5, bool), jnp.ones(5, bool), said(kind=kind, fine=3.0), KEY, 1)
        np.testing.assert_allclose(rounds.reward[0], (20 - fined) / 20)


def test_agreement_is_the_lower_median_of_those_who_are_there():
    real = jnp.array([True, True, True, True, False])
    assert int(lower_median(jnp.array([4, 9, 1, 7, 0]), real)) == 4
    assert int(lower_median(jnp.array([4, 9, 1, 7, 0]), jnp.ones(5, bool))) == 4


def test_absent_agents_take_nothing():
    members = scripted("greedy"), scripted("greedy")
    trace, _ = play(Commons(), members, jnp.zeros(6, bool), jnp.arange(6) < 4, said(), KEY, 1)
    assert trace.taken[0].tolist() == [25, 25, 25, 25, 0, 0]


def test_random_groups_are_what_they_should_be():
    commons, real, told = jax.vmap(lambda k: random_group(Training(jnp.asarray(0.9)), k))(jax.random.split(KEY, 400))
    assert bool(jnp.all((commons.growth >= 1.5) & (commons.growth <= 3) & (real.sum(1) >= 3)))
    assert set(np.asarray(told.fine).tolist()) == {0.0, 3.0}
    assert abs(float(told.talk.mean()) - 0.5) < 0.1


def test_an_agent_who_does_not_plan_learns_to_take_all():
    """With no discounting ahead, no fines and nothing said, the equal share is the best reply to anything."""
    settings = Training(jnp.asarray(0.0), network=Network(width=16), updates=60, groups=16, rounds=2, fine=0.0)
    member = meta_train(settings, scripted("greedy"), KEY)
    trace, _ = play(Commons(), (member, member), jnp.zeros(5, bool), jnp.ones(5, bool), said(), KEY, 1)
    assert float(trace.wish.mean()) > 17


def test_a_chair_announces_a_limit_before_every_harvest():
    members = scripted("random"), scripted("random")
    _, rounds = play(Commons(), members, jnp.zeros(5, bool), jnp.ones(5, bool), said(talk=True, chair=0.4), KEY, 1)
    np.testing.assert_allclose(rounds.seen[0, 0, 4:6], [1, 0.4])
