"""Weights prompts by how often they are solved, with a Beta density fitted on the fly: BNPO (Beta Normalization Policy Optimization).

Rewards are 0 or 1, and a prompt is solved with probability p(q). REINFORCE with the group's mean as baseline leaves R - p(q) as it is, GRPO
divides it by sqrt(p (1 - p)), which is (up to a constant) the density of Beta(3/2, 3/2) at p. BNPO divides by the density of a
Beta(alpha, beta) that follows the distribution of p over prompts: if p ~ Beta(a, b), the variance of the gradient estimate is smallest at
alpha = 1 + a/3, beta = 1 + b/3. REINFORCE and GRPO are the special cases a = b = 0 and a = b = 3/2.

Measured (5 and 20 seeds from 1000): over 2000 densities neither REINFORCE nor GRPO had less variance anywhere, by the formula and by
sampling (within 0.6% on average); the geometric mean of the variance was 0.44 of a fixed density's and 0.16 of GRPO's. In training on
prompts that get solved the gradient norm varied 5.4 times [5.2, 5.6] less than GRPO's in variance, but no less than REINFORCE's (0.99
times) and a little more than with a density frozen at the start (0.91 times). Final success was 0.6 points below REINFORCE's and 0.7
below GRPO's, within the point allowed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact.acting.groups import sample_groups
from polyact.claims.card import Card
from polyact.claims.claim import Always, Arm, Beats, Budget, Claim, Experiment, Scale
from polyact.data.token_rollouts import TokenRollouts
from polyact.envs.language.tables import Match, logits_with
from polyact.learning.language.advantages import centred, group_mean, group_size
from polyact.learning.language.arrays import array_namespace, log_gamma
from polyact.learning.language.surrogates import Terms, dual_clipped, sequence_sum
from polyact.learning.language.token_learner import TokenLearner, grpo_advantage, improve
from polyact.learning.optimiser import Optimiser
from polyact.policies.language.table import TableLM

HEAVIEST = 1e6  # the largest weight of a prompt
SHARPEST = 1e3  # the largest a + b: batches whose prompts happen to be solved equally often say nothing about the variance


class Shape(NamedTuple):
    """The parameters of the normalising density."""

    alpha: Any
    beta: Any


def fitted(reward: Float[Any, " B"], group: Int[Any, " B"]) -> Shape:
    """Moments of p(q) over the prompts of a batch: m, v (unbiased), k = m (1 - m) / v - 1, a = k m, b = k (1 - m); then alpha = 1 + a/3 and
    beta = 1 + b/3. Where the moments fit no Beta density (a single prompt, all solved, v too large) a = b = 0: REINFORCE.
    """
    xp = array_namespace(reward)
    p, share = group_mean(reward, group), 1 / group_size(reward, group)
    prompts = share.sum()
    mean = (share * p).sum() / prompts
    variance = (share * (p - mean) ** 2).sum() / xp.clip(prompts - 1, 1, None)
    spread = mean * (1 - mean)
    sum_of_both = xp.clip(spread / xp.clip(variance, 1e-9, None) - 1, 0, SHARPEST) * (prompts > 1.5)
    return Shape(1 + sum_of_both * mean / 3, 1 + sum_of_both * (1 - mean) / 3)


def beta_weight(p: Float[Any, " B"], shape: Shape) -> Float[Any, " B"]:
    """min(1 / density of Beta(alpha, beta) at p, 1e6). At p = 0 and 1 the density may vanish, but R - p is 0 there."""
    xp = array_namespace(p)
    alpha, beta = (p * 0 + part for part in shape)
    log_normaliser = log_gamma(alpha) + log_gamma(beta) - log_gamma(alpha + beta)
    inside = xp.clip(p, 1e-6, 1 - 1e-6)
    log_weight = log_normaliser - (alpha - 1) * xp.log(inside) - (beta - 1) * xp.log(1 - inside)
    return xp.exp(xp.clip(log_weight, None, 13.815510557964274))  # log HEAVIEST


def beta_normalised(reward: Float[Any, " B"], group: Int[Any, " B"], shape: Shape | None = None) -> Float[Any, " B"]:
    """(R - p(q)) / density at p(q), for rewards between 0 and 1; `shape` fixes the density instead of fitting it to the batch."""
    p = group_mean(reward, group)
    return centred(reward, group) * beta_weight(p, fitted(reward, group) if shape is None else shape)


def decomposed(rewards: Float[Any, "B R"], group: Int[Any, " B"]) -> Float[Any, " B"]:
    """Several rewards (right, in the right form, ...): the mean of the advantages of each, every one with a density of its own."""
    kinds = [beta_normalised(rewards[:, i], group) for i in range(rewards.shape[1])]
    return sum(kinds[1:], kinds[0]) / len(kinds)


def bnpo_loss(terms: Terms) -> Float[Array, ""]:
    """The paper's: clip 0.2 / 0.28, dual clip 10, summed over tokens and averaged over answers."""
    return sequence_sum(dual_clipped(terms, 0.2, 0.28, 10.0), terms.mask)


