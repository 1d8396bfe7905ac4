"""Random batches of tokens for the formulas of language models, the same numbers in every array library."""

import numpy as np

from polyact.learning.language.surrogates import Terms


def random_terms(seed=0, answers=8, length=5, kind=np.float64):
    """Terms with padding, ratios on both sides of 1 and no two equal numbers."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, length + 1, answers)
    mask = (np.arange(length) < lengths[:, None]).astype(kind)
    old = -rng.gamma(2.0, 1.0, mask.shape) * mask
    logp = (old + rng.normal(0, 0.5, mask.shape)) * mask
    reference = (old + rng.normal(0, 0.5, mask.shape)) * mask
    entropy = rng.gamma(2.0, 0.5, mask.shape) * mask
    columns = (logp, old, rng.normal(size=mask.shape) * mask, mask, rng.random(mask.shape), entropy, reference)
    return Terms(*(column.astype(kind) for column in columns))


def random_rewards(seed=0, answers=24, prompts=5, kind=np.float32):
    """Rewards [B] in [0, 1], the prompt of each, and a structure between 0 and 4."""
    rng = np.random.default_rng(seed)
    return rng.random(answers).astype(kind), rng.integers(0, prompts, answers), rng.integers(0, 5, answers)
