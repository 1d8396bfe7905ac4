"""The server one writes first: one call of the policy per request, on the event loop, as openpi's does. The rival of `serving.py`.

python plain_server.py FOLDER eager|compiled: prints its port, and serves until it is ended. Same protocol, same validation of nothing, no
batches, no memory per connection.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from websockets.asyncio.server import serve

from polyact import saving
from polyact.client.codec import packb, unpackb
from polyact.policies.base import ChunkPolicy, Policy, greedy


async def main(folder: Path, how: str) -> None:
    policy = greedy(saving.load(folder, Policy))  # pyright: ignore[reportArgumentType]
    plan = policy.chunk if isinstance(policy, ChunkPolicy) else policy.act
    act = eqx.filter_jit(plan) if how == "compiled" else plan
    key, memory = jax.random.key(0), policy.start(jax.random.key(0))

    async def converse(socket: Any) -> None:
        await socket.send(packb({"horizon": 1}))
        async for frame in socket:
            began = time.perf_counter()
            action, _ = act(unpackb(frame)["observation/state"], memory, key)
            actions = np.atleast_2d(np.asarray(action))
            await socket.send(packb({"actions": actions, "policy_timing": {"infer_ms": 1000 * (time.perf_counter() - began)}}))

    async with serve(converse, "127.0.0.1", 0, compression=None, max_size=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
