"""From noise to data: a stepper run over a grid of levels as one `scan`, with places to reach into the chain."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.policies.generative.denoised import Denoised, Field
from polyact.policies.generative.paths import Path
from polyact.policies.generative.steppers import DDIM, Earlier, Langevin, Stepper

Project = Callable[[Array, Array], Array]  # (value at a level, that level) -> value: inpainting, clipping


class Sampler(eqx.Module):
    """How noise is turned into data: the kind of step, how many, and Langevin steps after each (None: none)."""

    stepper: Stepper = DDIM()
    steps: int = eqx.field(static=True, default=10)
    corrector: Langevin | None = None

    def __check_init__(self):
        if self.steps < 1:
            raise PolyactError(f"a sampler needs steps >= 1, got {self.steps}")


class Chain(eqx.Module):
    """A recorded chain: L levels, the values at them, and the normal each of the N = L - 1 steps drew from (std 0: nothing drawn)."""

    levels: Float[Array, "L"]
    values: Float[Array, "L *shape"]
    means: Float[Array, "N *shape"]
    stds: Float[Array, " N"]

    @property
    def end(self) -> Float[Array, "*shape"]:
        return self.values[-1]


def denoise(
    sampler: Sampler,
    path: Path,
    field: Field,
    noisy: Float[Array, "*shape"],
    key: PRNGKeyArray,
    *,
    levels: Float[Array, "L"] | None = None,
    project: Project | None = None,
    skip: int | Int[Array, ""] = 0,
) -> Float[Array, "*shape"]:
    """The value at the end of the chain that starts from `noisy` at the first level.

    levels: falling times, by default the path's own grid for the sampler's steps. project(value, level) changes the value after each
    step. skip: how many steps are left out at the beginning, for a value that is on its way already; where that is an array, as many
    steps are computed as the one of a batch that skips fewest takes.
    """
    plan, start = _plan(path.levels(sampler.steps) if levels is None else levels, key), (noisy, Earlier.none(noisy))

    def one(carry: Any, at: Any) -> tuple[Any, None]:
        return _advance(sampler, path, field, project, carry, *at)[0], None

    if isinstance(skip, int):
        return jax.lax.scan(one, start, jax.tree.map(lambda part: part[skip:], plan))[0][0]
    step = lambda i, carry: one(carry, jax.tree.map(lambda part: part[i], plan))[0]  # noqa: E731
    return jax.lax.fori_loop(skip, len(plan[0]), step, start)[0]


def record(
    sampler: Sampler,
    path: Path,
    field: Field,
    noisy: Float[Array, "*shape"],
    key: PRNGKeyArray,
    *,
    levels: Float[Array, "L"] | None = None,
    project: Project | None = None,
) -> Chain:
    """The same chain, with everything it passed through: what policy gradients through denoising and diagnoses need."""
    levels = path.levels(sampler.steps) if levels is None else levels

    def one(carry: Any, at: Any) -> tuple[Any, Any]:
        carry, mean, std = _advance(sampler, path, field, project, carry, *at)
        return carry, (carry[0], mean, std)

    _, (values, means, stds) = jax.lax.scan(one, (noisy, Earlier.none(noisy)), _plan(levels, key))
    return Chain(levels, jnp.concatenate([noisy[None], values]), means, stds)


def step_log_prob(value: Float[Array, "*shape"], mean: Float[Array, "*shape"], std: Float[Array, ""]) -> Float[Array, "*shape"]:
    """Log density of each entry of a value that a stochastic step drew."""
    return -0.5 * jnp.square((value - mean) / std) - jnp.log(std) - 0.5 * jnp.log(2 * jnp.pi)


def changed(field: Field, change: Callable[[Array, Array, Denoised], Denoised] | None) -> Field:
    """The field with its estimates changed; itself without a change."""
    return field if change is None else lambda noisy, time: change(noisy, time, field(noisy, time))


def _plan(levels: Float[Array, "L"], key: PRNGKeyArray) -> tuple[Array, Array, Array]:
    return levels[:-1], levels[1:], jax.random.split(key, len(levels) - 1)


def _advance(
    sampler: Sampler, path: Path, field: Field, project: Project | None, carry: Any, time: Array, next: Array, key: PRNGKeyArray
) -> tuple[tuple[Array, Earlier], Array, Array]:
    noisy, earlier = carry
    own, draw, correct = jax.random.split(key, 3)
    step = sampler.stepper.step(field, path, noisy, time, next, earlier, own)
    value = step.mean if step.std is None else step.mean + step.std * jax.random.normal(draw, noisy.shape)
    if sampler.corrector is not None:
        value = sampler.corrector.correct(field, path, value, time, next, correct)
    value = value if project is None else project(value, next)
    return (value, step.earlier), step.mean, jnp.zeros(()) if step.std is None else step.std
