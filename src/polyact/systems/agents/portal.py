"""Writes behaviour trees for a game and improves them from what the games show (PORTAL, arXiv 2503.13356).

A policy is a tree: its structure, neural tasks (here: aiming, trained once) and rule tasks. A proposer writes the tree in a small
language; it plays; statistics and a critic's remarks go back to the proposer, which writes a better one. Nothing is asked of the proposer
while the game runs: a tree is ticked as arrays. The proposer is any language model behind `learning.refine.Proposer`; offline it is a
grammar with a belief over trees that it learns from what it is told (`learning.tree_editor`), and the critic reads logged positions
instead of pictures (`evaluation.map_trace`). The last accepted tree is the result; or the last few stay, and a light network picks at run
time which of them acts (`switching`).

Measured (150 trees of 64 games, 16 seeds from 1000, 205 s): feedback wins 0.146 [0.063, 0.238] more of the games than the best of as many
trees without, 0.62 against 0.47; random edits of the best tree win 0.57, 0.055 [-0.045, 0.153] less (not shown; 19 % power). On held-out
maps trees win 0.011 [-0.004, 0.025] less. With 100 trees of 32 games (five seeds from 1000) trees with learned aiming win 0.06 [-0.09,
0.17] more than rules alone (not shown) and 0.47 [0.30, 0.63] more than PPO with as many steps; a tick takes a 67,000th of a call of the
proposer; a network that picks among the last four trees every 6 ticks wins 0.07 [0.02, 0.22] more than picking at random, no more than
the last tree alone (0.002 [-0.07, 0.03]), and 0.10 [-0.18, 0.71] more than the last tree of a longer search (not shown).

What it took: a proposer that regressed the gain of an edit on the words it adds won no more than random edits did (0.49 of the games with
150 trees of 64, on tuning seeds), and feedback was not shown by 40 seeds (0.092 [0.027, 0.155] with 100 of 32). A belief over what trees
do on made-up boards, and which words say it, won 0.62 to 0.67 on tuning seeds, with or without the statistics that explain scores. The
tree written by hand wins 0.62 as well, steadily, where what the loop ends with varies much (deviation over seeds 0.14). No placebo is
shown (from 4000).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from polyact.acting.rollout import rollout
from polyact.acting.tree_games import Games
from polyact.claims.card import Card
from polyact.claims.claim import Arm, Beats, Budget, Claim, Experiment, Metrics, Scale, Within
from polyact.composition.switching import SwitchActions, Switched
from polyact.data.episodes import Episodes
from polyact.envs.families import Family
from polyact.envs.skirmish.skirmish import skirmishes
from polyact.envs.skirmish.view import WIDTH
from polyact.evaluation.map_trace import remarks, tactics
from polyact.learning.actor import Actor
from polyact.learning.optimiser import Optimiser
from polyact.learning.ppo import PPO
from polyact.learning.refine import Ledger, Outcome, Proposer, RandomEdits, feedback, no_feedback, refine
from polyact.learning.skirmish_aim import learn_to_aim
from polyact.learning.train import train
from polyact.learning.tree_editor import TreeEditor
from polyact.nets.mlp import Network
from polyact.policies.base import Policy, greedy
from polyact.policies.behaviour_tree.check import Vocabulary, check
from polyact.policies.behaviour_tree.policy import BehaviourTree
from polyact.policies.behaviour_tree.sample import random_edit, random_tree
from polyact.policies.behaviour_tree.skirmish import LEARNED, SkirmishLeaves
from polyact.policies.behaviour_tree.syntax import Node, parse, unparse
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.team import SharedCategorical, Team
from polyact.spaces import Discrete

GAME = """You write behaviour trees for one fighter of a team of two, who fight two others in an arena of 16 x 16 cells with walls and
cover. Both fighters run the same tree, once per tick. In a tick each may move by one cell, turn its aim and shoot; a shot hits with luck if
the aim is right when the target has moved, and half as often behind cover. First think about which situations there are and what to do in
each; then write one tree. Answer with the tree alone. A tree that scores more wins more games."""
BY_HAND = """
(selector
  (sequence (condition enemy-visible) (condition reloaded) (parallel 2 (task take-cover) (task shoot-learned)))
  (sequence (condition enemy-visible) (parallel 2 (task hide) (task aim)))
  (parallel 1 (task advance) (task aim)))
