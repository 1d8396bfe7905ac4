"""What is loaded equals what was saved, bit for bit; what is damaged, unknown or hostile is refused in one line."""

import contextlib
import dataclasses
import hashlib
import json
import os
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from polyact import saving, spaces
from polyact.envs.pendulum import Pendulum
from polyact.errors import PolyactError, SavedError
from polyact.nets.mlp import Network
from polyact.policies.gaussian import TanhGaussian
from polyact.policies.spec import Spec

FAST = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def policy():
    spec = Spec.of(spaces.Box(-1, 1, (3,)), spaces.Box(-2, 2, (2,)), 10, observations=np.random.default_rng(0).normal(size=(9, 3)))
    return TanhGaussian.create(spec, Network(width=4, depth=1), jax.random.key(0))


@pytest.fixture
def saved(policy, tmp_path):
    return saving.save(policy, tmp_path / "policy", {"seed": 3, "metrics": {"loss": float("nan")}})


def rewrite(folder, change):
    """Edit the description as an attacker would: with a checksum that fits."""
    path = folder / "policy.json"
    content = json.loads(path.read_text())
    content.pop("sha256")
    change(content)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    path.write_text(json.dumps(content | {"sha256": hashlib.sha256(text.encode()).hexdigest()}))


def identical(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert type(a) is type(b)
        if not isinstance(a, np.ndarray | np.generic | jax.Array):
            assert repr(a) == repr(b)
            continue
        if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def test_a_policy_comes_back_bit_for_bit(policy, saved):
    back = saving.load(saved, TanhGaussian)
    identical(back, policy)
    act = eqx.filter_jit(lambda p: p.act(jnp.ones(3), None, jax.random.key(0))[0])
    np.testing.assert_array_equal(act(back), act(policy))
    assert {path.name for path in saved.iterdir()} == {"policy.json", "weights.safetensors"}
    assert [path.name for path in saved.parent.iterdir()] == ["policy"]


def test_provenance_is_kept(saved):
    facts = saving.read_provenance(saved)
    assert facts["seed"] == 3
    assert facts["metrics"] == {"loss": "nan"}
    assert {"polyact", "jax", "python"} <= facts["versions"].keys()


def test_environments_and_odd_values_come_back(tmp_path):
    value = {
        "env": Pendulum(gravity=jnp.asarray(9.0)),
        "key": jax.random.key(7),
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3),
        3: [True, None, -(2**70), 0.1, float("inf"), "text", (), {}],
        ("a", 1): np.float64(1) / 3,
        "half": jnp.arange(3, dtype=jnp.bfloat16),
        "eighth": jnp.ones((2, 0), jnp.float8_e4m3fn),
        "scalar": jnp.asarray(2, jnp.int8),
        "wide": np.arange(4, dtype=np.float64)[::2],
        "column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "function": jax.nn.gelu,
        "dtype": np.dtype(np.float32),
        "class": TanhGaussian,
    }
    back = saving.load(saving.save(value, tmp_path / "x"))
    assert back.pop("function") is value.pop("function")
    assert back.pop("class") is value.pop("class")
    assert back.keys() == value.keys()
    for name in value:
        identical(back[name], value[name])


def test_spaces_come_back(tmp_path):
    box = spaces.Box(np.array([-np.inf, 0.1]), np.array([np.inf, 0.3]))
    value = spaces.Dict({"low": box, "high": spaces.Tuple((spaces.Discrete(3, 2), spaces.Box(0, 255, (2, 2), np.uint8)))})
    assert saving.load(saving.save(value, tmp_path / "x")) == value


@FAST
@given(
    array=hnp.arrays(
        st.sampled_from([np.float32, np.int32, np.bool_, np.float16]), hnp.array_shapes(min_dims=0, min_side=0, max_side=4)
    ),
    nest=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3) | st.tuples(inner, inner)
        ),
        max_leaves=8,
    ),
)
def test_any_tree_round_trips(tmp_path_factory, array, nest):
    folder = tmp_path_factory.mktemp("tree") / "x"
    back = saving.load(saving.save({"array": jnp.asarray(array), "numpy": array, "nest": nest}, folder))
    identical(back["array"], jnp.asarray(array))
    identical(back["numpy"], array)
    assert repr(back["nest"]) == repr(nest)


def test_an_existing_folder_is_kept_unless_overwritten(policy, saved):
    before = (saved / "policy.json").read_bytes()
    with pytest.raises(SavedError, match="exists"):
        saving.save(policy, saved)
    assert (saved / "policy.json").read_bytes() == before
    saving.save(Pendulum(), saved, overwrite=True)
    assert saving.load(saved, Pendulum).gravity == 10


def test_overwriting_spares_what_is_not_ours(policy, saved):
    (saved / "thesis.tex").write_text("years of work")
    with pytest.raises(SavedError, match="not overwritten"):
        saving.save(policy, saved, overwrite=True)
    assert (saved / "thesis.tex").exists()


