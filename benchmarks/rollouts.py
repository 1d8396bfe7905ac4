"""Environment steps per second on one core: polyact's rollouts of Pendulum against gymnasium's vectorised Pendulum-v1.

polyact records whole episodes under a random policy, as its users call it. gymnasium only steps, with one prepared action, at several
sizes of its synchronous vectorisation (the other one is a process per environment, which one core can't gain from), and its best
counts. Both are held to one core, each in a process of its own.
"""

import os
import sys

from common import Json, Missing, Options, Peer, main, ratio, say, summary

BAR = 100.0


def measure(options: Options) -> Json:
    rounds, seconds = options.pick(7, 1), options.pick(1.0, 0.05)
    core = {"core": sorted(os.sched_getaffinity(0))[-1] if hasattr(os, "sched_getaffinity") else None}
    sizes = options.pick((1, 16, 64, 256), (4,))
    sides = {f"gymnasium sync {size}": ("gymnasium_rollouts.py", {"envs": size}) for size in sizes}
    sides |= {
        f"polyact {episodes} episodes": ("polyact_rollouts.py", {"episodes": episodes})
        for episodes in options.pick((256, 1024, 4096), (4,))
    }
    rates: dict[str, list[float]] = {}
    missing: dict[str, str] = {}
    for name, (script, settings) in sides.items():
        try:
            with Peer(script, options, settings | core, python=sys.executable) as worker:
                worker.warm_up()
                rates[name] = [worker.slice(seconds) for _ in range(rounds)]
            say(f"{name}: {max(rates[name]):,.0f} steps/s")
        except Missing as reason:
            missing[name] = str(reason)
    ours = _best(rates, "polyact")
    result = {
        "unit": "environment steps per second, one core",
        "rates": {n: summary(v) for n, v in rates.items()},
        "missing": missing,
    }
    if theirs := _best(rates, "gymnasium"):
        result["ratio of the best"] = {"sides": [ours, theirs]} | ratio(rates[ours], rates[theirs], at_least=BAR)
    return result


def _best(rates: dict[str, list[float]], library: str) -> str:
    sides = [name for name in rates if name.startswith(library)]
    return max(sides, key=lambda name: sorted(rates[name])[len(rates[name]) // 2], default="")


if __name__ == "__main__":
    main("rollouts", __doc__ or "", measure)
