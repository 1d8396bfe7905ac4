"""What eight seeds cost beside one: IQL through `fit(..., seeds=8)`, as time per update of all eight over time per update of one.

On a GPU, where there is one: 64 seeds of width 64 beside one.
"""

from typing import Any

from common import Json, Options, main, ratio, say, summary

CPU_CASES = {256: 8.0, 64: 5.0}
GPU_CASE = (64, 64, 4.0)


def measure(options: Options) -> Json:
    import jax
    from fitting import synthetic

    data = synthetic(options.pick(100_000, 2_000))
    result: Json = {"device": jax.devices()[0].device_kind, "unit": "seconds per update of all seeds"}
    if jax.default_backend() == "cpu":
        cases = {f"8 seeds, width {width}": (width, 8, most) for width, most in CPU_CASES.items()}
        result["64 seeds on a GPU"] = "not measured: no GPU here"
    else:
        width, seeds, most = GPU_CASE
        cases = {f"{seeds} seeds, width {width}": (width, seeds, most)}
    for name, (width, seeds, most) in cases.items():
        say(name)
        result[name] = _compare(data, options.pick(width, 16), seeds, most, options)
    return result


def _compare(data: Any, width: int, seeds: int, most: float, options: Options) -> Json:
    """One seed's intervals between those of many seeds, so that both meet the same machine."""
    from fitting import fit_rates, learner

    iql, rounds = learner("iql", width), options.pick(7, 1)
    pace = fit_rates(iql, data, updates=options.pick(100, 5), rounds=2)[-1]
    updates = max(2, round(pace * options.pick(1.0, 0.02)))
    one: list[float] = []
    many: list[float] = []
    for _ in range(rounds):
        one += [1 / rate for rate in fit_rates(iql, data, updates=updates, rounds=1)]
        many += [1 / rate for rate in fit_rates(iql, data, updates=updates, rounds=1, seeds=seeds)]
    return {"one": summary(one), "all": summary(many), "ratio": ratio(many, one, at_most=most)}


if __name__ == "__main__":
    main("seeds", __doc__ or "", measure)
