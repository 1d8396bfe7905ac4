"""A policy made of one perceptron as a Python file that needs only NumPy, with its weights beside it (.npz, without pickles).

The file is written for a person who carries the policy to a microcontroller: short functions on matrices, in the order in which they
act.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from polyact import spaces
from polyact.errors import PolyactError
from polyact.exporting import sidecar
from polyact.exporting.numpy_network import Lines, network_lines
from polyact.exporting.program import OBSERVATION, Program
from polyact.files import whole_file
from polyact.learning.greedy_q import GreedyQ
from polyact.policies.base import Greedy, Policy
from polyact.policies.categorical import FORBIDDEN, Categorical
from polyact.policies.deterministic import Deterministic
from polyact.policies.encoding import ACTION_MASK, input_space
from polyact.policies.gaussian import Gaussian, TanhGaussian
from polyact.policies.spec import Body
from polyact.spaces import Space

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
KINDS = (Deterministic, Gaussian, TanhGaussian, Categorical, GreedyQ)


def write_numpy(policy: Policy, program: Program, facts: sidecar.Exported, path: Path) -> Run:
    """Write FILE.py, FILE.npz and the description; returns the file's function of arrays by name.

    PolyactError for a policy that is not one perceptron.
    """
    text, weights = source_of(policy, program)
    with whole_file(path.with_suffix(".npz")) as aside, open(aside, "wb") as file:
        np.savez(file, allow_pickle=False, **weights)
    with whole_file(path) as aside:
        aside.write_text(text)
    sidecar.write(facts, path)
    names: dict[str, Any] = {"__file__": str(path), "__name__": path.stem}
    exec(compile(text, str(path), "exec"), names)  # what was just composed here, never what was read
    return names["act"]


def source_of(policy: Policy, program: Program) -> tuple[str, dict[str, np.ndarray]]:
    """The text of the file and the arrays it loads."""
    inner, greedy = (policy.policy, True) if isinstance(policy, Greedy) else (policy, False)
    if not isinstance(inner, KINDS):
        known = ", ".join(kind.__name__ for kind in KINDS)
        raise PolyactError(f"a numpy file is one perceptron ({known}), not {type(policy).__name__}; export as onnx or stablehlo")
    body, weights = inner.body, {}
    weights["observation_mean"], weights["observation_std"] = inner.body.normaliser.mean, inner.body.normaliser.std
    network, arrays = network_lines(inner.network)
    head = _head(inner, body, greedy, weights)
    weights = {name: np.asarray(array, np.float32) for name, array in (weights | arrays).items()}
    loaded = [f'{name.upper()} = WEIGHTS["{name}"]  # {list(array.shape)}' for name, array in weights.items()]
    lines = [*_heading(inner, program), *loaded, "", "", *_features(body.observation_space), "", "", *network, "", "", *head, ""]
    return "\n".join(lines), weights


def _heading(policy: Policy, program: Program) -> Lines:
    def row(slot: Any) -> str:
        sizes = ", ".join(map(str, ("batch", *slot.shape)))
        what = f", random: {slot.draw.kind}" if slot.draw is not None else ""
        return f"    {slot.name}: {slot.dtype.name} [{sizes}]{what}"

    return [
        f'"""A {type(policy).__name__} policy, exported by polyact. Needs NumPy only; its weights lie beside this file (.npz).',
        "",
        "act(inputs) takes arrays by name:",
        *map(row, program.inputs),
        "and returns:",
        *map(row, program.outputs),
        '"""',
        "",
        "from pathlib import Path",
        "",
        "import numpy as np",
        "",
        'WEIGHTS = np.load(Path(__file__).with_suffix(".npz"), allow_pickle=False)',
    ]


def _features(space: Space) -> Lines:
    parts = ",\n        ".join(_encoded(input_space(space), OBSERVATION))
    return [
        "def features(inputs):",
        '    """Observations as normalised vectors, one row each."""',
        "    parts = [",
        f"        {parts},",
        "    ]",
        "    vector = np.concatenate([np.reshape(part, (len(part), -1)) for part in parts], axis=1).astype(np.float32)",
        "    return (vector - OBSERVATION_MEAN) / OBSERVATION_STD",
    ]


