"""What every policy made of an encoder, a denoiser and a path has in common: conditioning, sampling, cloning."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact.data.sampling import Batch, Chunks
from polyact.errors import PolyactError
from polyact.nets.denoisers import Denoiser, build_denoiser
from polyact.nets.mlp import MLP, Network
from polyact.policies.base import AbstractVar, Memory, NoisePolicy, Observation
from polyact.policies.chunk import PastChunkPolicy, chunk_batch
from polyact.policies.generative.chain import Sampler, changed, denoise
from polyact.policies.generative.denoised import Change, Denoised, Field, from_clean, from_output, network_input, network_target
from polyact.policies.generative.paths import Path
from polyact.policies.recurrent import masked_mean
from polyact.policies.spec import Body, Spec


class DenoisingPolicy(NoisePolicy, PastChunkPolicy):
    """The last `history` observations -> encoder -> condition; noise and condition -> denoiser, `sampler.steps` times -> chunk.

    null [C]: the condition that stands for "not told"; in training it replaces a share `drop` of the conditions. clip: estimates of the
    chunk are moved into the bounds at every step, after any change. The chunk itself always is.
    """

    body: AbstractVar[Body]
    encoder: AbstractVar[Callable]  # features [O] -> [C]
    denoiser: AbstractVar[Denoiser]
    null: AbstractVar[Float[Array, " C"]]
    path: AbstractVar[Path]
    sampler: AbstractVar[Sampler]
    form: AbstractVar[str]
    horizon: AbstractVar[int]
    history: AbstractVar[int]
    drop: AbstractVar[float]
    clip: AbstractVar[bool]

    def condition(self, memory: Memory) -> Float[Array, "K C"]:
        return jax.vmap(self.encoder)(memory.features)

    def untold(self) -> Float[Array, "K C"]:
        """The condition of the policy that is not told what is observed; PolyactError when it was never trained."""
        if not self.drop:
            raise PolyactError("a policy trained with drop=0 knows nothing of chunks without an observation")
        return jnp.broadcast_to(self.null, (self.history, *self.null.shape))

    def denoised(self, condition: Float[Array, "K C"], noisy: Float[Array, "H A"], time: Float[Array, ""]) -> Denoised:
        output = self.denoiser(network_input(self.form, self.path, noisy, time), time, condition)
        return from_output(self.form, self.path, output, noisy, time)

    def field(self, condition: Float[Array, "K C"]) -> Field:
        """`denoised` under one condition."""
        return lambda noisy, time: self.denoised(condition, noisy, time)

    def clipped(self, field: Field) -> Field:
        """A field whose estimates of the chunk are moved into the bounds, where this policy does that."""

        def inside(noisy: Array, time: Array) -> Denoised:
            known = field(noisy, time)
            return from_clean(self.path, noisy, time, self.body.continuous.clip(known.clean))

        return inside if self.clip else field

    def generate(
        self,
        condition: Float[Array, "K C"],
        key: PRNGKeyArray,
        *,
        start: Float[Array, "H A"] | None = None,
        skip: int | Int[Array, ""] = 0,
        change: Change | None = None,
    ) -> Float[Array, "H A"]:
        first, rest = jax.random.split(key)
        start = self.noise(first) if start is None else start
        field = self.clipped(changed(self.field(condition), change))
        chunk = denoise(self.sampler, self.path, field, start, rest, skip=skip)
        return self.body.continuous.clip(chunk)

    def noise(self, key: PRNGKeyArray) -> Float[Array, "H A"]:
        """What a chain starts from."""
        return self.path.start_scale * jax.random.normal(key, (self.horizon, self.body.continuous.width))

    def chunk(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Float[Array, "H ..."], Memory]:
        memory = self.observe(observation, memory)
        return jax.vmap(self.body.to_env)(self.generate(self.condition(memory), key)), memory

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        """Mean squared error of the denoiser's output at random noise levels, over the real steps."""
        past, unit = chunk_batch(self.body, self.history, batch)
        errors = jax.vmap(self.errors)(past, unit, jax.random.split(key, len(past)))
        return masked_mean(errors, batch.mask)

    def errors(self, past: Float[Array, "K O"], unit: Float[Array, "H A"], key: PRNGKeyArray) -> Float[Array, " H"]:
        """The denoiser's squared error on one chunk, at a drawn level and noise, per step."""
        level, draw, dropped = jax.random.split(key, 3)
        condition = jax.vmap(self.encoder)(past)
        if self.drop:
            condition = jnp.where(jax.random.bernoulli(dropped, self.drop), self.null, condition)
        time, noise = self.path.draw(level), jax.random.normal(draw, unit.shape)
        noisy = self.path.alpha(time) * unit + self.path.sigma(time) * noise
        output = self.denoiser(network_input(self.form, self.path, noisy, time), time, condition)
        return jnp.square(output - network_target(self.form, self.path, unit, noise, time)).mean(-1)


def build_networks(
    spec: Spec, network: Network, key: PRNGKeyArray, denoiser: str, horizon: int, history: int, drop: float
) -> tuple[MLP, Denoiser, Float[Array, " C"]]:
    """Encoder, denoiser and null condition with fresh weights; the encoder has one hidden layer and as many outputs as `network` is wide.

    Raises PolyactError when horizon, history or drop make no sense.
    """
    Chunks(horizon, history)
    if not 0 <= drop < 1:
        raise PolyactError(f"drop is a share of conditions and must lie in [0, 1), got {drop}")
    first, second = jax.random.split(key)
    body, width = spec.body, network.width
    encoder = Network(width=width, depth=1, activation="gelu").build(body.observation_width, width, first)
    built = build_denoiser(denoiser, network, horizon, body.continuous.width, (history, width), second)
    return encoder, built, jnp.zeros(width)
