"""Small networks that share a commons: what they see, how they talk about limits, and how they learn to gain as much as they can.

The world of arrays of GovSim (arXiv 2404.16698): a round is a harvest, all at once, and a conversation in which every agent proposes a
limit; the group agrees on the lower median. Agents learn in groups over random commons (advantage actor-critic, own gain only).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from polyact.envs.commons import Commons, Trace
from polyact.learning.advantages import generalised_advantage
from polyact.learning.optimiser import Optimiser, descend
from polyact.nets.mlp import MLP, Network
from polyact.policies.language.base import token_scores

BINS = 21  # a wish and a proposed limit are 0, 0.05, ..., 1 times the equal share stock / n
SEEN = 12
SILENT, NUMBER, SENTENCE = 0, 1, 2  # universalization: none, with its number, without


class Said(NamedTuple):
    """What a group is told and allowed. talk: it agrees on limits; universalization: SILENT, NUMBER or SENTENCE.

    In training only: fine: per unit above the limit, and above f where the sentence was said, which nobody is told; chair: a limit
    as a share of stock / n that is announced before every harvest, whatever was agreed on (nan: nobody chairs).
    """

    talk: Array
    universalization: Array
    fine: Float[Array, "*batch"]
    chair: Float[Array, "*batch"]


class Member(eqx.Module):
    """An agent: what it takes and which limit it proposes, each with its estimate of what follows."""

    harvest: MLP
    talk: MLP

    @classmethod
    def create(cls, network: Network, key: PRNGKeyArray) -> "Member":
        first, second = jax.random.split(key)
        return cls(network.build(SEEN, BINS + 1, first), network.build(SEEN, BINS + 1, second))


class Round(NamedTuple):
    """Per round and agent: what was seen, chosen (bins) and earned, before the harvest and in the conversation after it."""

    seen: Float[Array, "*batch I"]
    bin: Int[Array, "*batch"]
    reward: Float[Array, "*batch"]
    seen_talk: Float[Array, "*batch I"]
    bin_talk: Int[Array, "*batch"]


def seen(
    commons: Commons, stock: Array, agents: Array, limit: Array, said: Said, before: Float[Array, "n 2"]
) -> Float[Array, "n I"]:
    """What agents know: the world's numbers, the limit of the last conversation, the sentence, and last round's takings (own, mean)."""
    share = jnp.maximum(stock / agents, 1e-6)
    told = (said.universalization == NUMBER) * 1.0
    heard = jnp.where(jnp.isnan(limit), 0.0, jnp.clip(limit / share, 0, 1.5))
    world = [stock / commons.capacity, commons.capacity / 100, commons.growth - 2.0, 1 / agents, ~jnp.isnan(limit) * 1.0, heard]
    sentence = [told, told * commons.threshold(stock, agents) / share, (said.universalization == SENTENCE) * 1.0, said.talk * 1.0]
    return jnp.concatenate([jnp.broadcast_to(jnp.stack(world + sentence), (len(before), SEEN - 2)), before], 1)


def play(
    commons: Commons,
    team: tuple[Member, Member],
    strong: Bool[Array, " n"],
    real: Bool[Array, " n"],
    said: Said,
    key: PRNGKeyArray,
    rounds: int,
) -> tuple[Trace, Round]:
    """`rounds` rounds among those who are `real`; `team`: (weak, strong) and who is strong. All wishes are at most an equal share."""
    agents = real.sum() * 1.0
    nobody = jnp.full((), jnp.nan)

    def choose(part: str, looks: Array, key: PRNGKeyArray) -> Array:
        weak, able = (jax.vmap(getattr(member, part))(looks)[:, :BINS] for member in team)
        return jax.random.categorical(key, jnp.where(strong[:, None], able, weak))

    def month(carry: tuple[Array, ...], key: PRNGKeyArray):
        stock, alive, limit, before = carry
        first, second, third = jax.random.split(key, 3)
        looks = seen(commons, stock, agents, limit, said, before)
        chosen = choose("harvest", looks, first)
        wish = jnp.where(real, _units(stock / agents, chosen), 0.0)
        taken = commons.allocate(stock, wish, second, UNITS)
        f = commons.threshold(stock, agents)
        over = jnp.where(jnp.isnan(limit), 0.0, jnp.maximum(0.0, wish - limit))
        over = over + jnp.where(said.universalization == SILENT, 0.0, jnp.maximum(0.0, wish - f))
        reward = (taken - said.fine * over) / (commons.capacity / agents)
        left = stock - taken.sum()
        goes_on, following = alive & ~commons.lost(left), commons.grown(left)
        share = jnp.maximum(following / agents, 1e-6)
        before = jnp.stack([taken, jnp.broadcast_to(taken.sum() / agents, taken.shape)], 1) / jnp.maximum(stock / agents, 1e-6)
        looks_after = seen(commons, following, agents, nobody, said, before)
        proposed = choose("talk", looks_after, third)
        agreed = jnp.where(jnp.isnan(said.chair), lower_median(proposed, real), (BINS - 1) * said.chair)
        limit = jnp.where(said.talk, _units(share, agreed), jnp.nan)
        trace = Trace(stock, alive, goes_on, wish, taken, f)
        return (following, goes_on, limit, before), (trace, Round(looks, chosen, reward, looks_after, proposed))

    capacity = jnp.asarray(commons.capacity, jnp.float32)
    told = jnp.where(said.talk, _units(capacity / agents, (BINS - 1) * said.chair), jnp.nan)
    start = (capacity, jnp.asarray(True), told, jnp.zeros((len(real), 2)))
    return jax.lax.scan(month, start, jax.random.split(key, rounds))[1]


def _units(share: Array, chosen: Array) -> Array:
    """The nearest whole number, of two the smaller."""
    return jnp.ceil(share * chosen / (BINS - 1) - 0.5 - 1e-4)


def lower_median(proposed: Int[Array, " n"], real: Bool[Array, " n"]) -> Int[Array, ""]:
    """The smallest proposal that half of those who are real do not exceed."""
    below = ((proposed[None, :] <= proposed[:, None]) & real[None, :]).sum(1)
    return jnp.where(real & (2 * below >= real.sum()), proposed, BINS).min()


UNITS = 200  # no commons here holds more


class Training(eqx.Module):
    """How agents learn: advantage actor-critic in groups of equals over random commons. fine: per unit, in the hidden half of
    them. guests: share of the groups in which one agent is another kind.
    """

    discount: float | Array
    optimiser: Optimiser = Optimiser(learning_rate=5e-3, schedule="linear", final=0.1, clip_norm=1.0)
    network: Network = Network(width=32, final_scale=0.01)
    updates: int = eqx.field(static=True, default=600)
    groups: int = eqx.field(static=True, default=64)
    most: int = eqx.field(static=True, default=6)
    rounds: int = eqx.field(static=True, default=12)
    guests: float | Array = 0.0
    entropy: float = 0.01
    trace: float = 0.95
    fine: float = 3.0


def random_group(settings: Training, key: PRNGKeyArray) -> tuple[Commons, Bool[Array, " n"], Said]:
    """A commons with growth 1.5 to 3, capacity 50 to 150 and 3 to `most` agents; talk in half of them, under a chair with
    random limits in a quarter, the sentence in half."""
    a, b, c, d, e, f, g, h = jax.random.split(key, 8)
    capacity = jnp.round(jax.random.uniform(a, (), minval=50.0, maxval=150.0))
    commons = Commons(capacity, jax.random.uniform(b, (), minval=1.5, maxval=3.0), 0.05 * capacity, unit_by_unit=False)
    real = jnp.arange(settings.most) < jax.random.randint(c, (), 3, settings.most + 1)
    kind = jax.random.choice(d, jnp.array([SILENT, SILENT, NUMBER, SENTENCE]))
    chair = jnp.where(jax.random.bernoulli(g), jax.random.uniform(h), jnp.nan)
    said = Said(jax.random.bernoulli(e), kind, settings.fine * jax.random.bernoulli(f), chair)
    return commons, real, said


@eqx.filter_jit
def meta_train(settings: Training, other: Member, key: PRNGKeyArray) -> Member:
    """An agent that gains as much as it can, over random commons, among agents like itself and perhaps one who is `other`."""
    begin, key = jax.random.split(key)
    member = Member.create(settings.network, begin)
    arrays, static = eqx.partition((member, settings.optimiser.init(member, settings.updates)), eqx.is_array)

    def update(arrays: Any, key: PRNGKeyArray) -> tuple[Any, None]:
        member, state = eqx.combine(arrays, static)
        worlds, games, guests = jax.random.split(key, 3)
        commons, real, said = jax.vmap(lambda k: random_group(settings, k))(jax.random.split(worlds, settings.groups))
        guest = jax.random.bernoulli(guests, settings.guests, (settings.groups, 1))
        own = ~(guest & (jnp.arange(settings.most) == 0))  # all seats are alike

        def game(commons: Commons, own: Array, real: Array, said: Said, key: PRNGKeyArray) -> tuple[Trace, Round]:
            return play(commons, (other, member), own, real, said, key, settings.rounds)

        trace, rounds = jax.vmap(game)(commons, own, real, said, jax.random.split(games, settings.groups))
        member, state, _ = descend(lambda m: _loss(settings, m, trace, rounds, real & own, said), member, settings.optimiser, state)
        return eqx.filter((member, state), eqx.is_array), None

    return eqx.combine(jax.lax.scan(update, arrays, jax.random.split(key, settings.updates))[0], static)[0]


def _loss(settings: Training, member: Member, trace: Trace, rounds: Round, real: Array, said: Said) -> tuple[Array, Array]:
    """Of harvests, and of proposals, whose reward is that of the next harvest. Where the stock is lost nothing follows."""
    agents = real[:, None, :]
    played, lost = trace.alive[..., None] & agents, ~trace.survived[..., None] & agents
    spoken = trace.survived[:, :-1, None] & agents & said.talk[:, None, None]
    harvest = _part(settings, member.harvest, rounds.seen, rounds.bin, rounds.reward, lost, played)
    talk = _part(
        settings, member.talk, rounds.seen_talk[:, :-1], rounds.bin_talk[:, :-1], rounds.reward[:, 1:], lost[:, 1:], spoken
    )
    return harvest + talk, harvest


def _part(
    settings: Training, network: MLP, looks: Array, chosen: Array, reward: Array, ended: Array, counted: Array
) -> Float[Array, ""]:
    """Advantage actor-critic over [groups, T, n]; the last value stands for what follows the last round."""
    out = jax.vmap(jax.vmap(jax.vmap(network)))(looks)
    logp, entropy = token_scores(out[..., :BINS], chosen)
    value = out[..., BINS]
    reward, now, ended = (jnp.swapaxes(x, 0, 1) * 1.0 for x in (reward, jax.lax.stop_gradient(value), ended))
    following = jnp.concatenate([now[1:], now[-1:]])
    advantage = generalised_advantage(reward, now, following, ended, ended, settings.discount, settings.trace)
    advantage, now = jnp.swapaxes(advantage, 0, 1), jnp.swapaxes(now, 0, 1)
    weight = counted / jnp.maximum(counted.sum(), 1.0)
    mean = (weight * advantage).sum()
    spread = jnp.sqrt((weight * (advantage - mean) ** 2).sum()) + 1e-6
    judged = -logp * (advantage - mean) / spread - settings.entropy * entropy + 0.5 * (value - now - advantage) ** 2
    return (weight * judged).sum()


def scripted(script: str) -> Member:
    """'random': all wishes alike; 'greedy': always the equal share."""
    network = Network(width=1, depth=0).build(SEEN, BINS + 1, jax.random.key(0))
    still = jax.tree.map(lambda x: 0 * x if eqx.is_array(x) else x, network)
    if script == "greedy":
        still = eqx.tree_at(lambda n: n.last.bias, still, still.last.bias.at[BINS - 1].set(1e4))
    return Member(still, still)