def _encoded(space: Space, name: str) -> Lines:
    match space:
        case spaces.Box() | spaces.MultiBinary():
            return [f'inputs["{name}"]']
        case spaces.Discrete():
            return [f'np.eye({space.n})[inputs["{name}"] - {space.start}]']
        case spaces.MultiDiscrete():
            return [f'np.eye({n})[inputs["{name}"][:, {place}]]' for place, n in enumerate(space.nvec)]
        case spaces.Dict():
            return [line for part, inner in space.items for line in _encoded(inner, f"{name}.{part}")]
        case spaces.Tuple():
            return [line for place, inner in enumerate(space.spaces) for line in _encoded(inner, f"{name}.{place}")]
    raise PolyactError(f"{space} has no fixed width; encode text into numbers first")


def _head(policy: Any, body: Body, greedy: bool, weights: dict[str, Any]) -> Lines:
    lines = [
        "def act(inputs):",
        '    """Arrays by name -> {"action": the action of every row}."""',
        "    x = network(features(inputs))",
    ]
    if isinstance(policy, Categorical | GreedyQ):
        return lines + _discrete(policy, body, greedy)
    scale = body.continuous
    weights["action_center"], weights["action_scale"] = scale.center, scale.scale
    bounded = f"np.array({list(scale.bounded)})"
    squash = f"    unit = np.where({bounded}, np.tanh(mean), mean)"
    clip = f"    unit = np.where({bounded}, np.clip(unit, -1, 1), unit)"
    width = body.action_width
    match policy:
        case Deterministic():
            lines += ["    mean = x", squash]
        case Gaussian():
            lines.append(f"    mean = x[:, :{width}]")
            lines.append(squash if policy.head.bounded_mean else "    unit = mean")
            if not greedy and policy.head.log_std is not None:
                weights["log_std"] = policy.head.log_std
            if not greedy:
                source = f"x[:, {width}:]" if policy.head.log_std is None else "LOG_STD"
                lines.append(f"    std = np.exp(np.clip({source}, {', '.join(map(str, policy.head.log_std_range))}))")
                lines.append('    unit = unit + std * inputs["noise.0"]')
            lines.append(clip)
        case TanhGaussian():
            lines.append(f"    raw = x[:, :{width}]")
            if not greedy:
                lines.append(f"    std = np.exp(np.clip(x[:, {width}:], {', '.join(map(str, policy.head.log_std_range))}))")
                lines.append('    raw = raw + std * inputs["noise.0"]')
            lines += ["    unit = np.tanh(raw)", clip]
    shape = ", ".join(map(str, ("-1", *body.action_space.shape)))  # pyright: ignore[reportAttributeAccessIssue]
    return [
        *lines,
        "    action = ACTION_CENTER + unit * ACTION_SCALE",
        f'    return {{"action": action.reshape({shape}).astype(np.float32)}}',
    ]


def _discrete(policy: Any, body: Body, greedy: bool) -> Lines:
    lines = []
    if isinstance(body.observation_space, spaces.Dict) and ACTION_MASK in body.observation_space.spaces:
        mask = f'inputs["{OBSERVATION}.{ACTION_MASK}"].reshape(len(x), -1).astype(bool)'
        lines.append(f"    x = np.where({mask}, x, np.float32({FORBIDDEN}))")
    best, first = [], 0
    for place, count in enumerate(body.choices):
        logits = f"x[:, {first} : {first + count}]"
        if isinstance(policy, Categorical) and not greedy:
            lines.append(f'    uniform = np.maximum(inputs["noise.{place}"], np.float32({np.finfo(np.float32).tiny}))')
            logits = f"{logits} - np.log(-np.log(uniform))"
        lines.append(f"    choice_{place} = np.argmax({logits}, axis=1)")
        best.append(f"choice_{place}")
        first += count
    if isinstance(body.action_space, spaces.Discrete):
        return [*lines, f'    return {{"action": (choice_0 + {body.action_space.start}).astype(np.int32)}}']
    return [*lines, f'    return {{"action": np.stack([{", ".join(best)}], axis=1).astype(np.int32)}}']