"""
TREES, EVERY = 4, 6  # how many trees a network may pick from, and after how many ticks it does so again


def portal(
    games: Games,
    leaves: SkirmishLeaves,
    proposer: Proposer,
    *,
    budget: int,
    key: PRNGKeyArray,
    batch: int = 5,
    tell: Callable[[str], Callable[[Ledger], str]] = feedback,
    allowed: Vocabulary | None = None,
) -> Ledger:
    """The refinement loop: `budget` trees, each of which plays the same games; the last accepted trial of the ledger is the result.

    tell: makes the prompts from the description of the task (`feedback`, or `no_feedback` for the control). allowed: a smaller
    vocabulary to write in.
    """
    vocabulary, (games_key, loop_key) = allowed or leaves.vocabulary, jax.random.split(key)

    def evaluate(trees: Sequence[Node]) -> list[Outcome]:
        padded = [*trees, *[trees[0]] * (batch - len(trees))]
        played = games.play(padded, leaves, jnp.stack([games_key] * batch))
        return [judged(tree, episodes) for tree, episodes in zip(trees, played, strict=False)]

    task = f"{GAME}\n\n{vocabulary.describe()}"
    return refine(
        proposer, tell(task), lambda text: check(parse(text), vocabulary), evaluate, budget=budget, key=loop_key, batch=batch
    )


def switching(
    ledger: Ledger, leaves: SkirmishLeaves, maps: Family, *, steps: int, key: PRNGKeyArray, trees: int = TREES, every: int = EVERY
) -> Switched:
    """The last accepted trees with a network that says every few ticks which of them both fighters run, trained by PPO.

    steps: ticks of the game to train it on. trees: how many stay at most.
    """
    members = last_trees(ledger, leaves, trees)
    worlds = SwitchActions.of(maps.spread(ABREAST).members, members, every)
    wide = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (ABREAST, *jnp.shape(leaf))), worlds.members)
    worlds = Family(eqx.tree_at(lambda world: world.members, worlds, wide))
    chooser = train(CHOOSER, worlds, steps=steps // every, key=key, progress=False).policy
    return Switched.of(members, greedy(chooser), every)


def last_trees(ledger: Ledger, leaves: SkirmishLeaves, trees: int) -> list[Team]:
    """The last accepted ones, at most so many, as policies of the whole team."""
    return [Team(BehaviourTree.of(trial.artefact, leaves)) for trial in ledger.accepted[-trees:]]


def judged(tree: Node, episodes: Episodes) -> Outcome:
    """Scores per game (1 for a win, and a tenth of the lead in health, which orders trees that never win), facts and remarks."""
    last = np.cumsum(episodes.lengths) - 1
    won, health, ran = (np.asarray(episodes.info[name]) for name in ("success", "health", "nodes"))
    scores = won[last] + 0.1 * (health[last, :2].sum(1) - health[last, 2:].sum(1)) / 2
    facts, parts = tactics(episodes), list(_breadth_first(tree))
    ticked = ran.reshape(-1, ran.shape[-1])[:, : len(parts)].mean(0)
    never = [
        f"never ticked: {unparse(part)}" for part, share in zip(parts, ticked, strict=True) if share == 0 and not part.children
    ]
    return Outcome(scores, facts, "; ".join(filter(None, [remarks(facts), *dict.fromkeys(never)])))


def editor_for(vocabulary: Vocabulary) -> TreeEditor:
    """What proposes trees for the arena where no language model does."""
    return TreeEditor(vocabulary, restated=("won", "lost", "drawn"))


def _breadth_first(tree: Node) -> list[Node]:
    nodes = [tree]
    for node in nodes:  # the list grows while it is walked
        nodes += node.children
    return nodes


ARMS = {
    "portal": Arm("system", "the loop with feedback, rules and learned aiming", "portal"),
    "no feedback": Arm("ablation", "the best of as many trees from the same grammar, without feedback", "no feedback"),
    "random edits": Arm("control", "random changes of the best tree, without statistics", "random edits"),
    "rules only": Arm("ablation", "the loop with feedback, without neural tasks", "rules only"),
    "by hand": Arm("baseline", "the best of eleven trees written by a person", "by hand"),
    "ppo": Arm("baseline", "a network for both fighters, trained from scratch with PPO on as many steps", "ppo"),
}


@dataclass(frozen=True)
class Sizes:
    """trees: evaluations; games: per evaluation; batch: trees at once; maps: for training, and as many held-out ones; logs: episodes
    for the neural task; fitting: its updates. The final judgement takes `rounds` times `batch` times `games` fresh games on either kind
    of map."""

    trees: int
    games: int
    batch: int
    maps: int
    logs: int
    fitting: int
    rounds: int


def prepare(key: PRNGKeyArray, sizes: Sizes) -> dict[str, Any]:
    """Maps and the neural task, the same for all arms of a seed. Held-out maps are never played before the final judgement."""
    known, new = skirmishes(range(sizes.maps)), skirmishes(range(100, 100 + sizes.maps))
    return {"known": known, "new": new, "marksman": learn_to_aim(known, episodes=sizes.logs, steps=sizes.fitting, key=key)}


def measure(key: PRNGKeyArray, settings: str, sizes: Sizes, prepared: dict[str, Any]) -> Metrics:
    """Shares of fresh games won on known and on held-out maps; for the loop also how many ticks a call of the proposer takes."""
    *_, searching, judging = jax.random.split(key, 5)  # the first three are for what was prepared
    leaves, known = SkirmishLeaves(prepared["marksman"]), prepared["known"]
    if settings == "ppo":
        steps = (sizes.trees * sizes.games + sizes.logs) * known.horizon
        fitted = train(BASELINE, known.spread(ABREAST), steps=steps, key=searching, progress=False)
        return {name: _won(fitted.policy, prepared[name], judging, sizes) for name in ("known", "new")}
    if settings == "by hand":
        return _judgement(parse(BY_HAND), leaves, prepared, judging, sizes)
    rules = leaves.vocabulary.without(*LEARNED)
    editor = editor_for(rules if settings == "rules only" else leaves.vocabulary)
    edits = RandomEdits(
        lambda chance: unparse(random_tree(leaves.vocabulary, chance)),
        lambda text, chance: unparse(random_edit(parse(text), leaves.vocabulary, chance)),
    )
    ledger = portal(
        Games(known, sizes.games),
        leaves,
        edits if settings == "random edits" else editor,
        budget=sizes.trees,
        key=searching,
        batch=sizes.batch,
        tell=no_feedback if settings == "no feedback" else feedback,
        allowed=editor.vocabulary,
    )
    best = ledger.accepted[-1]
    metrics = _judgement(best.artefact, leaves, prepared, judging, sizes) | {"search": best.outcome.score}
    return metrics | ({"call/tick": call_over_tick(ledger, editor, leaves)} if settings == "portal" else {})


def call_over_tick(ledger: Ledger, proposer: Proposer, leaves: SkirmishLeaves, agents: int = 2048, repeats: int = 5) -> float:
    """How many times longer one call of a proposer takes, with the whole ledger as its prompt, than one tick of one of many agents."""
    policy = BehaviourTree.of(ledger.accepted[-1].artefact, leaves)
    keys = jax.random.split(jax.random.key(0), agents)
    rows, memory = jnp.zeros((agents, WIDTH)), jax.vmap(policy.start)(keys)
    jax.block_until_ready(_ticks(policy, rows, memory, keys))
    tick = min(_seconds(lambda: jax.block_until_ready(_ticks(policy, rows, memory, keys))) for _ in range(repeats)) / agents
    prompt = feedback(GAME)(ledger)
    return min(_seconds(lambda: proposer.propose(prompt, keys[0], 1)) for _ in range(repeats)) / tick


_ticks = eqx.filter_jit(lambda policy, rows, memory, keys: jax.vmap(policy.act)(rows, memory, keys))


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _judgement(tree: Node, leaves: SkirmishLeaves, prepared: dict[str, Any], key: PRNGKeyArray, sizes: Sizes) -> dict[str, float]:
    """Shares of fresh games won on either kind of map, and their difference."""
    keys, won = jax.random.split(key, (sizes.rounds, sizes.batch)), {}
    for name in ("known", "new"):
        games = Games(prepared[name], sizes.games)
        played = [episodes for own in keys for episodes in games.play([tree] * sizes.batch, leaves, own)]
        won[name] = float(np.mean([tactics(episodes)["won"] for episodes in played]))
    return won | {"lost on new maps": won["known"] - won["new"]}


def _won(policy: Policy, maps: Family, key: PRNGKeyArray, sizes: Sizes) -> float:
    episodes = rollout(policy, maps, episodes=sizes.rounds * sizes.batch * sizes.games, key=key)
    return tactics(episodes)["won"]


ABREAST = 256  # games that PPO plays side by side
BASELINE = PPO(
    Actor(SharedCategorical, Network(width=64)),
    optimiser=Optimiser(learning_rate=1e-3, clip_norm=0.5, epsilon=1e-5),
    rollout_length=16,
    epochs=3,
    minibatches=8,
    entropy_bonus=0.001,
    discount=0.9,
    trace=0.9,
)

CHOOSER = PPO(network=Network(width=64), rollout_length=10, epochs=5, minibatches=8, entropy_bonus=0.01, discount=0.95, trace=0.9)

CARD = Card(
    slug="portal",
    name="PORTAL",
    title="Agents Play Thousands of 3D Video Games",
    arxiv="2503.13356",
    family="agents",
    kind="policy",
    summary="writes behaviour trees for a game and improves them from what the games show",
    usage="""
