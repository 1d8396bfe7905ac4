"""A perceptron as lines of Python, and its arrays by the names that the lines use."""

from typing import Any

import numpy as np

from polyact.errors import PolyactError
from polyact.nets.layers import Linear, spectrally_normalised
from polyact.nets.mlp import MLP

Lines = list[str]
ACTIVATIONS = {
    "relu": "np.maximum(x, 0)",
    "leaky_relu": "np.where(x > 0, x, 0.01 * x)",
    "gelu": "0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))",
    "silu": "x / (1 + np.exp(-x))",
    "mish": "x * np.tanh(np.logaddexp(x, 0))",
    "elu": "np.where(x > 0, x, np.expm1(np.minimum(x, 0)))",
    "selu": "1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))",
    "softplus": "np.logaddexp(x, 0)",
    "tanh": "np.tanh(x)",
    "sin": "np.sin(x)",
    "identity": "x",
}


def network_lines(network: Any) -> tuple[Lines, dict[str, Any]]:
    """A function `network(x)` and what it needs. PolyactError when it is no plain perceptron."""
    if isinstance(network, Linear):
        return ["def network(x):", "    return x @ LAST_WEIGHT + LAST_BIAS"], _arrays("last", network)
    if not isinstance(network, MLP):
        raise PolyactError(f"a numpy file is one perceptron, not a {type(network).__name__}; export as onnx or stablehlo")
    arrays: dict[str, Any] = {}
    lines = ["def activation(x):", f"    return {ACTIVATIONS[network.activation]}", "", ""]
    if network.norms:
        lines += _norm_lines(network.norms[0].epsilon)
    lines += ["def network(x):", '    """Vectors, one a row, through all layers."""']
    if network.expand is not None:
        arrays["frequencies"] = network.expand.frequencies
        lines += ["    angle = 2 * np.pi * x @ FREQUENCIES", "    x = np.concatenate([x, np.sin(angle), np.cos(angle)], axis=1)"]
    for place, layer in enumerate(network.hidden):
        name = f"hidden_{place}"
        arrays |= _arrays(name, spectrally_normalised(layer) if network.spectral_norm else layer)
        step = f"x @ {name.upper()}_WEIGHT + {name.upper()}_BIAS"
        if network.norms:
            arrays[f"norm_{place}_scale"], arrays[f"norm_{place}_shift"] = network.norms[place].scale, network.norms[place].shift
            step = f"normalised({step}) * NORM_{place}_SCALE + NORM_{place}_SHIFT"
        kept = "x + " if network.residual and place else ""
        lines.append(f"    x = {kept}activation({step})")
    return [*lines, "    return x @ LAST_WEIGHT + LAST_BIAS"], arrays | _arrays("last", network.last)


def _norm_lines(epsilon: float) -> Lines:
    return [
        "def normalised(x):",
        "    x = x - x.mean(axis=1, keepdims=True)",
        f"    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + {epsilon})",
        "",
        "",
    ]


def _arrays(name: str, layer: Linear) -> dict[str, np.ndarray]:
    return {f"{name}_weight": np.asarray(layer.weight), f"{name}_bias": np.asarray(layer.bias)}
