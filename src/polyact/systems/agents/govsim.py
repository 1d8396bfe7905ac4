"""Do agents who talk keep a common stock alive? A commons dilemma with its measures of cooperation (GovSim; arXiv 2505.09289, 2404.16698).

Every month all agents say at once how much they take, the takings are shown, they agree on a limit, and what is left doubles; with less
than 5 left the stock is lost. `universalization` is one sentence: "if everyone takes more than f, the stock will shrink". Language models
play it as text (`acting.commons_text`). Here small networks stand for them: weak ones do not plan (discount 0.3), strong ones do (0.99),
both trained over random commons to gain as much as they can for themselves, weak ones among their like, strong ones in half of the
commons with a weak one. What language models bring from their reading, that what was said binds, these have from training, where a hidden
half of the commons fines what is taken above the agreed limit, and above f where the sentence was said, with its number or without; in the
commons that are judged nobody is fined.

Measured (5 test seeds): weak agents lose the stock after 1.1 months of 12 [1.0, 1.4] and keep it for all 12 when the sentence is said,
10.9 [10.7, 11.0] longer; strong ones who talk keep it for 12 at every seed. Without talk a weak agent among strong ones takes too much as
often as among weak ones (0.999 and 1.000 of its wishes). Not shown: the sentence without its number helps as much (12 months as well),
presumably because these networks see growth and stock and learn f from fines; and talk hardly pulls the weak one along, it takes too much
in 0.95 of its wishes, 0.043 [-0.011, 0.188] less often than among weak ones and 0.049 [-0.003, 0.187] less than without talk, where 0.05
was asked of both (on tuning seed 1 it was 0.36). Two more things to know: strong agents need no talk (12 months in silence), and wishes at
random keep the stock for 11.8 months, for half of an equal share, their mean, is what grows back. Trained again under other keys, the weak
kept it for 1.1, 1.1, 1.0, 4.7 and 4.1 months (2.4 on average): collapse within 4 is the rule, not certain. No placebo holds.
"""

import os
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from polyact.acting.commons_text import Protocol, play_text
from polyact.claims.card import Card
from polyact.claims.claim import Arm, Beats, Budget, Claim, Experiment, Metrics, Scale, Within
from polyact.envs.commons import Commons, Trace
from polyact.learning.commons_players import NUMBER, SENTENCE, SILENT, Member, Said, Training, meta_train, play, scripted
from polyact.policies.language.endpoint import Endpoint


def measures(trace: Trace, first_threshold: float) -> dict[str, Any]:
    """survival: rounds played, the one that lost the stock included; efficiency u = 1 - max(0, T f_0 n - sum R) / (T f_0 n), with all T
    rounds, played or not; equality e = 1 - sum_ij |R_i - R_j| / (2 n sum R); over_usage: share of wishes above f, over_usage_of [n]: by
    agent.
    """
    played = trace.alive[:, None]
    gain, rounds, agents = jnp.where(played, trace.taken, 0.0).sum(0), len(trace.stock), trace.taken.shape[1]
    best = rounds * first_threshold * agents
    apart = jnp.abs(gain[:, None] - gain[None, :]).sum()
    above = jnp.where(played, trace.wish > trace.threshold[:, None], False).sum(0)
    return {
        "survival": trace.alive.sum() * 1.0,
        "gain": gain.mean(),
        "efficiency": 1 - jnp.maximum(0.0, best - gain.sum()) / best,
        "equality": 1 - apart / jnp.maximum(2 * agents * gain.sum(), 1e-9),
        "over_usage": above.sum() / (trace.alive.sum() * agents),
        "over_usage_of": above / trace.alive.sum(),
    }


CARD = Card(
    slug="govsim",
    name="GovSim",
    title="Reproducibility Study of Cooperate or Collapse: Emergence of Sustainable Cooperation in a Society of LLM Agents",
    arxiv="2505.09289",
    family="agents",
    kind="world",
    summary="a commons dilemma with talk for arrays or language models: do agents keep the shared stock alive, and who takes too much?",
    usage="""
import jax
from polyact.acting.commons_text import Protocol, play_text
from polyact.policies.language.endpoint import Endpoint
from polyact.systems.agents.govsim import Commons, measures
model = Endpoint("http://localhost:8000/v1", "some-model")
history = play_text(Commons(), [model] * 5, model, Protocol(universalization=True), jax.random.key(0))
print(measures(history.trace, 10.0), history.limits)
""",
)


@dataclass(frozen=True)
class Team:
    """strong: how many of five plan; script: plays at random or takes its equal share instead ('random', 'greedy', or '')."""

    strong: int = 0
    talk: bool = True
    universalization: int = SILENT
    script: str = ""


@dataclass(frozen=True)
class Sizes:
    """updates, groups: of training; episodes of twelve months judged."""

    updates: int
    groups: int
    episodes: int


@dataclass(frozen=True)
class Served:
    """Language models behind an endpoint play the text protocol: runs per seed."""

    runs: int


KINDS = ((0.3, 0.0), (0.99, 0.5))  # discount, and in which share of the groups a weak agent is a guest: weak, strong


def prepare(key: PRNGKeyArray, sizes: Sizes | Served) -> tuple[Member, Member] | None:
    """The weak and the strong agent of a seed, from the same initial weights and commons."""
    if isinstance(sizes, Served):
        return None
    weak, strong = (Training(jnp.asarray(d), updates=sizes.updates, groups=sizes.groups, guests=jnp.asarray(g)) for d, g in KINDS)
    first = meta_train(weak, Member.create(weak.network, key), key)
    return first, meta_train(strong, first, key)


