"""d3rlpy's IQL with polyact's settings; each answer leaves the trained actor in `actor.npz`, with predictions to check it against."""

import time
from pathlib import Path

import numpy as np
from worker import serve

SAME = ("actor_learning_rate", "critic_learning_rate", "batch_size", "expectile", "weight_temp", "max_weight", "gamma", "tau")
SAME += ("n_critics",)


def setup(settings):
    import d3rlpy
    import torch
    from d3rlpy.logging import NoopAdapterFactory

    torch.set_num_threads(settings["threads"])
    folder = Path(settings["folder"])
    data = np.load(folder / "data.npz")
    dataset = d3rlpy.dataset.MDPDataset(
        **{name: data[name] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    )
    net = d3rlpy.models.VectorEncoderFactory([settings["width"]] * settings["depth"])

    def answer(request):
        d3rlpy.seed(request["seed"])
        config = d3rlpy.algos.IQLConfig(
            **{name: settings[name] for name in SAME},
            actor_encoder_factory=net,
            critic_encoder_factory=net,
            value_encoder_factory=net,
            observation_scaler=d3rlpy.preprocessing.StandardObservationScaler(),
            action_scaler=d3rlpy.preprocessing.MinMaxActionScaler(),
        )
        algo = config.create(device="cpu:0")
        began = time.perf_counter()
        steps = settings["steps"]
        algo.fit(dataset, n_steps=steps, n_steps_per_epoch=steps, show_progress=False, logger_adapter=NoopAdapterFactory())
        seconds = time.perf_counter() - began
        save(algo, data["observations"][:100], folder / "actor.npz")
        return {"seconds": seconds}

    return {"versions": {"d3rlpy": d3rlpy.__version__, "torch": torch.__version__}}, answer


def save(algo, observations, path):
    """Every linear layer of the actor in order, and the scalers."""
    import torch

    policy = algo.impl.modules.policy
    layers = [part for part in policy._encoder.modules() if isinstance(part, torch.nn.Linear)] + [policy._mu]
    arrays = {f"weight_{number}": layer.weight.detach().numpy() for number, layer in enumerate(layers)}
    arrays |= {f"bias_{number}": layer.bias.detach().numpy() for number, layer in enumerate(layers)}
    seen, done = algo.observation_scaler, algo.action_scaler
    arrays |= {"mean": np.asarray(seen.mean), "std": np.asarray(seen.std) + seen.eps}
    arrays |= {"low": np.asarray(done.minimum), "high": np.asarray(done.maximum)}
    np.savez(path, observations=observations, predictions=algo.predict(observations), **arrays)


if __name__ == "__main__":
    serve(setup)
