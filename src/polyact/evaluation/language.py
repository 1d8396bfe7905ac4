"""How good a language policy is on a token world: pass@1, pass@k, entropy, and the tokens it spends."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from polyact.acting.groups import sample_groups
from polyact.envs.language.base import TokenWorld
from polyact.errors import PolyactError
from polyact.policies.language.base import TokenPolicy


def pass_at_k(right: Int[Array, " Q"] | Float[Array, " Q"], samples: int, k: int) -> Float[Array, ""]:
    """The chance that one of k answers is right when `right` of `samples` were, unbiased (arXiv 2107.03374 eq. 1), mean over questions.

    1 - C(n - c, k) / C(n, k), as a product of k factors. Raises PolyactError unless 1 <= k <= samples.
    """
    if not 1 <= k <= samples:
        raise PolyactError(f"pass@k of {samples} samples needs k between 1 and {samples}, got {k}")
    wrong = samples - right[:, None]
    taken = jnp.arange(k)
    return jnp.mean(1 - jnp.prod(jnp.maximum(wrong - taken, 0) / (samples - taken), axis=-1))


def judge_answers(
    policy: TokenPolicy, world: TokenWorld, asked: PyTree, *, samples: int, key: PRNGKeyArray, ks: tuple[int, ...] = ()
) -> dict[str, Float[Array, ""]]:
    """`samples` answers to each question: `pass@1` (mean reward), `pass@k` for `ks` (an answer is right when its reward is 1), `entropy`
    (nats per token that the policy wrote) and `tokens` (written per answer).
    """
    rollouts = sample_groups(policy, world, asked, samples, key)
    right = (rollouts.reward.reshape(-1, samples) >= 1.0).sum(-1)
    scores = {"pass@1": rollouts.reward.mean()} | {f"pass@{k}": pass_at_k(right, samples, k) for k in ks}
    written = jnp.maximum(rollouts.action_mask.sum(), 1)
    return scores | {"entropy": rollouts.entropy.sum() / written, "tokens": rollouts.length.mean()}
