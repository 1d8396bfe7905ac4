"""How near the IQL update comes to the machine's matrix-multiplication rate (width 256, batch 256).

The rate is that of the better of JAX and NumPy at large square products on the same cores, measured in the same rounds as the update.
A plain JAX loop of the same update (optax, unrolled critics, one gather) is measured beside it: what a compiled rival would reach.
"""

import time
from collections.abc import Callable
from typing import Any

from common import Json, Options, bar, main, say, significant, summary

BAR = 0.6


def measure(options: Options) -> Json:
    import flops
    from fitting import ACTION, BATCH, OBSERVATION, fit_rates, learner, synthetic
    from handwritten import iql_loop

    width, depth = options.pick(256, 32), 2
    data = synthetic(options.pick(100_000, 2_000))
    operations = flops.iql(OBSERVATION, ACTION, width, depth, BATCH)
    products = square_products(options.pick((512, 1024, 2048), (128,)))
    plain = iql_loop(data, width, depth, BATCH, updates=options.pick(200, 5))
    found: dict[str, list[float]] = {name: [] for name in (*products, "plain JAX loop")}

    def turn() -> None:
        for name, product in products.items():
            found[name].append(product())
        found["plain JAX loop"].append(plain())

    turn()
    for values in found.values():
        values.clear()
    say("rounds of fit, matrix products and the plain loop")
    updates = options.pick(400, 5)
    rates = fit_rates(learner("iql", width, depth), data, updates=updates, rounds=options.pick(15, 2), between=turn)
    peak = [max(row) for row in zip(*(found[name] for name in products), strict=True)]
    return {
        "shapes": {"width": width, "depth": depth, "batch": BATCH, "observation": OBSERVATION, "action": ACTION},
        "operations per update": operations,
        "matrix products, GFLOP/s": {name: summary([v / 1e9 for v in found[name]]) for name in products},
        "fit, updates per second": summary(rates),
        "share of the rate": _share(rates, operations, peak) | bar(_share(rates, operations, peak)["median"], at_least=BAR),
        "share of a plain JAX loop": _share(found["plain JAX loop"], operations, peak),
    }


def square_products(sizes: tuple[int, ...]) -> dict[str, Callable[[], float]]:
    """Operations per second of large square products, in JAX and in NumPy."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    multiply = jax.jit(jnp.matmul)

    def rate(product: Callable[[], Any], size: int) -> Callable[[], float]:
        repeats = max(1, 2 * 1024**3 // size**3)

        def run() -> float:
            began = time.perf_counter()
            for _ in range(repeats):
                last = product()
            jax.block_until_ready(last)
            return repeats * 2 * size**3 / (time.perf_counter() - began)

        return run

    sides = {}
    for size in sizes:
        host = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
        device = jnp.asarray(host)
        sides[f"jax {size}"] = rate(lambda a=device: multiply(a, a), size)
        sides[f"numpy {size}"] = rate(lambda a=host: a @ a, size)
    return sides


def _share(rates: list[float], operations: int, peak: list[float]) -> Json:
    shares = summary([rate * operations / best for rate, best in zip(rates, peak, strict=True)], 3)
    return shares | {"best rate over best product": significant(max(rates) * operations / max(peak), 3)}


if __name__ == "__main__":
    main("arithmetic", __doc__ or "", measure)
