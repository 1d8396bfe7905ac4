"""Stable-Baselines3's PPO and SAC on Pendulum-v1, stopped at the return asked for. The clock stands still during evaluations."""

import time

from worker import serve

SETTINGS = {  # rl-baselines3-zoo, hyperparams/ppo.yml and sac.yml, "Tuned" for Pendulum-v1
    "ppo": {
        "n_steps": 1024,
        "gae_lambda": 0.95,
        "gamma": 0.9,
        "n_epochs": 10,
        "ent_coef": 0.0,
        "learning_rate": 1e-3,
        "clip_range": 0.2,
        "use_sde": True,
        "sde_sample_freq": 4,
    },
    "sac": {"learning_rate": 1e-3},
}
ENVS = {"ppo": 4, "sac": 1}


def setup(settings):
    import gymnasium
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    name, episodes = settings["algorithm"], settings["episodes"]
    algorithm = {"ppo": stable_baselines3.PPO, "sac": stable_baselines3.SAC}[name]
    judge_envs = make_vec_env("Pendulum-v1", n_envs=episodes, seed=1000)

    class Judge(BaseCallback):
        """Evaluates every so many environment steps and stops at the return wanted."""

        def __init__(self):
            super().__init__()
            self.curve, self.paused = [], 0.0

        def _on_training_start(self):
            self.began = time.perf_counter()

        def _on_step(self):
            if self.num_timesteps % settings["evaluate_every"]:
                return True
            stopped = time.perf_counter()
            seconds = stopped - self.began - self.paused
            judge_envs.seed(1000)
            value, _ = evaluate_policy(self.model, judge_envs, n_eval_episodes=episodes, deterministic=True, warn=False)
            self.curve.append({"steps": self.num_timesteps, "seconds": seconds, "return": float(value)})
            self.paused += time.perf_counter() - stopped
            return value < settings["target"]

    def answer(request):
        torch.set_num_threads(request["torch_threads"])
        envs = make_vec_env("Pendulum-v1", n_envs=ENVS[name], seed=request["seed"])
        model = algorithm("MlpPolicy", envs, seed=request["seed"], device="cpu", **SETTINGS[name])
        judge = Judge()
        model.learn(settings["steps"], callback=judge)
        return {"curve": judge.curve}

    versions = {"stable-baselines3": stable_baselines3.__version__, "torch": torch.__version__, "gymnasium": gymnasium.__version__}
    return {"versions": versions}, answer


if __name__ == "__main__":
    serve(setup)
