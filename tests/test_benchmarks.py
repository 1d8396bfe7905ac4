"""The benchmarks count, compare and refuse as they say; that they run at all is CI's smoke run."""

import json
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.data.sampling import Batch
from polyact.policies.spec import Spec

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def benchmarks_importable():
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def counted(learner, batch):
    """What XLA counts for one update, before it optimises anything away."""
    from fitting import ACTION, OBSERVATION, synthetic

    data = synthetic(1000)
    spec = Spec.of(data.observation_space, data.action_space, 10)
    state = eqx.filter_jit(learner.init)(spec, jax.random.key(0))
    rows = jnp.zeros(batch)
    example = Batch(jnp.zeros((batch, OBSERVATION)), jnp.zeros((batch, ACTION)), rows, jnp.zeros((batch, OBSERVATION)), rows)
    arrays, static = eqx.partition(state, eqx.is_array)
    update = jax.jit(
        lambda arrays: eqx.filter(learner.update(eqx.combine(arrays, static), example, jax.random.key(0)), eqx.is_array)
    )
    analysis = update.lower(arrays).cost_analysis()
    assert analysis is not None
    return analysis["flops"]


def test_the_counted_arithmetic_is_what_xla_counts():
    import flops
    from fitting import ACTION, BATCH, OBSERVATION, learner

    ours = flops.iql(OBSERVATION, ACTION, 128, 2, BATCH)
    assert ours <= counted(learner("iql", 128), BATCH) <= 1.05 * ours
    ours = flops.cql(OBSERVATION, ACTION, 128, 2, BATCH, samples=4)
    assert ours <= counted(learner("cql", 128, 2, "samples=4"), BATCH) <= 1.1 * ours


def test_a_linear_layer_is_counted_by_hand():
    from flops import Net

    net = Net((3, 5, 2))
    assert net.forward(7) == 2 * 7 * (3 * 5 + 5 * 2)
    assert net.train(7) == 2 * net.forward(7) + 2 * 7 * 5 * 2
    assert net.backward(7, weights=False, inputs=True) == net.forward(7)


def test_ratios_are_taken_round_by_round_and_judged():
    from common import ratio

    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0], at_least=2.0) == {
        "median": 2.0,
        "low": 1.0,
        "high": 3.0,
        "rounds": 3,
        "bar": ">= 2",
        "met": True,
    }
    assert ratio([9.0], [1.0], at_most=8.0)["met"] is False
    assert "met" not in ratio([9.0], [1.0])


def test_sides_take_turns_and_the_first_round_does_not_count():
    from common import take_turns

    order = []
    sides = {name: lambda name=name: order.append(name) or float(len(order)) for name in "ab"}
    assert take_turns(sides, 2) == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
    assert order == list("ababab")


