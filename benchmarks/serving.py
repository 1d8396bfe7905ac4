"""Whether `polyact serve` answers in time: at a steady rate, at saturation beside plain servers, and with a generative policy.

Servers and clients are processes of their own on one machine, over loopback. Latency is what a client sees, from before it sends until
it has unpacked the answer.
"""

import asyncio
import contextlib
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import Json, Options, bar, main, ratio, say, significant, summary, take_turns
from serving_sides import at_rate, flat_out, plain_server, policies, polyact_serve

CLIENTS, HZ, P99_MS = 8, 50.0, 5.0
CHUNK_HZ = 20.0
CROWD, TIMES_EAGER = 32, 3.0
PARTS = ("paced", "generative", "saturation")


def measure(options: Options) -> Json:
    result: Json = {}
    with tempfile.TemporaryDirectory() as place:
        folders = policies(Path(place))
        measures = {
            "paced": lambda: steady(folders["mlp"], options, CLIENTS, HZ, P99_MS),
            "generative": lambda: steady(folders["flow"], options, 1, CHUNK_HZ, 1000 / CHUNK_HZ),
            "saturation": lambda: saturation(folders["mlp"], options),
        }
        for name in options.only:
            say(name)
            result[name] = measures[name]()
    return result


def steady(folder: Path, options: Options, clients: int, hz: float, most: float) -> Json:
    """Clients that ask at a steady rate, each at a moment of its own within the interval; the bar is on the 99% quantile in ms."""
    with polyact_serve(folder) as (port, _):
        asyncio.run(at_rate(port, clients, hz, 1.0))
        rounds = [asyncio.run(at_rate(port, clients, hz, options.pick(6.0, 0.5))) for _ in range(options.pick(5, 1))]
    found = {"clients": clients, "hz": hz, "unit": "ms", "requests": sum(map(len, rounds))}
    for name, share in (("median", 0.5), ("95%", 0.95), ("99%", 0.99), ("maximum", 1.0)):
        found[name] = summary(_quantiles(rounds, share))
    found["99%"] |= bar(statistics.median(_quantiles(rounds, 0.99)), at_most=most)
    return found


def saturation(folder: Path, options: Options) -> Json:
    """Clients that ask again as soon as they are answered: requests per second of three servers, which take turns."""
    seconds = options.pick(3.0, 0.3)
    with contextlib.ExitStack() as stack:
        ports = {
            "polyact": stack.enter_context(polyact_serve(folder))[0],
            "eager": stack.enter_context(plain_server(folder, "eager")),
            "compiled": stack.enter_context(plain_server(folder, "compiled")),
        }
        sides = {name: lambda port=port: asyncio.run(flat_out(port, CROWD, seconds)) for name, port in ports.items()}
        found = take_turns(sides, options.pick(5, 1))
    return {
        "clients": CROWD,
        "unit": "requests per second",
        "polyact serve": summary(found["polyact"]),
        "one eager call per request": summary(found["eager"]),
        "one compiled call per request": summary(found["compiled"]),
        "over eager": ratio(found["polyact"], found["eager"], at_least=TIMES_EAGER),
        "over compiled": ratio(found["polyact"], found["compiled"]),
    }


def _quantiles(rounds: Sequence[Sequence[float]], share: float) -> list[float]:
    return [significant(float(np.quantile(latencies, share))) for latencies in rounds]


if __name__ == "__main__":
    main("serving", __doc__ or "", measure, PARTS)