def log_variance(a: Array, b: Array, shape: Shape) -> Array:
    """log of B(alpha, beta)^2 B(a + 3 - 2 alpha, b + 3 - 2 beta) / B(a, b): the variance of A for p ~ Beta(a, b), up to a constant."""
    left, right = a + 3 - 2 * shape.alpha, b + 3 - 2 * shape.beta
    return 2 * betaln(shape.alpha, shape.beta) + betaln(left, right) - betaln(a, b)


def optimal(a: Array, b: Array) -> Shape:
    """The density with the smallest `log_variance`."""
    return Shape(1 + a / 3, 1 + b / 3)


class Line(NamedTuple):
    """alpha = start + slope a, beta = start + slope b; arrays, so that one compiled program serves all arms."""

    start: Array
    slope: Array

    def shape(self, a: Array, b: Array) -> Shape:
        return Shape(self.start + self.slope * a, self.start + self.slope * b)


def line(start: float, slope: float) -> Line:
    return Line(jnp.asarray(start), jnp.asarray(slope))


REINFORCE, GRPO, BNPO = line(1.0, 0.0), line(1.5, 0.0), line(1.0, 1 / 3)
CHECKED = jnp.array([[0.5, 0.5], [1.0, 2.0], [2.0, 1.0], [3.0, 3.0]])  # (a, b) whose fourth moments exist, for Monte Carlo


def sampled_rates(key: PRNGKeyArray, sizes: dict[str, int]) -> Float[Array, "pairs draws"]:
    """Success rates p ~ Beta(a, b) for every pair in `CHECKED`."""
    return jax.vmap(lambda pair, k: jax.random.beta(k, pair[0], pair[1], (sizes["draws"],)))(
        CHECKED, jax.random.split(key, len(CHECKED))
    )


