"""polyact's rollouts of Pendulum under a random policy, in a process that can be held to one core: an "update" is an environment step."""

import os
import time

from worker import serve


def setup(settings):
    if settings["core"] is not None:
        os.sched_setaffinity(0, {settings["core"]})
    import jax

    from polyact.acting.rollout import rollout
    from polyact.envs.pendulum import Pendulum
    from polyact.policies.random_policy import RandomPolicy

    env, episodes = Pendulum(), settings["episodes"]
    policy = RandomPolicy(env.action_space)
    steps = episodes * env.horizon

    def answer(request):
        calls = max(1, request["updates"] // steps)
        began = time.perf_counter()
        for call in range(calls):
            recorded = rollout(policy, env, episodes=episodes, key=jax.random.key(call))
        seconds = time.perf_counter() - began
        assert recorded.steps == steps
        return {"seconds": seconds * request["updates"] / (calls * steps)}

    return {"versions": {"jax": jax.__version__}}, answer


if __name__ == "__main__":
    serve(setup)
