"""Learners and policy classes by name, and their settings as text. Importing this imports no JAX, so the command line starts at once."""

import ast
import dataclasses
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from polyact.errors import PolyactError, unknown


@dataclass(frozen=True)
class Entry:
    """Where a learner lives ("module:Class"), what it is in one line, what it learns from (columns of data, an environment, or either)
    and whether actions may be continuous, discrete, or both. single_choice: discrete actions must be one choice.
    """

    constructor: str
    summary: str
    needs: tuple[str, ...] = ("observation", "action", "reward")
    offline: bool = True
    online: bool = False
    continuous: bool = True
    discrete: bool = True
    single_choice: bool = False


LEARNERS: dict[str, Entry] = {
    "bc": Entry("polyact.learning.bc:BC", "behaviour cloning of any policy class", ("observation", "action")),
    "td3-bc": Entry("polyact.learning.td3:TD3BC", "TD3 pulled to the logged actions (2106.06860)", discrete=False),
    "iql": Entry("polyact.learning.iql:IQL", "implicit Q-learning (2110.06169)"),
    "cql": Entry("polyact.learning.cql:CQL", "conservative Q-learning (2006.04779)", discrete=False),
    "cql-discrete": Entry(
        "polyact.learning.cql_discrete:DiscreteCQL",
        "conservative Q-learning for one choice (2006.04779)",
        continuous=False,
        single_choice=True,
    ),
    "awac": Entry("polyact.learning.awac:AWAC", "advantage-weighted actor-critic (2006.09359)", online=True),
    "fqi": Entry("polyact.learning.fitted_q:FQI", "fitted Q iteration (Ernst et al. 2005)", continuous=False, single_choice=True),
    "td3": Entry(
        "polyact.learning.td3:TD3",
        "twin delayed deterministic policy gradient (1802.09477)",
        offline=False,
        online=True,
        discrete=False,
    ),
    "sac": Entry("polyact.learning.sac:SAC", "soft actor-critic (1812.05905)", offline=False, online=True, discrete=False),
    "dqn": Entry(
        "polyact.learning.dqn:DQN",
        "deep Q-learning, double (1509.06461)",
        offline=False,
        online=True,
        continuous=False,
        single_choice=True,
    ),
    "ppo": Entry("polyact.learning.ppo:PPO", "proximal policy optimisation (1707.06347)", (), offline=False, online=True),
    "reinforce": Entry(
        "polyact.learning.reinforce:REINFORCE", "policy gradient with a baseline (Williams 1992)", (), offline=False, online=True
    ),
    "tabular-q": Entry(
        "polyact.learning.tabular_q:TabularQ",
        "Q-learning on a table (Watkins 1989)",
        (),
        offline=False,
        online=True,
        continuous=False,
        single_choice=True,
    ),
}

POLICIES: dict[str, str] = {
    "gaussian": "polyact.policies.gaussian:Gaussian",
    "tanh-gaussian": "polyact.policies.gaussian:TanhGaussian",
    "deterministic": "polyact.policies.deterministic:Deterministic",
    "mixture": "polyact.policies.mixture:GaussianMixture",
    "categorical": "polyact.policies.categorical:Categorical",
    "recurrent": "polyact.policies.recurrent:Recurrent",
    "chunk": "polyact.policies.chunk:ChunkRegression",
    "chunk-transformer": "polyact.policies.chunk:ChunkTransformer",
    "vae": "polyact.policies.vae_policy:VAEPolicy",
    "multibody": "polyact.policies.multibody:MultiBody",
}


def learner(name: str, settings: list[str] | tuple[str, ...] = ()) -> Any:
    """The learner called `name` with `settings` ("field=value") applied.

    A dotted field reaches inside ("actor_optimiser.learning_rate=1e-3"); a bare field that the learner itself lacks sets it in all of
    its networks or optimisers ("width=64"). `policy=NAME` chooses the actor's class, `policy.FIELD=value` that class's own options.
    Raises PolyactError with the nearest match for unknown names, and for values of another type.
    """
    return with_settings(_resolve(entry(name).constructor)(), settings, name)


def entry(name: str) -> Entry:
    """What is known of a learner without importing it."""
    if name not in LEARNERS:
        raise unknown("learner", name, LEARNERS)
    return LEARNERS[name]


def policy_class(name: str) -> Any:
    """The trainable policy class called `name`."""
    if name not in POLICIES:
        raise unknown("policy", name, POLICIES)
    return _resolve(POLICIES[name])


def with_settings(value: Any, settings: list[str] | tuple[str, ...], name: str) -> Any:
    """A learner with "field=value" settings applied in order."""
    seen: set[str] = set()
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals or not field:
            raise PolyactError(f"'{setting}' is not a setting; write field=value")
        if field in seen:
            raise PolyactError(f"'{field}' is set twice")
        seen.add(field)
        value = _with_policy(value, field, text, name) if field.split(".")[0] == "policy" else _with(value, field, text, name)
    return value


def fields_of(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting of a learner by dotted name, with its value now."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if _is_actor(item):
            found |= {f"{prefix}policy": item.kind.__name__} | fields_of(item.network, f"{prefix}{field.name}.network.")
        elif dataclasses.is_dataclass(item) and not isinstance(item, type):
            found |= fields_of(item, f"{prefix}{field.name}.") or {f"{prefix}{field.name}": type(item).__name__}
        else:
            found[f"{prefix}{field.name}"] = item
    return found


def _with(value: Any, field: str, text: str, name: str) -> Any:
    known = fields_of(value)
    if field in known:
        return _replace(value, field.split("."), text, field)
    inside = [path for path in known if path.split(".")[-1] == field and "." in path]
    if "." in field or not inside:
        bare = {path.split(".")[-1] for path in known}
        raise unknown(f"setting of {name}", field, {*known, *bare} if "." not in field else known)
    for path in inside:
        value = _replace(value, path.split("."), text, field)
    return value


def _with_policy(value: Any, field: str, text: str, name: str) -> Any:
    if not any(_is_actor(getattr(value, f.name)) for f in dataclasses.fields(value)):
        raise PolyactError(f"{name} always trains its own kind of policy; '{field}' can't be set")
    place = next(f.name for f in dataclasses.fields(value) if _is_actor(getattr(value, f.name)))
    actor = getattr(value, place)
    if field == "policy":
        changed = type(actor)(policy_class(text), actor.network)
    else:
        options = dict(actor.options) | {field.partition(".")[2]: _literal(text)}
        changed = type(actor)(actor.kind, actor.network, **options)
    return dataclasses.replace(value, **{place: changed})


def _replace(value: Any, path: list[str], text: str, field: str) -> Any:
    head, *rest = path
    old = getattr(value, head)
    new = _replace(old, rest, text, field) if rest else _parsed(old, text, field)
    if _is_actor(value):
        return type(value)(value.kind, new, **dict(value.options))
    return dataclasses.replace(value, **{head: new})


def _parsed(old: Any, text: str, field: str) -> Any:
    if isinstance(old, str):
        return text
    new = _literal(text)
    if isinstance(old, bool) != isinstance(new, bool) and old is not None:
        raise PolyactError(f"{field} is {old!r}, '{text}' is no value of that type")
    if isinstance(old, float) and isinstance(new, int):
        return float(new)
    if old is not None and new is not None and type(old) is not type(new):
        raise PolyactError(f"{field} is {old!r}, '{text}' is no value of that type")
    return new


def _literal(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _is_actor(value: Any) -> bool:
    return type(value).__name__ == "Actor"


def _resolve(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
