"""The NumPy file: run where nothing but NumPy can be imported, it does what the policy does; what is no perceptron is refused."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from export_examples import DISCRETE, HALF, MASKED, SEVERAL, SPEC, made
from policy_examples import filled

from polyact import spaces
from polyact.errors import PolyactError
from polyact.exporting import sidecar
from polyact.exporting.difference import random_inputs
from polyact.exporting.numpy_file import write_numpy
from polyact.exporting.numpy_network import ACTIVATIONS
from polyact.exporting.program import program_of, spaces_of
from polyact.learning.greedy_q import GreedyQ
from polyact.nets.layers import activation
from polyact.nets.mlp import Network
from polyact.policies.base import greedy
from polyact.policies.categorical import Categorical
from polyact.policies.deterministic import Deterministic
from polyact.policies.gaussian import Gaussian, TanhGaussian
from polyact.policies.spec import Spec

pytestmark = pytest.mark.usefixtures("unoptimised")
WORDS = spaces.Dict({"arm": spaces.Box(-1, 1, (2, 2)), "both": spaces.Tuple((spaces.MultiDiscrete((2, 3)), spaces.MultiBinary(2)))})
LAYERS = Network(width=4, layer_norm=True, residual=True, fourier=2, spectral_norm=True, activation="mish")
MAKERS = {
    "deterministic, every layer": lambda: filled(Deterministic.create, SPEC, LAYERS),
    "deterministic, linear": lambda: filled(Deterministic.create, HALF, Network(depth=0)),
    "deterministic, of many parts": lambda: filled(Deterministic.create, Spec.of(WORDS, SPEC.action_space, 10)),
    "gaussian": lambda: filled(Gaussian.create, SPEC),
    "gaussian, spread by observation": lambda: filled(Gaussian.create, HALF, log_std=None),
    "gaussian, greedy": lambda: greedy(filled(Gaussian.create, HALF)),
    "tanh gaussian": lambda: filled(TanhGaussian.create, SPEC),
    "tanh gaussian, greedy": lambda: greedy(filled(TanhGaussian.create, SPEC)),
    "categorical": lambda: filled(Categorical.create, SEVERAL),
    "categorical, greedy, masked": lambda: greedy(filled(Categorical.create, MASKED)),
    "greedy values": lambda: filled(GreedyQ.create, DISCRETE),
}
ELSEWHERE = """
import importlib.util, sys
from pathlib import Path
place, numpy = sys.argv[1:]
sys.path.append(numpy)
for name in ("polyact", "jax", "scipy"):
    assert importlib.util.find_spec(name) is None, name
import numpy as np
for file in sorted(Path(place).glob("policy_*.py")):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    np.savez(file.with_suffix(".out.npz"), **module.act(dict(np.load(file.with_suffix(".in.npz")))))
"""


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Of every policy: the largest error of its file, run by a Python that has only NumPy."""
    place = tmp_path_factory.mktemp("numpy")
    wanted = {name: write(place, number, MAKERS[name]()) for number, name in enumerate(MAKERS)}
    run_with_numpy_alone(place)
    return {name: error(place, number, wanted[name]) for number, name in enumerate(MAKERS)}


def write(place, number, policy):
    """Write a policy's file and inputs; returns what the policy makes of them."""
    program, file = program_of(policy, *spaces_of(policy)), place / f"policy_{number}.py"
    write_numpy(policy, program, sidecar.exported(program, "numpy", policy, None, {}), file)
    ordinary, large = (random_inputs(program, np.random.default_rng(seed), reset=True, rows=8) for seed in range(2))
    grow = {name: 1e4 if name.startswith("observation") and array.dtype.kind == "f" else 1 for name, array in large.items()}
    given = {name: np.concatenate([array, (grow[name] * large[name]).astype(array.dtype)]) for name, array in ordinary.items()}
    np.savez(file.with_suffix(".in.npz"), **given)
    return np.asarray(jax.jit(program.function)([given[slot.name] for slot in program.inputs])[0])


def run_with_numpy_alone(place):
    numpy = place / "alone"
    numpy.mkdir()
    for folder in Path(np.__file__).parent.parent.glob("numpy*"):
        (numpy / folder.name).symlink_to(folder)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", ELSEWHERE, place, numpy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def error(place, number, wanted):
    with np.load(place / f"policy_{number}.out.npz") as found:
        assert found["action"].shape == wanted.shape
        assert found["action"].dtype == wanted.dtype
        return np.max(np.abs(found["action"].astype(float) - wanted) / (1 + np.abs(wanted)))


@pytest.mark.parametrize("name", MAKERS)
def test_the_file_does_what_the_policy_does(errors, name):
    print(f"numpy {name}: largest error {errors[name]:.1e}")
    assert errors[name] < 1e-5


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_the_networks(name):
    x = np.linspace(-9, 9, 200, dtype=np.float32)
    np.testing.assert_allclose(eval(ACTIVATIONS[name]), activation(name)(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["recurrent, gru", "chunk", "flow, transformer", "random", "ensemble, mean"])
def test_what_is_no_perceptron_is_refused_in_one_line_and_nothing_is_written(name, tmp_path):
    program = program_of(made(name), spaces.Box(-1, 1, (3,)), SPEC.action_space)
    with pytest.raises(PolyactError, match=r"^a numpy file is one perceptron .*; export as onnx or stablehlo$"):
        write_numpy(made(name), program, sidecar.exported(program, "numpy", made(name), None, {}), tmp_path / "policy.py")
    assert not list(tmp_path.iterdir())
