"""d3rlpy's offline learners, trained as its users train them: `algo.fit` on a data set, without logs and progress bars."""

import time

import numpy as np
from worker import serve


def setup(settings):
    import d3rlpy
    import torch
    from d3rlpy.logging import NoopAdapterFactory

    torch.set_num_threads(settings["threads"])
    data = np.load(settings["data"])
    dataset = d3rlpy.dataset.MDPDataset(
        **{name: data[name] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    )
    algo = config(d3rlpy, settings).create(device="cpu:0")

    def answer(request):
        began = time.perf_counter()
        algo.fit(
            dataset,
            n_steps=request["updates"],
            n_steps_per_epoch=request["updates"],
            show_progress=False,
            save_interval=10**9,
            logger_adapter=NoopAdapterFactory(),
        )
        return {"seconds": time.perf_counter() - began}

    facts = {"versions": {"d3rlpy": d3rlpy.__version__, "torch": torch.__version__}}
    if settings["compiled"] and not algo.compiled:
        facts["note"] = "d3rlpy ignores compile_graph on a CPU (it needs CUDA), so this is its eager code"
    return facts, answer


def config(d3rlpy, settings):
    """The settings of `offline_updates.py` in d3rlpy's words."""
    algos, net = d3rlpy.algos, d3rlpy.models.VectorEncoderFactory([settings["width"]] * settings["depth"])
    common = {
        "batch_size": settings["batch"],
        "compile_graph": settings["compiled"],
        "observation_scaler": d3rlpy.preprocessing.StandardObservationScaler(),
        "action_scaler": d3rlpy.preprocessing.MinMaxActionScaler(),
    }
    critic = common | {"actor_encoder_factory": net, "critic_encoder_factory": net, "gamma": 0.99, "tau": 0.005, "n_critics": 2}
    rates = {"actor_learning_rate": 3e-4, "critic_learning_rate": 3e-4}
    match settings["algorithm"]:
        case "bc":
            return algos.BCConfig(**common, encoder_factory=net, learning_rate=3e-4, policy_type="deterministic")
        case "td3-bc":
            return algos.TD3PlusBCConfig(**critic, **rates, alpha=2.5, update_actor_interval=2)
        case "iql":
            return algos.IQLConfig(**critic, **rates, value_encoder_factory=net, expectile=0.7, weight_temp=3.0, max_weight=100.0)
        case "cql":
            return algos.CQLConfig(
                **critic,
                **rates,
                temp_learning_rate=3e-4,
                alpha_learning_rate=0.0,
                initial_alpha=1.0,
                conservative_weight=settings["conservative_weight"],
                alpha_threshold=0.0,
                n_action_samples=settings["action_samples"],
            )
    raise ValueError(settings["algorithm"])


if __name__ == "__main__":
    serve(setup)
