"""A Gaussian mixture policy: what a network can say when the data shows several good ways."""

from collections.abc import Callable

from jaxtyping import PRNGKeyArray

from polyact.nets.mlp import Network
from polyact.policies.headed import HeadPolicy
from polyact.policies.heads import LOG_STD_RANGE, MixtureHead
from polyact.policies.spec import Body, Spec


class GaussianMixture(HeadPolicy):
    """K diagonal normals in unit coordinates, weights, means and spreads from the network (mixture density network, Bishop 1994)."""

    body: Body
    network: Callable
    head: MixtureHead

    @classmethod
    def create(
        cls,
        spec: Spec,
        network: Network,
        key: PRNGKeyArray,
        *,
        components: int = 5,
        log_std_range: tuple[float, float] = LOG_STD_RANGE,
        bounded_mean: bool = True,
    ) -> "GaussianMixture":
        """Fresh weights for the one body of the spec."""
        body, head = spec.body, MixtureHead(components, log_std_range, bounded_mean)
        return cls(body, network.build(body.observation_width, head.outputs(body), key), head)
