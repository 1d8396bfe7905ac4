"""Hashes every batch that `fit` hands to a learner, and watches how much memory the process allocates meanwhile."""

import threading
import time
from pathlib import Path

from worker import serve


def setup(settings):
    import jax

    from polyact.data.formats import read
    from polyact.learning.fit import fit

    learner = hashing_learner()
    (source,) = read(settings["path"])

    def answer(_):
        with Watch() as watch:
            made = fit(
                learner,
                source,
                steps=settings["updates"],
                key=jax.random.key(0),
                device_memory=settings["budget"],
                progress=False,
            )
        return {"hash": int(made.states[0]), "before": watch.before, "peak": watch.peak}

    return {"versions": {"jax": jax.__version__}}, answer


def hashing_learner():
    """A learner whose state is a hash of all batches so far, order included."""
    from typing import ClassVar

    import jax
    import jax.numpy as jnp

    from polyact.data.sampling import Transitions
    from polyact.learning.base import Learner
    from polyact.policies.random_policy import RandomPolicy

    class Hashing(Learner):
        needs: ClassVar[tuple[str, ...]] = ("observation", "action", "reward")

        def sampling(self, spec):
            return Transitions()

        def init(self, spec, key):
            return jnp.zeros((), jnp.uint32)

        def update(self, state, batch, key):
            for leaf in jax.tree.leaves(batch):
                bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
                places = jnp.arange(1, bits.size + 1, dtype=jnp.uint32)
                state = state * jnp.uint32(16777619) + jnp.sum((bits ^ (bits >> 15)) * (2 * places + 1))
            return state, {"rows": jnp.asarray(batch.reward.shape[0], jnp.float32)}

        def policy(self, state):
            from polyact.spaces import Discrete

            return RandomPolicy(Discrete(2))

    return Hashing()


class Watch:
    """Peak of the memory that is the process's own, in MiB, sampled."""

    def __enter__(self):
        self.before = self.peak = allocated()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def _sample(self):
        while not self.ended.is_set():
            self.peak = max(self.peak, allocated())
            time.sleep(0.01)


def allocated():
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024, 1)


if __name__ == "__main__":
    serve(setup)
