"""The engine: one program, exact resume, data on device or host, seeds, and what happens when numbers break."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.data import Episodes, Source
from polyact.data.sampling import NStep, Sampling, Transitions
from polyact.errors import PolyactError, SavedError, TrainingError
from polyact.learning import fit as engine
from polyact.learning import program
from polyact.learning.actor import Actor
from polyact.learning.averaged import Averaged
from polyact.learning.base import Learner
from polyact.learning.bc import BC
from polyact.learning.fit import fit
from polyact.learning.iql import IQL
from polyact.learning.optimiser import Optimiser, descend
from polyact.learning.td3 import TD3BC
from polyact.nets.mlp import Network
from polyact.policies.deterministic import Deterministic
from polyact.policies.gaussian import Gaussian
from polyact.policies.random_policy import RandomPolicy
from polyact.spaces import Box

SMALL = Network(width=16, depth=1)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def source():
    rng = np.random.default_rng(0)
    observation = rng.normal(size=(110, 3)).astype(np.float32)
    action = np.tanh(observation[np.arange(110) % 11 != 10][:, :2])
    episodes = Episodes(np.full(10, 10), observation, action, rng.normal(size=100), np.zeros(100, bool))
    return Source(episodes, action_space=Box(-1, 1, (2,)))


def bc(**options):
    return BC(Actor(Deterministic, SMALL), **options)


def same(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs if eqx.is_array(a))


def test_cloning_learns_the_behaviour(source):
    fitted = fit(bc(optimiser=Optimiser(1e-2)), source, steps=600, key=KEY, batch_size=32, report_every=300)
    assert fitted.history[-1]["loss"] < 0.01 < fitted.history[0]["loss"]
    action, _ = fitted.policy.act(jnp.array([0.5, -1.0, 0.0]), None, KEY)
    np.testing.assert_allclose(action, np.tanh([0.5, -1.0]), atol=0.15)


@pytest.mark.parametrize(
    "learner", [bc(), BC(Actor(Gaussian, SMALL)), TD3BC(network=SMALL, critic_network=SMALL), IQL(Actor(Gaussian, SMALL), SMALL)]
)
def test_every_learner_runs_and_reports_finite_metrics(source, learner):
    fitted = fit(learner, source, steps=20, key=KEY, batch_size=16, report_every=10)
    assert [record["step"] for record in fitted.history] == [10, 20]
    assert all(np.isfinite(value) for record in fitted.history for value in record.values())


def test_more_seeds_do_not_change_the_first(source):
    one = fit(bc(), source, steps=30, key=KEY, batch_size=16)
    three = fit(bc(), source, steps=30, key=KEY, batch_size=16, seeds=3)
    assert same(one.policy, three.policies[0])
    assert not same(three.policies[0], three.policies[1])


def test_reporting_does_not_change_the_result(source):
    often = fit(bc(), source, steps=25, key=KEY, batch_size=16, report_every=3)
    assert same(often.policy, fit(bc(), source, steps=25, key=KEY, batch_size=16).policy)


def test_one_batched_program_gives_what_threads_give(source, monkeypatch):
    threads = fit(bc(), source, steps=20, key=KEY, batch_size=16, seeds=2)
    monkeypatch.setattr(program, "one_program_each", lambda seeds: False)
    batched = fit(bc(), source, steps=20, key=KEY, batch_size=16, seeds=2)
    for one, other in zip(jax.tree.leaves(threads.policies), jax.tree.leaves(batched.policies), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert [r["seed"] for r in batched.history] == [0, 1]


@pytest.mark.parametrize("block_bytes", [1, 5000, 1 << 20])
def test_host_data_trains_to_the_same_bits(source, monkeypatch, block_bytes):
    monkeypatch.setattr(engine, "BLOCK_BYTES", block_bytes)
    learner = TD3BC(network=SMALL, critic_network=SMALL)
    device = fit(learner, source, steps=23, key=KEY, batch_size=16, report_every=10)
    host = fit(learner, source, steps=23, key=KEY, batch_size=16, report_every=10, device_memory=0)
    assert same(device.policy, host.policy)
    for one, other in zip(device.history, host.history, strict=True):
        assert one["critic_loss"] == pytest.approx(other["critic_loss"], rel=1e-6)


def test_resume_equals_an_uninterrupted_run_bit_for_bit(source, tmp_path):
    learner = TD3BC(network=SMALL, critic_network=SMALL)
    options = {"key": KEY, "batch_size": 16, "seeds": 2, "steps": 40, "report_every": 7}
    whole = fit(learner, source, **options)

    class Interrupt(Exception):
        pass

    def stop_at_20(policy):
        raise Interrupt

    with pytest.raises(Interrupt):
        fit(learner, source, **options, checkpoints=tmp_path, checkpoint_every=10, evaluate=stop_at_20, evaluate_every=24)
    assert [p.name for p in tmp_path.iterdir()] == ["000000020"]
    resumed = fit(learner, source, **options, checkpoints=tmp_path, checkpoint_every=10, resume=True)
    assert all(same(a, b) for a, b in zip(whole.states, resumed.states, strict=True))


def test_a_checkpoint_of_another_run_is_refused(source, tmp_path):
    fit(bc(), source, steps=4, key=KEY, batch_size=16, checkpoints=tmp_path)
    with pytest.raises(SavedError, match="batch_size = 16, this run has 8"):
        fit(bc(), source, steps=4, key=KEY, batch_size=8, checkpoints=tmp_path, resume=True)
    (tmp_path / "000000004" / "state.safetensors").write_bytes(b"broken")
    with pytest.raises(SavedError, match="is damaged"):
        fit(bc(), source, steps=4, key=KEY, batch_size=16, checkpoints=tmp_path, resume=True)


class Exploding(Learner):
    """Counts updates and reports infinity at one of them."""

    needs: ClassVar[tuple[str, ...]] = ("observation",)
    at: int

    def sampling(self, spec) -> Sampling:
        return Transitions()

    def init(self, spec, key):
        return jnp.zeros((), jnp.int32)

    def update(self, state, batch, key):
        return state + 1, {"loss": jnp.where(state == self.at, jnp.inf, 0.0)}

    def policy(self, state):
        return RandomPolicy(Box(-1, 1, (2,)))


def test_training_stops_at_the_first_value_that_is_not_finite(source):
    with pytest.raises(TrainingError, match="stopped at step 17: metric 'loss' is not finite") as caught:
        fit(Exploding(17), source, steps=50, key=KEY, batch_size=4, report_every=10)
    assert caught.value.progress.done == 17
    assert int(caught.value.progress.states[0]) == 17
    assert len(caught.value.progress.history) == 1


class Counting(Learner):
    needs: ClassVar[tuple[str, ...]] = ("observation", "action")
    traces: ClassVar[list[int]] = []

    def sampling(self, spec) -> Sampling:
        return Transitions()

    def init(self, spec, key):
        return Deterministic.create(spec, SMALL, key), Optimiser().init(Deterministic.create(spec, SMALL, key), spec.steps)

    def update(self, state, batch, key):
        self.traces.append(1)
        actor, optimiser, loss = descend(lambda a: (a.imitation_loss(batch, key),) * 2, state[0], Optimiser(), state[1])
        return (actor, optimiser), {"loss": loss}

    def policy(self, state):
        return state[0]


def test_a_second_run_of_the_same_shapes_compiles_nothing(source):
    compiled: list[str] = []

    def listener(event: str, seconds: float, **_) -> None:
        compiled.extend([event] if "backend_compile" in event else [])

    fit(bc(), source, steps=4, key=KEY, batch_size=8)
    jax.monitoring.register_event_duration_secs_listener(listener)
    fit(bc(), source, steps=4, key=jax.random.key(1), batch_size=8)
    assert compiled == []


def test_programs_let_go_are_compiled_again_to_the_same_result(source):
    before = fit(bc(), source, steps=4, key=KEY, batch_size=8)
    program.release_programs(unless_fewer_maps_than=10**9)
    assert program._PROGRAMS
    program.release_programs()
    assert not program._PROGRAMS
    assert same(before.policy, fit(bc(), source, steps=4, key=KEY, batch_size=8).policy)


def test_programs_keep_products_from_ynnpack_and_compile_where_there_is_none(monkeypatch):
    lowered = jax.jit(lambda a: a @ a).lower(jnp.ones((64, 64)))
    assert "ynn_fusion" not in program._compiled(lowered).as_text()
    monkeypatch.setattr(program, "WITHOUT_YNN", {"xla_no_such_option": "1"})
    assert program._compiled(lowered)(jnp.ones((64, 64)))[0, 0] == 64
    monkeypatch.setattr(program, "WITHOUT_YNN", {"xla_cpu_copy_insertion_use_region_analysis": "neither"})
    with pytest.raises(Exception, match="xla_cpu_copy_insertion_use_region_analysis"):
        program._compiled(lowered)


def test_one_compilation_however_many_intervals(source):
    Counting.traces.clear()
    fit(Counting(), source, steps=47, key=KEY, batch_size=4, report_every=5, seeds=2)
    assert len(Counting.traces) == 1  # the names of the metrics come from the same trace
    fit(Counting(), source, steps=30, key=KEY, batch_size=4)
    assert len(Counting.traces) == 1


def test_options_without_effect_are_refused(source):
    for option in ({"evaluate_every": 5}, {"checkpoint_every": 5}, {"resume": True}):
        with pytest.raises(PolyactError, match="has no effect without"):
            fit(bc(), source, steps=5, key=KEY, **option)
    with pytest.raises(PolyactError, match="unknown option of Deterministic 'hidden'"):
        Actor(Deterministic, hidden=3)


def test_schedules_rise_and_fall():
    rate = Optimiser(1.0, "cosine", warmup=10).rate
    assert [round(float(rate(jnp.int32(c), jnp.int32(100))), 3) for c in (0, 4, 50, 100)] == [0.1, 0.498, 0.5, 0.0]
    assert float(Optimiser(1.0, "linear", final=0.2).rate(jnp.int32(50), jnp.int32(100))) == pytest.approx(0.6)
    with pytest.raises(PolyactError, match="schedule is 'step'"):
        Optimiser(schedule="step")


def test_the_average_of_the_weights_is_what_a_loop_gives(source):
    learner, decay = bc(), 0.5
    averaged = fit(Averaged(learner, decay), source, steps=2, key=KEY, batch_size=16, report_every=1)
    kept = []
    fit(learner, source, steps=2, key=KEY, batch_size=16, evaluate=lambda p: kept.append(p) or {}, evaluate_every=1)
    start = learner.init(averaged.spec, jax.random.fold_in(jax.random.fold_in(KEY, 0), 2**31 - 1)).actor
    weights = [p.network.last.weight for p in (start, *kept)]
    expected = decay * (decay * weights[0] + (1 - decay) * weights[1]) + (1 - decay) * weights[2]
    np.testing.assert_allclose(averaged.policy.network.last.weight, expected, rtol=1e-5)


@pytest.mark.parametrize("wrong", [{"learning_rate": -1.0}, {"clip_norm": 0.0}, {"warmup": -1}, {"weight_decay": -0.1}])
def test_an_optimiser_refuses_numbers_that_make_no_sense(wrong):
    with pytest.raises(PolyactError, match=next(iter(wrong))):
        Optimiser(**wrong)


def test_an_n_step_discount_that_is_not_the_learners_is_refused(source):
    with pytest.raises(PolyactError, match=r"NStep sums rewards with discount 0.9, TD3BC has discount 0.99"):
        fit(TD3BC(network=SMALL, critic_network=SMALL), source, steps=1, key=KEY, sampling=NStep(3, 0.9))
