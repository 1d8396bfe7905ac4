"""The flow-matching policy: chunks of actions along straight lines from noise (Lipman et al., 2210.02747; Liu et al., 2209.03003)."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import unknown
from polyact.nets.denoisers import Denoiser
from polyact.nets.mlp import Network
from polyact.policies.generative.chain import Sampler
from polyact.policies.generative.denoising import DenoisingPolicy, build_networks
from polyact.policies.generative.paths import Straight
from polyact.policies.generative.steppers import DDIM, Heun, Stepper
from polyact.policies.spec import Body, Spec

SAMPLERS: dict[str, Stepper] = {"euler": DDIM(), "heun": Heun(), "sde": DDIM(1.0)}


class Flow(DenoisingPolicy):
    """A denoising policy whose network predicts the velocity of the straight path. See `DenoisingPolicy` for what the fields do."""

    body: Body
    encoder: Callable
    denoiser: Denoiser
    null: Float[Array, " C"]
    path: Straight
    sampler: Sampler
    form: str = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    history: int = eqx.field(static=True)
    drop: float = eqx.field(static=True)
    clip: bool = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        spec: Spec,
        network: Network,
        key: PRNGKeyArray,
        *,
        horizon: int = 8,
        history: int = 1,
        denoiser: str = "residual",
        sampler: str = "euler",
        steps: int = 10,
        drop: float = 0.0,
        clip: bool = False,
    ) -> "Flow":
        """Fresh weights for the one body of the spec.

        denoiser: "residual", "mlp", "sieve" or "transformer". sampler: "euler" or "heun" follow the flow, "sde" adds noise on the way.
        """
        if sampler not in SAMPLERS:
            raise unknown("sampler", sampler, SAMPLERS)
        encoder, built, null = build_networks(spec, network, key, denoiser, horizon, history, drop)
        chosen = Sampler(SAMPLERS[sampler], steps)
        return cls(spec.body, encoder, built, null, Straight(), chosen, "velocity", horizon, history, drop, clip)
