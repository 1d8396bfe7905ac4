"""gymnasium's vectorised Pendulum-v1, stepped with one prepared batch of actions: an "update" is an environment step."""

import os
import time

from worker import serve


def setup(settings):
    if settings["core"] is not None:
        os.sched_setaffinity(0, {settings["core"]})
    import gymnasium

    envs = gymnasium.make_vec("Pendulum-v1", num_envs=settings["envs"], vectorization_mode="sync")
    envs.reset(seed=0)
    actions = envs.action_space.sample()

    def answer(request):
        calls = max(1, request["updates"] // settings["envs"])
        began = time.perf_counter()
        for _ in range(calls):
            envs.step(actions)
        seconds = time.perf_counter() - began
        return {"seconds": seconds * request["updates"] / (calls * settings["envs"])}

    return {"versions": {"gymnasium": gymnasium.__version__}}, answer


if __name__ == "__main__":
    serve(setup)
