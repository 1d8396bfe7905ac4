"""What stays when training stops half-way: by the user, by a value that is not finite, or on a damaged disk."""

import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.data import Episodes, Source
from polyact.data.sampling import Sampling, Transitions
from polyact.errors import SavedError, TrainingError
from polyact.learning import checkpoint
from polyact.learning.base import Learner
from polyact.learning.fit import fit
from polyact.policies.base import Policy
from polyact.policies.random_policy import RandomPolicy
from polyact.spaces import Box

KEY = jax.random.key(0)


class Walk(Learner):
    """Adds a random number at every update; its loss is infinite at one of them."""

    needs: ClassVar[tuple[str, ...]] = ("observation",)
    bad: int = -1

    def sampling(self, spec) -> Sampling:
        return Transitions()

    def init(self, spec, key):
        return jnp.zeros((), jnp.int32), jnp.zeros(())

    def update(self, state, batch, key):
        count, place = state
        moved = place + jax.random.normal(key) + batch.observation.mean()
        return (count + 1, moved), {"loss": jnp.where(count == self.bad, jnp.inf, moved)}

    def policy(self, state):
        return RandomPolicy(Box(-1, 1, (1,)))


@pytest.fixture(scope="module")
def source():
    observation = np.random.default_rng(0).normal(size=(14, 3)).astype(np.float32)
    return Source(Episodes(np.array([7, 5]), observation, None, None, np.zeros(12, bool)), action_space=Box(-1, 1, (1,)))


def options(folder):
    return {"steps": 40, "key": KEY, "batch_size": 4, "report_every": 10, "seeds": 2, "checkpoints": folder, "progress": False}


def interrupt(policy):
    raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(source, tmp_path):
    whole = fit(Walk(), source, **options(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        fit(Walk(), source, **options(tmp_path / "cut"), evaluate=interrupt, evaluate_every=20)
    assert checkpoint.latest(tmp_path / "cut").name == "000000020"
    resumed = fit(Walk(), source, **options(tmp_path / "cut"), resume=True)
    assert [[float(leaf) for leaf in state] for state in resumed.states] == [
        [float(leaf) for leaf in state] for state in whole.states
    ]
    assert [record["loss"] for record in resumed.history] == [record["loss"] for record in whole.history]


@pytest.mark.parametrize("device_memory", [1 << 30, 0])
@pytest.mark.parametrize("bad", [0, 17, 20])
def test_the_last_good_state_is_kept(source, tmp_path, bad, device_memory):
    with pytest.raises(TrainingError, match=f"stopped at step {bad}") as caught:
        fit(Walk(bad), source, **options(tmp_path), device_memory=device_memory)
    assert [int(count) for count, _ in caught.value.progress.states] == [bad, bad]
    assert checkpoint.latest(tmp_path).name == f"{bad:09d}"


class Weight(Policy):
    value: jax.Array

    def start(self, key):
        return None

    def act(self, observation, memory, key):
        return self.value[None], memory


class Poisoned(Walk):
    """Its weight breaks at an update whose own loss is finite, as gradients do."""

    def update(self, state, batch, key):
        count, place = state
        return (count + 1, jnp.where(count == self.bad, jnp.nan, place)), {"loss": place}

    def policy(self, state):
        return Weight(state[1])


@pytest.mark.parametrize(("bad", "seen"), [(16, 17), (39, 40)])
def test_weights_that_broke_before_the_metric_are_not_kept(source, tmp_path, bad, seen):
    with pytest.raises(TrainingError, match=f"stopped at step {seen}: .*state after {bad} good steps is kept") as caught:
        fit(Poisoned(bad), source, **options(tmp_path))
    assert all(np.isfinite(place) for _, place in caught.value.progress.states)
    assert checkpoint.latest(tmp_path).name == f"{bad:09d}"


@pytest.fixture
def written(source, tmp_path):
    fit(Walk(), source, **options(tmp_path))
    return tmp_path


def test_the_next_checkpoint_drops_what_a_killed_run_left(source, tmp_path):
    (tmp_path / ".000000010.0123abcd.partial").mkdir()
    fit(Walk(), source, **options(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["000000040"]


@pytest.mark.parametrize("text", ["[]", "{}", "null", "\xff", '{"version": 1}', '{"version": 7}'])
def test_a_damaged_description_is_refused(source, written, text):
    (written / "000000040" / "checkpoint.json").write_text(text, "latin-1")
    with pytest.raises(SavedError, match=r"000000040 (is damaged|has version 7)"):
        fit(Walk(), source, **options(written), resume=True)


def test_one_wrong_byte_is_refused(source, written):
    path = written / "000000040" / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SavedError, match="checksum"):
        fit(Walk(), source, **options(written), resume=True)


def test_other_weights_of_the_data_are_another_run(source, written):
    weights = np.arange(1.0, 13.0)
    with pytest.raises(SavedError, match="written with values = "):
        fit(Walk(), source, **options(written), resume=True, weights=weights)


def test_a_long_difference_is_shown_where_it_begins(source, written):
    facts = json.loads((written / "000000040" / "checkpoint.json").read_text())
    assert facts["identity"]["learner"] == "Walk()"
    with pytest.raises(SavedError, match=r"learner = Walk\(\), this run has Walk\(bad=3\)"):
        fit(Walk(3), source, **options(written), resume=True)
