"""Updates per second of BC, TD3+BC, IQL and CQL: polyact, d3rlpy (eager, compile_graph) and PyTorch loops (eager, torch.compile).

Same shapes, data, networks, batch and cores; every round gives each side a slice. Ratios are polyact's rate over the peer's.
"""

import tempfile
from pathlib import Path
from typing import Any

import flops
from arithmetic import square_products
from common import Json, Missing, Options, Peer, main, ratio, say, summary

ALGORITHMS = ("bc", "td3-bc", "iql", "cql")
SIDES = {
    "d3rlpy": ("d3rlpy_updates.py", False),
    "d3rlpy compile_graph": ("d3rlpy_updates.py", True),
    "torch loop": ("torch_updates.py", False),
    "torch loop compiled": ("torch_updates.py", True),
}
BARS = {"d3rlpy": 3.0, "d3rlpy compile_graph": 2.0}
LOOP_BAR = 1.5


def measure(options: Options) -> Json:
    from fitting import ACTION, BATCH, OBSERVATION, synthetic, write_for_peers

    sizes = {"width": options.pick(256, 16), "depth": 2, "batch": BATCH}
    data = synthetic(options.pick(100_000, 2_000))
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.npz"
        write_for_peers(data, file)
        for name in options.only:
            results[name] = _algorithm(name, data, sizes | {"data": str(file)}, options)
    shapes = sizes | {"observation": OBSERVATION, "action": ACTION, "steps of data": data.episodes.steps}
    return {"shapes": shapes, "unit": "updates per second", "results": results}


def _algorithm(name: str, data: Any, settings: Json, options: Options) -> Json:
    from fitting import fit_rates, learner

    settings = settings | {"algorithm": name, "action_samples": 10, "conservative_weight": 5.0}  # the last two are CQL's
    seconds, rounds = options.pick(1.5, 0.1), options.pick(7, 1)
    peers, rates, missing, notes = {}, {}, {}, {}
    for side, (script, compiled) in SIDES.items():
        say(f"{name}: starting {side}")
        try:
            peers[side] = Peer(script, options, settings | {"compiled": compiled})
            peers[side].warm_up()
            rates[side] = []
            if "note" in peers[side].facts:
                notes[side] = peers[side].facts["note"]
        except Missing as reason:
            peers.pop(side, None)
            missing[side] = str(reason)
    ours = learner(name, settings["width"], settings["depth"], *OURS[name])

    products = square_products(options.pick((1024, 2048), (128,)))
    peak: list[float] = []

    def turn() -> None:
        for side, peer in peers.items():
            rates[side].append(peer.slice(seconds))
        peak.append(max(product() for product in products.values()))

    try:
        pace = fit_rates(ours, data, updates=options.pick(50, 5), rounds=2)[-1]
        say(f"{name}: polyact at about {pace:.0f} updates/s; {rounds} rounds")
        own = fit_rates(ours, data, updates=max(2, round(pace * seconds)), rounds=rounds, between=turn)
    finally:
        for peer in peers.values():
            peer.close()
    return {
        "polyact": summary(own),
        **{side: summary(values) for side, values in rates.items()},
        "ratios": {side: ratio(own, values, at_least=BARS.get(side)) for side, values in rates.items()}
        | _against_loops(own, rates),
        "arithmetic": _arithmetic(name, settings, own, rates.get("d3rlpy"), peak),
        "missing": missing,
        "notes": notes,
        "versions": {package: v for peer in peers.values() for package, v in peer.facts["versions"].items()},
    }


def _against_loops(own: list[float], rates: dict[str, list[float]]) -> Json:
    loops = [rates[side] for side in ("torch loop", "torch loop compiled") if side in rates]
    if len(loops) < 2:
        return {}
    return {"better torch loop": ratio(own, [max(pair) for pair in zip(*loops, strict=True)], at_least=LOOP_BAR)}


def _arithmetic(name: str, settings: Json, own: list[float], theirs: list[float] | None, peak: list[float]) -> Json:
    """Where the arithmetic is counted: the share of the matrix-multiplication rate that is reached, and what the whole of it would be as a
    ratio to d3rlpy. A bar above that can't be met by any program that does this arithmetic."""
    from fitting import ACTION, OBSERVATION

    shape = (OBSERVATION, ACTION, settings["width"], settings["depth"], settings["batch"])
    counted = {"iql": lambda: flops.iql(*shape), "cql": lambda: flops.cql(*shape, settings["action_samples"])}
    if name not in counted:
        return {}
    operations = counted[name]()
    ceiling = [best / operations for best in peak]
    found: Json = {"operations per update": operations, "share of the rate": ratio(own, ceiling)}
    return found if theirs is None else found | {"d3rlpy at the whole rate": ratio(ceiling, theirs)}


OURS = {
    "bc": ("policy=deterministic",),
    "td3-bc": (),
    "iql": (),
    "cql": ("conservative=5.0", "samples=10", "learning_rate=3e-4"),
}


if __name__ == "__main__":
    main("offline_updates", __doc__ or "", measure, ALGORITHMS)
