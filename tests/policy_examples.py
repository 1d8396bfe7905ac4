"""Policies with random weights for tests, made without compiling their initialisers."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from polyact.nets.mlp import Network
from polyact.policies.spec import Spec

KEY = jax.random.key(0)
NET = Network(width=8, depth=1)


def filled(create: Any, spec: Spec, network: Network = NET, *, seed: int = 0, **options: Any) -> Any:
    """`create(spec, network, key, **options)` with normal weights in place of initialised ones; bodies are the spec's own."""
    policy = weighted(eqx.filter_eval_shape(create, spec, network, KEY, **options), seed)
    name = "body" if hasattr(policy, "body") else "bodies"
    return eqx.tree_at(lambda p: getattr(p, name), policy, getattr(spec, name))


def weighted(shapes: Any, seed: int = 0) -> Any:
    """A tree with normal numbers where it has shapes of arrays."""
    rng = np.random.default_rng(seed)

    def fill(leaf: Any) -> Any:
        return jnp.asarray(0.4 * rng.normal(size=leaf.shape), leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf

    return jax.tree.map(fill, shapes)
