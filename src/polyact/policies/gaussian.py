"""Gaussian policies, plain and squashed by tanh."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.nets.mlp import Network
from polyact.policies.base import EntropicPolicy, Observation
from polyact.policies.headed import HeadPolicy
from polyact.policies.heads import LOG_STD_RANGE, GaussianHead, TanhGaussianHead
from polyact.policies.spec import Body, Spec


class Gaussian(HeadPolicy, EntropicPolicy):
    """Independent normals around a network's output, in unit coordinates."""

    body: Body
    network: Callable
    head: GaussianHead

    @classmethod
    def create(
        cls,
        spec: Spec,
        network: Network,
        key: PRNGKeyArray,
        *,
        log_std: float | None = -0.5,
        log_std_range: tuple[float, float] = LOG_STD_RANGE,
        bounded_mean: bool = True,
    ) -> "Gaussian":
        """One spread for all observations, a parameter that starts at `log_std`; with None the spread depends on the observation."""
        body = spec.body
        spread = None if log_std is None else jnp.full(body.continuous.width, float(log_std))
        head = GaussianHead(spread, log_std_range, bounded_mean)
        return cls(body, network.build(body.observation_width, head.outputs(body), key), head)

    def distribution(self, observation: Observation) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
        """Mean and log standard deviation in unit coordinates."""
        return self.head.distribution(self.outputs(observation), self.body)

    def entropy(self, observation: Observation) -> Float[Array, ""]:
        return self.head.entropy(self.outputs(observation), self.body)


class TanhGaussian(HeadPolicy):
    """tanh of a normal whose mean and spread depend on the observation (SAC, Haarnoja et al., 1812.05905, appendix C)."""

    body: Body
    network: Callable
    head: TanhGaussianHead

    @classmethod
    def create(
        cls, spec: Spec, network: Network, key: PRNGKeyArray, *, log_std_range: tuple[float, float] = LOG_STD_RANGE
    ) -> "TanhGaussian":
        """Fresh weights. Raises PolyactError when an action entry has no bounds, because tanh could not reach beyond one unit."""
        body, head = spec.body, TanhGaussianHead(log_std_range)
        return cls(body, network.build(body.observation_width, head.outputs(body), key), head)

    def distribution(self, observation: Observation) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
        """Mean and log standard deviation of the normal before tanh."""
        return self.head.distribution(self.outputs(observation))
