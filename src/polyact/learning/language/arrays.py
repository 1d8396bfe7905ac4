"""One formula for NumPy, JAX and PyTorch: which library arrays belong to, and the few operations that the three name differently.

The library is the one the arrays came from, so it is loaded already: nothing here imports JAX or PyTorch.
"""

import sys
from typing import Any

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Int, Shaped

from polyact.errors import PolyactError

_NAMESPACES = {"numpy": "numpy", "jax": "jax.numpy", "jaxlib": "jax.numpy", "torch": "torch"}


def array_namespace(*arrays: Any) -> Any:
    """numpy, jax.numpy or torch, whichever the arrays belong to; NumPy arrays may stand beside those of one other library.

    Raises PolyactError for anything else, and for arrays of JAX and PyTorch together.
    """
    found = {_NAMESPACES.get(_library(array), "") for array in arrays if array is not None}
    if "" in found or not found:
        kinds = ", ".join(sorted({type(array).__name__ for array in arrays}))
        raise PolyactError(f"expected arrays of NumPy, JAX or PyTorch, got {kinds or 'none'}")
    others = found - {"numpy"}
    if len(others) > 1:
        raise PolyactError("arrays of JAX and of PyTorch can't meet in one formula")
    return sys.modules[others.pop()] if others else np


def stop_gradient(x: Float[Any, "*batch"]) -> Float[Any, "*batch"]:
    """The same numbers as a constant to the gradient."""
    match _library(x):
        case "torch":
            return x.detach()
        case "numpy":
            return x
    return sys.modules["jax"].lax.stop_gradient(x)


def log_gamma(x: Float[Any, "*batch"]) -> Float[Any, "*batch"]:
    """log of the gamma function."""
    match _library(x):
        case "torch":
            return array_namespace(x).lgamma(x)
        case "numpy":
            return np.asarray(scipy.special.gammaln(x))
    return sys.modules["jax"].scipy.special.gammaln(x)


def floats(x: Shaped[Any, "*batch"], like: Float[Any, "..."]) -> Float[Any, "*batch"]:
    """Booleans or integers as numbers of the type of `like`."""
    one = array_namespace(like).ones_like(like).reshape(-1)[0]
    return x * one


def ranks(x: Float[Any, " N"]) -> Int[Any, " N"]:
    """The place of every entry when they are ordered from the largest (0) to the smallest; the earlier of two equal ones first."""
    return _argsort(_argsort(-x))


def top(x: Float[Any, "*batch"], count: Any) -> Bool[Any, "*batch"]:
    """Whether an entry is among the `count` (a number or a scalar array) largest."""
    return (ranks(x.reshape(-1)) < count).reshape(x.shape)


def _argsort(x: Any) -> Any:
    return np.argsort(x, kind="stable") if _library(x) == "numpy" else array_namespace(x).argsort(x, stable=True)


def _library(array: Any) -> str:
    return type(array).__module__.partition(".")[0]
