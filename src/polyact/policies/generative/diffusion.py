"""The diffusion policy (Chi et al., 2303.04137): chunks of actions by denoising, cloned by predicting the noise."""

from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import PolyactError, unknown
from polyact.nets.denoisers import Denoiser
from polyact.nets.mlp import Network
from polyact.policies.generative.chain import Sampler
from polyact.policies.generative.denoised import check_form
from polyact.policies.generative.denoising import DenoisingPolicy, build_networks
from polyact.policies.generative.paths import Karras, Path, cosine, few_steps, linear
from polyact.policies.generative.steppers import DDIM, Ancestral, DPMSolver, Heun, Stepper
from polyact.policies.spec import Body, Spec

SCHEDULES = ("cosine", "linear", "few-steps", "karras")
SAMPLERS: dict[str, Stepper] = {
    "ddpm": DDIM(1.0),
    "ddpm-wide": Ancestral(),
    "ddim": DDIM(),
    "dpm-solver": DPMSolver(),
    "heun": Heun(),
}


class Diffusion(DenoisingPolicy):
    """A denoising policy on a diffusion path. See `DenoisingPolicy` for what the fields do."""

    body: Body
    encoder: Callable
    denoiser: Denoiser
    null: Float[Array, " C"]
    path: Path
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
        schedule: str = "cosine",
        levels: int | None = None,
        form: str | None = None,
        sampler: str = "ddim",
        steps: int | None = None,
        drop: float = 0.0,
        clip: bool = True,
    ) -> "Diffusion":
        """Fresh weights for the one body of the spec.

        denoiser: "residual", "mlp", "sieve" or "transformer". schedule: "cosine", "linear", "few-steps" (with so many `levels`,
        by default 50) or "karras", which has none. form: what the network predicts, "noise", "clean", "velocity" or "edm" (karras).
        sampler: "ddpm" or "ddpm-wide" (by default as many steps as levels), "ddim", "dpm-solver" or "heun" (10 steps).
        """
        if sampler not in SAMPLERS:
            raise unknown("sampler", sampler, SAMPLERS)
        form = form or ("edm" if schedule == "karras" else "noise")
        check_form(form)
        path = _path(schedule, levels)
        steps = steps or ((levels or 50) if sampler.startswith("ddpm") else 10)
        encoder, built, null = build_networks(spec, network, key, denoiser, horizon, history, drop)
        chosen = Sampler(SAMPLERS[sampler], steps)
        return cls(spec.body, encoder, built, null, path, chosen, form, horizon, history, drop, clip)


def _path(schedule: str, levels: int | None) -> Path:
    if schedule == "karras":
        if levels is not None:
            raise PolyactError(f"levels={levels} has no effect with schedule='karras', whose noise is continuous")
        return Karras()
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)
    build = {"cosine": cosine, "linear": linear, "few-steps": few_steps}[schedule]
    return build(50 if levels is None else levels)