def measure_variance(
    key: PRNGKeyArray, chosen: Line, sizes: dict[str, int], prepared: Float[Array, "pairs draws"]
) -> dict[str, Array]:
    """`variance`: log of the formula, mean over random (a, b); `excess`: over the better of REINFORCE and GRPO, the worst of them all;
    `monte_carlo`: relative error of the formula against sampled p and R; `signal`: log of mean^2 / variance of A's size.
    """
    places, draws = jax.random.split(key)
    a, b = jnp.exp(jax.random.uniform(places, (2, sizes["pairs"]), minval=jnp.log(0.05), maxval=jnp.log(20.0)))
    ours = log_variance(a, b, chosen.shape(a, b))
    best = jnp.minimum(log_variance(a, b, REINFORCE.shape(a, b)), log_variance(a, b, GRPO.shape(a, b)))

    def sampled(pair: Array, p: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        reward = jax.random.bernoulli(key, p).astype(p.dtype)
        advantage = (reward - p) * beta_weight(p, chosen.shape(pair[0], pair[1]))
        return jnp.mean(advantage**2), jnp.mean(jnp.abs(advantage))

    square, size = jax.vmap(sampled)(CHECKED, prepared, jax.random.split(draws, len(CHECKED)))
    expected = jnp.exp(log_variance(CHECKED[:, 0], CHECKED[:, 1], chosen.shape(CHECKED[:, 0], CHECKED[:, 1])))
    return {
        "variance": ours.mean(),
        "excess": (ours - best).max(),
        "monte_carlo": jnp.abs(square / expected - 1).max(),
        "signal": jnp.log(size**2 / square).mean(),
    }


def weightings(first: TokenRollouts) -> dict[str, Callable[[TokenRollouts], Array]]:
    """The arms' advantages; `first`: the batch to which the frozen density is fitted."""
    shape = fitted(first.reward, first.group_id)
    return {
        "bnpo": lambda rollouts: beta_normalised(rollouts.reward, rollouts.group_id),
        "frozen": lambda rollouts: beta_normalised(rollouts.reward, rollouts.group_id, shape),
        "reinforce": lambda rollouts: centred(rollouts.reward, rollouts.group_id),
        "grpo": grpo_advantage,
    }


class Settings(NamedTuple):
    """Arrays, so that one compiled program serves all arms. which: number of the weighting; rate: of learning."""

    which: Array
    rate: Array


def settings(which: int, rate: float) -> Settings:
    return Settings(jnp.asarray(which), jnp.asarray(rate))


def u_shaped(key: PRNGKeyArray, sizes: dict[str, Any]) -> tuple[Match, TableLM]:
    """Prompts of which a third are nearly always solved and most of the others nearly never: success ~ Beta(0.5, 0.8)."""
    first, second = jax.random.split(key)
    target = jax.random.randint(first, (sizes["prompts"], sizes["length"]), 0, sizes["vocabulary"])
    success = jnp.clip(jax.random.beta(second, 0.5, 0.8, (sizes["prompts"],)), 0.02, 0.98)
    each = jnp.broadcast_to(success[:, None] ** (1 / sizes["length"]), target.shape)
    return Match(target, sizes["vocabulary"]), TableLM(logits_with(target, each, sizes["vocabulary"]))


def measure_training(
    key: PRNGKeyArray, chosen: Settings, sizes: dict[str, Any], prepared: tuple[Match, TableLM]
) -> dict[str, Array]:
    """`norm_variance`: of the gradient norm over the steps; `norm_variation`: its standard deviation over its mean; `success`: exact, at
    the end.
    """
    world, policy = prepared
    first = sample_groups(policy, world, world.every, sizes["group"], jax.random.fold_in(key, 1))
    ways = list(weightings(first).values())
    learner = TokenLearner(
        lambda rollouts: jax.lax.switch(chosen.which, ways, rollouts),
        bnpo_loss,
        Optimiser(learning_rate=chosen.rate),  # pyright: ignore[reportArgumentType]
    )
    policy, metrics = improve(learner, policy, world, lambda key: world.every, steps=sizes["steps"], group=sizes["group"], key=key)
    norm = metrics["gradient_norm"]
    success = world.expected(policy.probabilities).mean()
    return {"norm_variance": norm.var(), "norm_variation": norm.std() / norm.mean(), "success": success}


CARD = Card(
    slug="bnpo",
    name="BNPO",
    title="BNPO: Beta Normalization Policy Optimization",
    arxiv="2506.02864",
    family="language",
    kind="learner",
    summary="Advantages for 0/1 rewards whose weight per prompt follows how often the prompts of the batch are solved.",
    usage="""from polyact.learning.language.token_learner import TokenLearner
from polyact.systems.language.bnpo import beta_normalised, bnpo_loss
advantage = lambda rollouts: beta_normalised(rollouts.reward, rollouts.group_id)
learner = TokenLearner(advantage, bnpo_loss)""",
)
EXACT = Experiment(
    measure_variance,
    {
        "bnpo": Arm("system", "the density that follows (a, b)", BNPO),
        "fixed": Arm("ablation", "no density: REINFORCE, Beta(1, 1)", REINFORCE),
        "grpo": Arm("baseline", "GRPO, Beta(3/2, 3/2)", GRPO),
    },
    {
        "smoke": Scale(2, {"pairs": 64, "draws": 50_000}),
        "laptop": Scale(5, {"pairs": 2000, "draws": 400_000}),
    },
    "pairs (a, b) between 0.05 and 20; p ~ Beta(a, b)",
    Budget("2000 pairs; 400,000 draws of p and R", "none", "none", "nothing is tuned"),
    prepare=sampled_rates,
)
TRAINING = Experiment(
    measure_training,
    {
        "bnpo": Arm("system", "density fitted to every batch", settings(0, 0.1)),
        "frozen": Arm("ablation", "density fitted to the first batch and kept", settings(1, 0.1)),
        "reinforce": Arm("baseline", "R - mean of the group", settings(2, 0.1)),
        "grpo": Arm("baseline", "GRPO", settings(3, 0.1)),
    },
    {
        "smoke": Scale(2, {"prompts": 8, "group": 4, "length": 2, "vocabulary": 4, "steps": 5}),
        "laptop": Scale(20, {"prompts": 32, "group": 16, "length": 3, "vocabulary": 8, "steps": 150}),
    },
    "tablelm/match: 32 prompts, U-shaped chances of success at first, near solved at the end",
    Budget("150 batches of 32 prompts x 16 answers", "150 Adam steps", "a table of logits", "one learning rate for all arms"),
    prepare=u_shaped,
)
CLAIMS = (
    Claim(
        "least variance everywhere", "No (a, b) gives REINFORCE or GRPO less variance.", EXACT, "excess", Always("bnpo", high=1e-4)
    ),
    Claim("the formula", "Sampled variances agree with the formula within 5 %.", EXACT, "monte_carlo", Always("bnpo", high=0.05)),
    Claim(
        "less variance on average",
        "The log variance over random (a, b) is lower than that of REINFORCE and GRPO.",
        EXACT,
        "variance",
        Beats("bnpo", {"fixed": 0.0, "grpo": 0.0}),
        "lower",
    ),
    Claim(
        "steadier training",
        "The gradient norm varies less over training than with REINFORCE, GRPO or a frozen density.",
        TRAINING,
        "norm_variance",
        Beats("bnpo", {"reinforce": 1.0, "grpo": 1.0, "frozen": 1.0}, ratio=True),
        "lower",
    ),
    Claim(
        "as good",
        "Final success is at most a point below that of REINFORCE and GRPO.",
        TRAINING,
        "success",
        Beats("bnpo", {"reinforce": -0.01, "grpo": -0.01}),
    ),
)