def measure(key: PRNGKeyArray, team: Team, sizes: Sizes | Served, prepared: Any) -> Metrics:
    """Means over episodes of `measures`; over_usage_last: of the fifth agent, the only weak one of a team with four strong ones."""
    if isinstance(sizes, Served):
        found = [_served(jax.random.fold_in(key, run), team) for run in range(sizes.runs)]
    else:
        members = (scripted(team.script), scripted(team.script)) if team.script else prepared
        told = Said(jnp.asarray(team.talk), jnp.asarray(team.universalization), jnp.zeros(()), jnp.asarray(jnp.nan))
        found = [_judged(members, jnp.arange(AGENTS) < team.strong, told, key, sizes.episodes)]
    mean = {name: float(np.mean([np.asarray(one[name]) for one in found])) for name in found[0] if name != "over_usage_of"}
    return mean | {"over_usage_last": float(np.mean([np.asarray(one["over_usage_of"])[..., -1] for one in found]))}


AGENTS, ROUNDS = 5, 12


@eqx.filter_jit
def _judged(
    members: tuple[Member, Member], strong: Bool[Array, " n"], told: Said, key: PRNGKeyArray, episodes: int
) -> dict[str, Array]:
    commons, everyone = Commons(), jnp.ones(AGENTS, bool)

    def episode(key: PRNGKeyArray) -> dict[str, Array]:
        trace, _ = play(commons, members, strong, everyone, told, key, ROUNDS)
        return measures(trace, 10.0)

    return jax.tree.map(lambda x: x.mean(0), jax.vmap(episode)(jax.random.split(key, episodes)))


def _served(key: PRNGKeyArray, team: Team) -> dict[str, Any]:
    """One run of the text protocol. The sentence always has its number there."""
    url = os.environ["POLYACT_ENDPOINT"]
    weak, strong = (Endpoint(url, os.environ[f"POLYACT_{kind}_MODEL"]) for kind in ("WEAK", "STRONG"))
    agents = [strong] * team.strong + [weak] * (AGENTS - team.strong)
    protocol = Protocol(utterances=10 if team.talk else 0, universalization=team.universalization != SILENT)
    return measures(play_text(Commons(), agents, strong, protocol, key).trace, 10.0)


def _no_server() -> str:
    """Why language models can't play here."""
    wanted = [name for name in ("POLYACT_ENDPOINT", "POLYACT_WEAK_MODEL", "POLYACT_STRONG_MODEL") if name not in os.environ]
    return f"not set: {', '.join(wanted)}" if wanted else ""


EXPERIMENT = Experiment(
    measure,
    {
        "strong": Arm("system", "five who plan, with talk", Team(5)),
        "strong, silent": Arm("ablation", "five who plan, without talk", Team(5, talk=False)),
        "weak": Arm("ablation", "five who do not plan, with talk, without the sentence", Team()),
        "weak, silent": Arm("baseline", "five who do not plan, without talk", Team(talk=False)),
        "weak, sentence": Arm("system", "five who do not plan, with talk and the sentence", Team(universalization=NUMBER)),
        "weak, no number": Arm("ablation", "the sentence without its number", Team(universalization=SENTENCE)),
        "one weak": Arm("system", "four who plan and one who does not, with talk", Team(4)),
        "one weak, silent": Arm("ablation", "four who plan and one who does not, without talk", Team(4, talk=False)),
        "random": Arm("baseline", "wishes at random", Team(script="random")),
        "greedy": Arm("baseline", "everybody takes the equal share of all there is", Team(script="greedy")),
    },
    {
        "smoke": Scale(2, Sizes(10, 16, 10)),
        "laptop": Scale(5, Sizes(600, 64, 100)),
        "paper": Scale(
            5,
            Served(5),
            "an OpenAI-compatible endpoint at $POLYACT_ENDPOINT that serves $POLYACT_WEAK_MODEL and $POLYACT_STRONG_MODEL",
            _no_server,
        ),
    },
    testbed="five agents, a stock of 100 that doubles, 12 months, 100 episodes; networks in the place of language models",
    budget=Budget(
        data="no data; 600 x 64 random commons of 12 months for either agent",
        steps="600 updates",
        network="2 x 32 units for the harvest and as many for the talk",
        tuning="on seeds 0 and 1: how wishes are rounded, random limits in training, updates; alike for weak and strong",
    ),
    prepare=prepare,
    runner="threads",
)

CLAIMS = (
    Claim(
        "universalization",
        "the sentence with its number lets weak agents keep the stock at least a month longer",
        EXPERIMENT,
        "survival",
        Beats("weak, sentence", {"weak": 1.0}),
    ),
    Claim("weak collapse", "five weak agents lose the stock within 4 months", EXPERIMENT, "survival", Within("weak", high=4.0)),
    Claim(
        "strong sustain", "five strong agents who talk keep it for at least 11", EXPERIMENT, "survival", Within("strong", low=11.0)
    ),
    Claim(
        "the number helps",
        "a sentence without the number helps less",
        EXPERIMENT,
        "survival",
        Beats("weak, sentence", {"weak, no number": 0.0}),
    ),
    Claim(
        "pulled along by talk",
        "a weak agent among four strong ones takes too much less often than among weak ones when they talk, and than when they do not",
        EXPERIMENT,
        "over_usage_last",
        Beats("one weak", {"weak": 0.05, "one weak, silent": 0.05}),
        better="lower",
    ),
    Claim(
        "not without talk",
        "without talk it takes too much as often as among weak ones (at most 5 points less)",
        EXPERIMENT,
        "over_usage_last",
        Beats("one weak, silent", {"weak, silent": -0.05}),
    ),
)