def test_a_smoke_run_without_peers_reports_them_missing_and_judges_nothing():
    command = [sys.executable, str(FOLDER / "offline_updates.py"), "--smoke", "--only", "bc"]
    environment = {"PATH": "/usr/bin:/bin", "POLYACT_CACHE": "off"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    result = json.loads(done.stdout)
    found = result["results"]["bc"]
    assert found["polyact"]["median"] > 0
    assert set(found["missing"]) == {"d3rlpy", "d3rlpy compile_graph", "torch loop", "torch loop compiled"}
    assert found["ratios"] == {}
    assert "smoke" in result["not_judged"]


@pytest.mark.parametrize("script", ["torch_updates.py", "d3rlpy_updates.py", "d3rlpy_iql.py", "sb3_online.py"])
def test_a_python_without_the_library_is_a_missing_peer(script, tmp_path):
    from common import Missing, Options, Peer

    blocked = {"torch": "torch", "d3rlpy": "d3rlpy", "sb3": "gymnasium"}[script.split("_")[0]]
    (tmp_path / f"{blocked}.py").write_text(f"raise ImportError('not here', name='{blocked}')")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(Missing, match=f"{blocked} is not installed"):
            Peer(script, Options(True, sys.executable, 1), {"algorithm": "ppo", "compiled": False, "episodes": 1})


def test_no_python_for_peers_is_a_missing_peer():
    from common import Missing, Options, Peer

    with pytest.raises(Missing, match="no Python with the peers"):
        Peer("torch_updates.py", Options(True, None, 1), {})
    with pytest.raises(Missing, match="can't be started"):
        Peer("torch_updates.py", Options(True, "/no/such/python", 1), {})


def test_what_a_busy_machine_measures_is_not_judged():
    from common import Options, _unjudged, _why_not_judged

    quiet, full = Options(True, None, 1), Options(False, None, 1)
    assert _why_not_judged(quiet, 0.0)
    assert _why_not_judged(full, 0.5)
    assert _why_not_judged(full, 0.05) is None
    assert _why_not_judged(full, None) is None
    assert _unjudged({"a": {"met": True, "value": 1}, "b": [{"met": False}]}) == {
        "a": {"met": None, "value": 1},
        "b": [{"met": None}],
    }


def test_settings_are_chosen_on_other_seeds_than_those_of_the_test():
    from common import Options
    from judging import Seeds

    tuning, test = (Seeds.of(Options(False, None, 1, (), chosen)) for chosen in (True, False))
    assert max(tuning.training, tuning.judging, tuning.collecting) + tuning.runs < 1000
    assert min(test.training, test.judging, test.collecting) >= 1000


def test_a_mean_return_is_held_against_its_bar_and_so_is_every_seed():
    from judging import differing, reaching

    scores = np.array([[1.0, 3.0], [5.0, 7.0]])
    found = reaching(scores, 3.0)
    assert (found["mean"]["value"], found["by seed"], found["met"], found["seeds that reach it"]) == (4.0, [2.0, 6.0], True, 1)
    assert reaching(scores, 4.5)["met"] is False
    gap = differing(scores + 1, scores)
    assert (gap["low"], gap["value"], gap["by seed"]) == (1.0, 1.0, [1.0, 1.0])


def test_d3rlpy_is_told_our_settings():
    from d3rlpy_side import settings_of

    from polyact.learning.iql import IQL
    from polyact.learning.optimiser import Optimiser

    told = settings_of(IQL(actor_optimiser=Optimiser(1e-3), expectile=0.8, temperature=5.0))
    assert (told["actor_learning_rate"], told["critic_learning_rate"]) == (1e-3, 3e-4)
    assert (told["expectile"], told["weight_temp"], told["n_critics"], told["width"]) == (0.8, 5.0, 2, 256)
    with pytest.raises(ValueError, match="one constant rate"):
        settings_of(IQL())


def test_synthetic_data_for_peers_is_the_same_data(tmp_path):
    from fitting import synthetic, write_for_peers

    source = synthetic(3000)
    write_for_peers(source, tmp_path / "data.npz")
    flat, episodes = np.load(tmp_path / "data.npz"), source.episodes
    assert episodes.lengths.tolist() == [1000] * 3
    np.testing.assert_array_equal(flat["observations"][1000:2000], np.asarray(episodes.observation)[1001:2001])
    np.testing.assert_array_equal(np.flatnonzero(flat["timeouts"]), [999, 1999, 2999])
    assert not flat["terminals"].any()


def test_fit_is_timed_once_per_interval_for_any_number_of_seeds():
    from fitting import fit_rates, learner, synthetic

    calls = []
    rates = fit_rates(learner("bc", 8), synthetic(1000), updates=3, rounds=2, between=lambda: calls.append(1), seeds=2)
    assert len(rates) == 2
    assert len(calls) == 2
    assert min(rates) > 0


def test_the_hand_written_loop_learns_what_it_times():
    from fitting import synthetic
    from handwritten import iql_loop

    assert iql_loop(synthetic(1000), 8, 1, 16, updates=2)() > 0


def test_batches_from_the_host_are_those_from_the_device():
    sys.path.insert(0, str(FOLDER / "peers"))
    try:
        from polyact_out_of_core import hashing_learner
    finally:
        sys.path.remove(str(FOLDER / "peers"))
    from fitting import synthetic

    from polyact.learning.fit import fit

    data, options = synthetic(2000), {"steps": 7, "batch_size": 16, "progress": False}
    hashes = [
        int(fit(hashing_learner(), data, key=jax.random.key(seed), device_memory=budget, **options).states[0])
        for seed, budget in ((0, 1 << 30), (0, 1000), (1, 1 << 30))
    ]
    assert hashes[0] == hashes[1] != hashes[2]