def test_what_cannot_be_saved_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(PolyactError, match=r"can't save value\.a\.1"):
        saving.save({"a": [1, object()]}, tmp_path / "x")
    with pytest.raises(PolyactError, match="dtype object"):
        saving.save(np.array([object()]), tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "subprocess:Popen",
        "polyact.saving:os",
        "polyact.saving:save",
        "polyact.saving:Path",
        "polyact.envs.pendulum:Pendulum.reset",
        "polyact.envs.pendulum:np",
        "polyact.policies.gaussian:MLP",
        "polyact.nowhere:Thing",
        "polyact..envs:Env",
        "polyact.__main__:Thing",
        "equinox.nn:Linear",
        "optax:adam",
        "optax._src.base:GradientTransformation.init",
        "optax._src.transform:jnp",
        "polyactual.evil:Thing",
        "../polyact:Thing",
        "",
    ],
)
def test_classes_that_are_not_ours_are_refused(saved, name):
    rewrite(saved, lambda content: content["value"].update({"class": name}))
    with pytest.raises(SavedError, match="unknown class"):
        saving.load(saved)
    rewrite(saved, lambda content: content.update(value={"type": name}))
    with pytest.raises(SavedError, match="unknown class"):
        saving.load(saved)


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "jax.nn.relu6", ""])
def test_functions_that_are_not_listed_are_refused(saved, name):
    rewrite(saved, lambda content: content.update(value={"function": name}))
    with pytest.raises(SavedError, match="nothing polyact knows"):
        saving.load(saved)


def edit_fields(change):
    return lambda content: change(content["value"]["fields"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit_fields(lambda f: f.pop("network")), "lacks its field 'network'"),
        (edit_fields(lambda f: f.update(extra=1)), "no field 'extra'"),
        (edit_fields(lambda f: f.update(network=None)), "belongs to nothing"),
        (lambda c: c.update(version=99), "version 99"),
        (lambda c: c.update(format="other"), "not a description"),
        (lambda c: c.update(more=1), "has fields"),
        (lambda c: next(iter(c["arrays"].values())).update(shape=[7]), "has shape"),
        (lambda c: next(iter(c["arrays"].values())).update(dtype="float64"), "has shape"),
        (lambda c: next(iter(c["arrays"].values())).update(dtype="object"), "object"),
        (lambda c: c["arrays"].pop(next(iter(c["arrays"]))), "not those"),
        (lambda c: c.update(value={"tuple": [{"array": "nowhere"}]}), "'nowhere' is missing"),
        (lambda c: c.update(value={"key": "nowhere", "kind": "evil"}), "nothing polyact knows"),
        (lambda c: c.update(value={"dict": [[{"dict": []}, 1]]}), "unhashable"),
        (lambda c: c.update(value={"space": {"type": "Box"}}), "space"),
    ],
)
def test_files_that_do_not_match_are_refused(saved, change, words):
    rewrite(saved, change)
    with pytest.raises(SavedError, match=words) as caught:
        saving.load(saved)
    assert "\n" not in str(caught.value)


def test_the_wrong_kind_is_refused(saved):
    with pytest.raises(SavedError, match="holds a TanhGaussian, expected a Pendulum"):
        saving.load(saved, Pendulum)


def test_missing_files_are_refused(saved, tmp_path):
    (saved / "weights.safetensors").unlink()
    with pytest.raises(SavedError, match="can't be read"):
        saving.load(saved)
    with pytest.raises(SavedError, match="no policy"):
        saving.load(tmp_path / "nowhere")


def test_deep_nesting_is_refused(saved):
    (saved / "policy.json").write_text("[" * 100_000)
    with pytest.raises(SavedError, match="damaged"):
        saving.load(saved)


@FAST
@given(data=st.data())
def test_any_damage_is_refused_or_harmless(policy, tmp_path_factory, data):
    folder = saving.save(policy, tmp_path_factory.mktemp("damage") / "x")
    path = folder / data.draw(st.sampled_from(["policy.json", "weights.safetensors"]))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        content = content[:at]
    path.write_bytes(content)
    with contextlib.suppress(SavedError):
        identical(saving.load(folder), policy)


def test_registered_classes_of_users_are_saved(tmp_path):
    @dataclasses.dataclass
    class Note:
        text: str

    class Pair(NamedTuple):
        one: int
        two: tuple

    with pytest.raises(PolyactError, match="unknown class"):
        saving.save(Note("x"), tmp_path / "x")
    saving.registered(Note)
    saving.registered(Pair)
    back = saving.load(saving.save([Note("x"), Pair(1, (2,))], tmp_path / "x"))
    assert back == [Note("x"), Pair(1, (2,))]


def test_a_failed_write_keeps_the_old_folder(policy, saved, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        saving.save(Pendulum(), saved, overwrite=True)
    identical(saving.load(saved), policy)
    assert [path.name for path in saved.parent.iterdir()] == ["policy"]


def test_optimiser_states_come_back(tmp_path):
    state = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(1e-3, 10))).init({"w": jnp.ones(3)})
    identical(saving.load(saving.save(state, tmp_path / "x")), state)
