"""Advantages of whole answers from rewards alone: the learners of language models differ mostly in these few lines.

Plain functions on arrays of NumPy, JAX or PyTorch. reward [B]: one number per answer. group [B]: whole numbers; answers to the same prompt
share one. Groups may have different sizes and stand in any order. Standard deviations are those of the group itself (divided by its size).
"""

from typing import Any

from jaxtyping import Float, Int, Shaped

from polyact.learning.language.arrays import array_namespace, floats

EPSILON = 1e-6  # a smaller spread of rewards is rounding


def centred(reward: Float[Any, " B"], group: Int[Any, " B"]) -> Float[Any, " B"]:
    """R - mean of the group: REINFORCE with the group's mean as baseline, Dr. GRPO (arXiv 2503.20783)."""
    return reward - group_mean(reward, group)


def group_relative(reward: Float[Any, " B"], group: Int[Any, " B"]) -> Float[Any, " B"]:
    """(R - mean) / (std + 1e-6) in the group, 0 where all are equal: GRPO (arXiv 2402.03300)."""
    return _standardised(centred(reward, group), group_deviation(reward, group))


def leave_one_out(reward: Float[Any, " B"], group: Int[Any, " B"]) -> Float[Any, " B"]:
    """R - mean of the others in the group = G / (G - 1) (R - mean): RLOO (arXiv 2402.14740). 0 for a group of one."""
    xp = array_namespace(reward)
    size = group_size(reward, group)
    return centred(reward, group) * size / xp.clip(size - 1, 1, None)


def batch_relative(reward: Float[Any, " B"]) -> Float[Any, " B"]:
    """(R - mean) / (std + 1e-6) over the batch, whatever the prompts: REINFORCE++ (arXiv 2501.03262)."""
    xp = array_namespace(reward)
    centre = reward - reward.mean()
    return _standardised(centre, xp.mean(centre**2) ** 0.5)


def against(reward: Float[Any, " B"], baseline: Float[Any, " B"]) -> Float[Any, " B"]:
    """R - baseline. With the reward of the greedy answer as baseline: ReMax (arXiv 2310.10505)."""
    return reward - baseline


def group_size(reward: Float[Any, " B"], group: Shaped[Any, " B"]) -> Float[Any, " B"]:
    """How many answers the group of each has."""
    return _together(reward, group).sum(-1)


def group_mean(values: Float[Any, " B"], group: Shaped[Any, " B"]) -> Float[Any, " B"]:
    """The mean over the group of each."""
    together = _together(values, group)
    return (together @ values) / together.sum(-1)


def group_deviation(values: Float[Any, " B"], group: Shaped[Any, " B"]) -> Float[Any, " B"]:
    """The standard deviation over the group of each."""
    return group_mean((values - group_mean(values, group)) ** 2, group) ** 0.5


def per_token(advantage: Float[Any, "..."], mask: Float[Any, "B T"]) -> Float[Any, "B T"]:
    """An advantage per answer [B] or per token [B, T], at every token that the policy wrote; 0 elsewhere."""
    return (advantage[:, None] if advantage.ndim == 1 else advantage) * mask


def _standardised(centred: Any, deviation: Any) -> Any:
    xp = array_namespace(centred)
    return xp.where(deviation > EPSILON, centred / (deviation + EPSILON), xp.zeros_like(centred))


def _together(values: Any, group: Any) -> Any:
    """1 where two answers share a group [B, B]."""
    return floats(group[:, None] == group[None, :], values)
