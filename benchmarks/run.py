"""All benchmarks, or some, each in a process of its own; one JSON with what each printed."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENCHMARKS = (
    "startup",
    "rollouts",
    "arithmetic",
    "offline_updates",
    "seeds",
    "out_of_core",
    "online",
    "quality",
    "serving",
    "serving_faults",
    "crosscheck_torch",
)


def main() -> int:
    """Run what is asked for; returns 1 when a benchmark failed (not when a bar is missed)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(BENCHMARKS)}")
    parser.add_argument("--all", action="store_true", help="run every benchmark")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: only to see that everything runs")
    parser.add_argument("--peers", default=os.environ.get("POLYACT_PEERS_PYTHON"), help="Python with the peers (see README.md)")
    parser.add_argument("--out", type=Path, help="write the JSON to this file instead of standard output")
    given = parser.parse_args()
    names = BENCHMARKS if given.all else tuple(given.names)
    if not names or not set(names) <= set(BENCHMARKS):
        parser.error(f"name benchmarks ({', '.join(BENCHMARKS)}) or give --all")
    results, failed = {}, []
    if given.smoke:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # programs that run a few times cost little but their compilation
    for name in names:
        began = time.perf_counter()
        command = [sys.executable, str(HERE / f"{name}.py")]
        command += ["--smoke"] * given.smoke + (["--peers", given.peers] if given.peers else [])
        print(f"== {name}", file=sys.stderr, flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            failed.append(name)
        else:
            results[name] = json.loads(done.stdout)
        print(f"== {name}: {'failed' if done.returncode else 'done'} in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    text = json.dumps(results | ({"failed": failed} if failed else {}), indent=1)
    if given.out:
        given.out.write_text(text + "\n")
    else:
        print(text)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
