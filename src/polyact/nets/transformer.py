"""A transformer for sequences: causal with a key-value cache for acting step by step, or with attention both ways for chunks.

Positions enter only as differences (rotary embedding), so padding on either side changes nothing and a cache can roll on for ever.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.nets.layers import LayerNorm, Linear, activation

BLOCKED = -1e30


class Transformer(eqx.Module):
    """The architecture: `depth` blocks of attention with `heads` heads and a feed-forward layer `expansion` times as wide.

    context: how many tokens (itself included) a token attends to when causal; also the length of the cache.
    """

    width: int = eqx.field(static=True, default=128)
    depth: int = eqx.field(static=True, default=3)
    heads: int = eqx.field(static=True, default=4)
    expansion: int = eqx.field(static=True, default=4)
    context: int = eqx.field(static=True, default=64)
    activation: str = eqx.field(static=True, default="gelu")

    def __check_init__(self):
        if min(self.width, self.depth, self.heads, self.expansion, self.context) < 1 or self.width % (2 * self.heads):
            raise PolyactError(f"a transformer needs a width that {self.heads} heads divide into even parts, got {self.width}")
        activation(self.activation)

    def build(self, key: PRNGKeyArray) -> "Attention":
        """Blocks with fresh parameters, from tokens [T, width] to [T, width]."""
        keys = jax.random.split(key, self.depth)
        blocks = tuple(_block(self, k) for k in keys)
        return Attention(blocks, LayerNorm.build(self.width), self.heads, self.context)


class Cache(eqx.Module):
    """What a causal transformer remembers: rotated keys and values [L, C, N, D] of the last C tokens, and how many there were."""

    keys: Float[Array, "L C N D"]
    values: Float[Array, "L C N D"]
    length: Int[Array, ""]


class Block(eqx.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    before_attention: LayerNorm
    qkv: Linear
    out: Linear
    before_forward: LayerNorm
    up: Linear
    down: Linear
    activation: str = eqx.field(static=True)

    def project(self, x: Float[Array, "T W"], heads: int) -> Float[Array, "3 T N D"]:
        """Queries, keys and values."""
        return self.qkv(self.before_attention(x)).reshape(len(x), 3, heads, -1).swapaxes(0, 1)

    def finish(self, x: Float[Array, "T W"], attended: Float[Array, "T N D"]) -> Float[Array, "T W"]:
        x = x + self.out(attended.reshape(len(x), -1))
        return x + self.down(activation(self.activation)(self.up(self.before_forward(x))))


class Attention(eqx.Module):
    """A stack of transformer blocks. `causal` and `step` give exactly the same outputs; `full` attends both ways."""

    blocks: tuple[Block, ...]
    norm: LayerNorm
    heads: int = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def causal(self, tokens: Float[Array, "T W"], real: Bool[Array, " T"] | None = None) -> Float[Array, "T W"]:
        """Each token sees itself and the `context - 1` real tokens before it."""
        place = jnp.arange(len(tokens))
        back = place[:, None] - place[None, :]
        return self._forward(tokens, (back >= 0) & (back < self.context), real)

    def full(self, tokens: Float[Array, "T W"], real: Bool[Array, " T"] | None = None) -> Float[Array, "T W"]:
        """Each token sees all real tokens."""
        return self._forward(tokens, jnp.ones((len(tokens), len(tokens)), bool), real)

    def start(self) -> Cache:
        """An empty cache."""
        shape = (len(self.blocks), self.context, self.heads, self.norm.scale.shape[-1] // self.heads)
        return Cache(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros((), jnp.int32))

    def step(self, token: Float[Array, " W"], cache: Cache) -> tuple[Float[Array, " W"], Cache]:
        """The output for one more token; beyond `context` tokens the oldest is forgotten."""
        place, slot = cache.length, cache.length % self.context
        known = jnp.arange(self.context) <= place
        x, keys, values = token[None], [], []
        for layer, block in enumerate(self.blocks):
            query, key, value = block.project(x, self.heads)
            query, key = (rotated(part, place[None]) for part in (query, key))
            keys.append(cache.keys[layer].at[slot].set(key[0]))
            values.append(cache.values[layer].at[slot].set(value[0]))
            x = block.finish(x, attention(query, keys[-1], values[-1], known[None]))
        return self.norm(x)[0], Cache(jnp.stack(keys), jnp.stack(values), place + 1)

    def _forward(
        self, tokens: Float[Array, "T W"], visible: Bool[Array, "T T"], real: Bool[Array, " T"] | None
    ) -> Float[Array, "T W"]:
        if real is not None:
            visible = (visible & real) | jnp.eye(len(tokens), dtype=bool)  # padding sees itself, so that nothing divides by zero
        place, x = jnp.arange(len(tokens)), tokens
        for block in self.blocks:
            query, key, value = block.project(x, self.heads)
            x = block.finish(x, attention(rotated(query, place), rotated(key, place), value, visible))
        return self.norm(x)


def attention(
    query: Float[Array, "Q N D"], key: Float[Array, "K N D"], value: Float[Array, "K N D"], visible: Bool[Array, "Q K"]
) -> Float[Array, "Q N D"]:
    """softmax(q k / sqrt(D)) v over the visible keys, per head, with the softmax in float32."""
    scores = jnp.einsum("qnd,knd->nqk", query, key).astype(jnp.float32) / query.shape[-1] ** 0.5
    weights = jax.nn.softmax(jnp.where(visible, scores, BLOCKED), axis=-1).astype(value.dtype)
    return jnp.einsum("nqk,knd->qnd", weights, value)


def rotated(x: Float[Array, "T N D"], place: Int[Array, " T"]) -> Float[Array, "T N D"]:
    """Rotary position embedding (Su et al., 2104.09864): pairs of entries turned by angles proportional to the place."""
    half = x.shape[-1] // 2
    angle = place[:, None, None] * 10_000.0 ** (-jnp.arange(half) / half)
    left, right = x[..., :half], x[..., half:]
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    return jnp.concatenate([left * cos - right * sin, left * sin + right * cos], -1)


def _block(plan: Transformer, key: PRNGKeyArray) -> Block:
    first, second, third, fourth = jax.random.split(key, 4)
    shrink = (2 * plan.depth) ** -0.5  # keeps the sum of the residual branches at unit scale
    return Block(
        LayerNorm.build(plan.width),
        Linear.build(plan.width, 3 * plan.width, first),
        Linear.build(plan.width, plan.width, second, scale=shrink),
        LayerNorm.build(plan.width),
        Linear.build(plan.width, plan.expansion * plan.width, third),
        Linear.build(plan.expansion * plan.width, plan.width, fourth, scale=shrink),
        plan.activation,
    )
