"""Losses of policy-gradient learners for language models, token by token, and how tokens are averaged.

Plain functions on arrays of NumPy, JAX or PyTorch. A loss is any function Terms -> scalar, for instance
`lambda terms: token_mean(clipped(terms, 0.2, 0.28), terms.mask)`; the same function trains under JAX (`TokenLearner`) and in TRL
(`trl.py`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Float

from polyact.learning.language.arrays import array_namespace


class Terms(NamedTuple):
    """What a loss may look at; every array is [B, T].

    logp: of each token now (carries the gradient). logp_old: when it was sampled. advantage: a constant. mask: 1 for tokens that the policy
    wrote, 0 for prompts, observations and padding. noise: uniform in [0, 1), for losses that pick tokens at random. entropy: of the
    distribution each token was drawn from, now (carries a gradient). logp_ref: under a reference policy, or None.
    """

    logp: Any
    logp_old: Any
    advantage: Any
    mask: Any
    noise: Any = None
    entropy: Any = None
    logp_ref: Any = None


Loss = Callable[[Terms], Any]


def ratio(terms: Terms) -> Float[Any, "B T"]:
    """exp(logp - logp_old)."""
    return array_namespace(terms.logp).exp(terms.logp - terms.logp_old)


def unclipped(terms: Terms) -> Float[Any, "B T"]:
    """-ratio A: the policy gradient with importance weights."""
    return -ratio(terms) * terms.advantage


def clipped(terms: Terms, low: float = 0.2, high: float = 0.2) -> Float[Any, "B T"]:
    """-min(ratio A, clip(ratio, 1 - low, 1 + high) A): PPO (arXiv 1707.06347 eq. 7); high > low is DAPO's clip-higher (2503.14476)."""
    xp, now = array_namespace(terms.logp), ratio(terms)
    return -xp.minimum(now * terms.advantage, xp.clip(now, 1 - low, 1 + high) * terms.advantage)


def dual_clipped(terms: Terms, low: float = 0.2, high: float = 0.2, cap: float = 10.0) -> Float[Any, "B T"]:
    """`clipped`, and at most -cap A where A < 0: dual-clip PPO (arXiv 1912.09729 eq. 5)."""
    xp, loss = array_namespace(terms.logp), clipped(terms, low, high)
    return xp.where(terms.advantage < 0, xp.minimum(loss, -cap * terms.advantage), loss)


def is_clipped(terms: Terms, low: float, high: float) -> Any:
    """Where `clipped` passes no gradient [B, T]."""
    now = ratio(terms)
    return ((now > 1 + high) & (terms.advantage > 0)) | ((now < 1 - low) & (terms.advantage < 0))


def kl_k1(logp: Float[Any, "B T"], logp_ref: Float[Any, "B T"]) -> Float[Any, "B T"]:
    """logp - logp_ref: unbiased for KL(policy, reference) on the policy's own tokens, may be negative. (joschu.net/blog/kl-approx)"""
    return logp - logp_ref


def kl_k2(logp: Float[Any, "B T"], logp_ref: Float[Any, "B T"]) -> Float[Any, "B T"]:
    """(logp - logp_ref)^2 / 2: biased, with little variance; its gradient is that of the true divergence."""
    return 0.5 * (logp - logp_ref) ** 2


def kl_k3(logp: Float[Any, "B T"], logp_ref: Float[Any, "B T"]) -> Float[Any, "B T"]:
    """exp(logp_ref - logp) - (logp_ref - logp) - 1: unbiased and never negative; GRPO's penalty."""
    gap = logp_ref - logp
    return array_namespace(gap).exp(gap) - gap - 1


def token_mean(values: Float[Any, "B T"], mask: Float[Any, "B T"]) -> Float[Any, ""]:
    """Mean over all tokens of the batch (DAPO); 0 without any."""
    return (values * mask).sum() / _at_least_one(mask.sum())


def sequence_mean(values: Float[Any, "B T"], mask: Float[Any, "B T"]) -> Float[Any, ""]:
    """Mean over the tokens of each sequence, then over sequences (GRPO)."""
    return ((values * mask).sum(-1) / _at_least_one(mask.sum(-1))).mean()


def sequence_sum(values: Float[Any, "B T"], mask: Float[Any, "B T"]) -> Float[Any, ""]:
    """Sum over the tokens of each sequence, then mean over sequences: the gradient of the expected reward itself."""
    return (values * mask).sum(-1).mean()


AGGREGATIONS = {"token-mean": token_mean, "seq-mean-token-mean": sequence_mean, "seq-mean-token-sum": sequence_sum}


def _at_least_one(count: Any) -> Any:
    return array_namespace(count).clip(count, 1, None)
