"""openpi's own client, unmodified, against `polyact serve`: metadata, actions, a recurrent conversation, errors and the API key.

It runs under the peers' Python (`pip install openpi-client typing_extensions`), because it wants NumPy 1; the server under this one.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import Json, Options, main
from serving_sides import OBSERVATION, policies, polyact_serve

KEY = "a-key-for-the-crosscheck"
CLIENT = """
import json, sys
import numpy as np
from openpi_client import websocket_client_policy as w
client = w.WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), sys.argv[2])
observation = {"observation/state": np.linspace(-1, 1, int(sys.argv[3]), dtype=np.float32), "prompt": "pick up the cup"}
found = [client.infer(observation) for _ in range(3)]
client.reset()
try:
    client.infer({"observation/stat": observation["observation/state"]})
    error = None
except RuntimeError as caught:
    error = str(caught)
again = client.infer(observation)
print(json.dumps({
    "metadata": sorted(client.get_server_metadata()),
    "actions": [reply["actions"].tolist() for reply in [*found, again]],
    "keys": sorted(found[0]),
    "error": error,
}))
"""


def measure(options: Options) -> Json:
    with tempfile.TemporaryDirectory() as place:
        folders = policies(Path(place))
        (Path(place) / "key").write_text(KEY)
        found = {}
        for name, folder in folders.items():
            with polyact_serve(folder, "--api-key-file", str(Path(place) / "key")) as (port, _):
                found[name] = _against(folder, _client(options, port, KEY))
                refused = _client(options, port, "a-wrong-key-altogether", fails=True)
        return {"policies": found, "refuses a wrong key": {"said": refused, "met": "401" in refused}}


def _client(options: Options, port: int, key: str, *, fails: bool = False) -> str:
    """What openpi's client prints; the last line of its error when it is to fail."""
    command = [options.peers or sys.executable, "-c", CLIENT, str(port), key, str(OBSERVATION)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    if "No module named 'openpi_client'" in done.stderr:
        raise SystemExit("crosscheck_openpi needs a Python with openpi-client (--peers)")
    if fails != bool(done.returncode):
        raise RuntimeError(f"openpi's client ended with {done.returncode}: {done.stderr[-300:]}")
    return done.stderr.strip().splitlines()[-1] if fails else done.stdout


def _against(folder: Path, said: str) -> Json:
    """What the client got, beside what the policy alone does."""
    import equinox as eqx
    import jax

    from polyact import saving
    from polyact.acting.streams import ACTOR, memory_key, step_key
    from polyact.policies.base import ChunkPolicy

    policy, reply, key = saving.load(folder), json.loads(said), jax.random.fold_in(jax.random.key(0), 0)
    observation = np.linspace(-1, 1, OBSERVATION, dtype=np.float32)
    memory, expected = policy.start(memory_key(key)), []
    plan = eqx.filter_jit(policy.chunk if isinstance(policy, ChunkPolicy) else policy.act)
    for tick in range(4):
        action, memory = plan(observation, memory, step_key(key, ACTOR, tick))
        expected.append(np.asarray(action).reshape(-1, action.shape[-1]))
    difference = float(np.abs(np.asarray(expected) - np.asarray(reply["actions"])).max())
    return {
        "largest difference from the policy alone": {"value": difference, "bar": "<= 1e-05", "met": difference <= 1e-5},
        "reply keys": reply["keys"],
        "error as text": {"said": reply["error"], "met": "did you mean 'observation/state'" in (reply["error"] or "")},
    }


if __name__ == "__main__":
    main("crosscheck_openpi", __doc__ or "", measure, times_matter=False)
