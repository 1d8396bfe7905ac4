"""Training on a data set several times what may live on the device: the same batches, bounded memory, and the price in speed.

The set is a folder of memory-mapped columns. A learner that only hashes its batches shows that they are the same, bit for bit, as those
drawn from data on the device. Memory is what the process itself allocates: pages of the mapped file, which the system may drop at any
time, are not counted.
"""

import sys
import tempfile
from pathlib import Path

from common import Json, Options, Peer, main, ratio, say, summary

TIMES = 6  # how many times the budget the data set is
ROW = 4 * (17 + 6 + 1 + 1)  # bytes of a step on the device


def measure(options: Options) -> Json:
    from fitting import BATCH, fit_rates, learner

    from polyact.data.formats import read

    steps = options.pick(3_000_000, 24_000)
    budget = steps * ROW // TIMES
    result: Json = {"steps of data": steps, "budget, MiB": round(budget / 2**20, 2), "times the budget": TIMES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        say("writing the data set")
        _write(path, steps)
        sides = {"on the device": 1 << 40, "on the host": budget}
        result |= _compare(path, sides, options)
        (source,) = read(path)
        for name in ("iql", "bc"):
            say(f"rates of {name}")
            model = learner(name, options.pick(256, 16))
            rates = {side: [] for side in sides}
            for _ in range(options.pick(5, 1)):
                for side, bytes_on_device in sides.items():
                    count = options.pick(600, 8)
                    rates[side] += fit_rates(model, source, updates=count, rounds=1, device_memory=bytes_on_device)
            host, device = rates["on the host"], rates["on the device"]
            result[f"{name}, updates per second"] = {side: summary(values) for side, values in rates.items()}
            result[f"{name}, host over device"] = ratio(host, device)
    return result | {"batch": BATCH}


def _compare(path: Path, sides: dict[str, int], options: Options) -> Json:
    found = {}
    for side, budget in sides.items():
        say(f"hashing batches of data {side}")
        settings = {"path": str(path), "budget": budget, "updates": options.pick(3_000, 20)}
        with Peer("polyact_out_of_core.py", options, settings, python=sys.executable) as worker:
            found[side] = worker.ask({})
    hashes = {side: values.pop("hash") for side, values in found.items()}
    return {"memory, MiB": found, "same batches": len(set(hashes.values())) == 1}


def _write(path: Path, steps: int) -> None:
    from fitting import EPISODE, synthetic

    from polyact.data import Source
    from polyact.data.episodes import empty_like
    from polyact.data.formats.folder import FolderWriter

    first = synthetic(EPISODE)
    template = Source(empty_like(first.episodes), "large", first.observation_space, first.action_space)
    block = min(steps, 100 * EPISODE)
    with FolderWriter(path, template) as writer:
        for seed in range(steps // block):
            writer.append(synthetic(block, seed).episodes)


if __name__ == "__main__":
    main("out_of_core", __doc__ or "", measure)