import jax
from polyact.systems.agents.portal import Games, SkirmishLeaves, editor_for, portal, skirmishes
leaves = SkirmishLeaves()
games = Games(skirmishes(range(16)), 64)
ledger = portal(games, leaves, editor_for(leaves.vocabulary), budget=150, key=jax.random.key(0))
print(ledger.accepted[-1].text, ledger.accepted[-1].outcome.score)
""",
)

SEARCH = Experiment(
    measure,
    {name: ARMS[name] for name in ("portal", "no feedback", "random edits")},
    {
        "smoke": Scale(2, Sizes(trees=12, games=8, batch=4, maps=2, logs=16, fitting=50, rounds=1)),
        "laptop": Scale(16, Sizes(trees=150, games=64, batch=5, maps=16, logs=512, fitting=1000, rounds=2)),
    },
    testbed="two against two in an arena of 16 x 16 cells, 16 maps and 16 held-out ones, 8 scripted kinds of foe",
    budget=Budget(
        data="512 logged games for the learned task of the trees, counted as steps of PPO",
        steps="150 trees x 64 games for every arm that searches, the same games for all trees",
        network="2 x 32 units for aiming, 2 x 64 for PPO's actor (shared by both fighters) and critic",
        tuning="on seeds below 1000: the proposer (six kinds of it, three settings of the last), PPO (seven), the tree written by "
        "hand (eleven)",
    ),
    prepare=prepare,
    runner="threads",
)
SHORTER = replace(SEARCH.scales["laptop"].sizes, trees=100, games=32)
RIVALS = replace(
    SEARCH,
    arms={name: arm for name, arm in ARMS.items() if name not in ("no feedback", "random edits")},
    scales=SEARCH.scales | {"laptop": Scale(5, SHORTER)},
    budget=replace(SEARCH.budget, steps="100 trees x 32 games for every arm that searches; PPO: as many games of 60 ticks"),
)


def _searched(key: PRNGKeyArray, sizes: Sizes) -> dict[str, Any]:
    """Maps, the neural task, and what the loop found."""
    aiming, searching = jax.random.split(key)
    prepared = prepare(aiming, sizes)
    return prepared | {"ledger": _search(searching, sizes, prepared)}


def _search(key: PRNGKeyArray, sizes: Sizes, prepared: dict[str, Any], longer: int = 1) -> Ledger:
    leaves = SkirmishLeaves(prepared["marksman"])
    games = Games(prepared["known"], sizes.games)
    return portal(games, leaves, editor_for(leaves.vocabulary), budget=longer * sizes.trees, key=key, batch=sizes.batch)


def measure_choice(key: PRNGKeyArray, settings: str, sizes: Sizes, prepared: dict[str, Any]) -> Metrics:
    """Shares of fresh games won on known and on held-out maps by the last trees, however one of them is picked."""
    _, _, training, judging = jax.random.split(key, 4)  # the first two are for what was prepared
    leaves, maps, ledger = SkirmishLeaves(prepared["marksman"]), prepared["known"], prepared["ledger"]
    if settings == "longer search":
        ledger = _search(training, sizes, prepared, longer=2)
    members = last_trees(ledger, leaves, TREES)
    match settings:
        case "chosen":
            policy = switching(ledger, leaves, maps, steps=sizes.trees * sizes.games * maps.horizon, key=training)
        case "at random":
            policy = Switched.of(members, RandomPolicy(Discrete(len(members))), EVERY)
        case _:
            policy = members[-1]
    return {name: _won(policy, prepared[name], judging, sizes) for name in ("known", "new")}


CHOICE = replace(
    SEARCH,
    measure=measure_choice,
    arms={
        "chosen": Arm("system", "a network picks one of the last four trees every 6 ticks", "chosen"),
        "at random": Arm("ablation", "one of them is picked at random", "at random"),
        "last tree": Arm("baseline", "the last accepted tree alone", "last tree"),
        "longer search": Arm("baseline", "the last tree of a search of its own, twice as long", "longer search"),
    },
    scales=SEARCH.scales | {"laptop": Scale(5, SHORTER)},
    budget=replace(
        SEARCH.budget,
        steps="100 trees x 32 games for all; as many games again to train the network, or for a longer search",
        network="2 x 64 units for the network that picks",
        tuning="none beyond the search's",
    ),
    prepare=_searched,
)

CLAIMS = (
    Claim(
        "feedback",
        "with feedback a tree wins at least 5 points more games than the best of as many trees without",
        SEARCH,
        "known",
        Beats("portal", {"no feedback": 0.05}),
    ),
    Claim(
        "edits",
        "choosing edits by statistics is better than random changes of the best tree",
        SEARCH,
        "known",
        Beats("portal", {"random edits": 0.0}),
    ),
    Claim(
        "neural tasks",
        "trees with learned aiming win more games than trees of rules, and more than PPO with as many steps",
        RIVALS,
        "known",
        Beats("portal", {"rules only": 0.0, "ppo": 0.0}),
    ),
    Claim(
        "new maps",
        "on held-out maps the tree loses fewer than 10 points",
        SEARCH,
        "lost on new maps",
        Within("portal", high=0.1),
        better="lower",
    ),
    Claim("speed", "a tick takes a thousandth of a call of the proposer, or less", RIVALS, "call/tick", Within("portal", low=1000)),
    Claim(
        "choice at run time",
        "a network that picks among the last trees wins more games than picking at random, and than the last tree alone",
        CHOICE,
        "known",
        Beats("chosen", {"at random": 0.0, "last tree": 0.0}),
    ),
    Claim(
        "choice or more trees",
        "and more than the last tree of a search that was longer by the games that the network was trained on",
        CHOICE,
        "known",
        Beats("chosen", {"longer search": 0.0}),
    ),
)
