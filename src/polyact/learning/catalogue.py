"""Learners and policy classes by name, and their settings as text. Importing this imports no JAX, so the command line starts at once."""

import dataclasses
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from polyact.errors import PolyactError, unknown
from polyact.learning.setting_values import annotation, parsed


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
    "trpo": Entry("polyact.learning.trpo:TRPO", "trust region policy optimisation (1502.05477)", (), offline=False, online=True),
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
    "diffusion": "polyact.policies.generative.diffusion:Diffusion",
    "flow": "polyact.policies.generative.flow:Flow",
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
    """A learner with all "field=value" settings applied at once, so that settings which need each other may come in any order."""
    given: dict[str, str] = {}
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals or not field:
            raise PolyactError(f"'{setting}' is not a setting; write field=value")
        if field in given:
            raise PolyactError(f"'{field}' is set twice")
        given[field] = text
    policy = {field: text for field, text in given.items() if field.split(".")[0] == "policy"}
    value = _with_policy(value, policy, name) if policy else value
    rest = {field: text for field, text in given.items() if field not in policy}
    set_by = {path: field for field in rest for path in _paths(value, field, name)}
    for field in rest.keys() - set_by.values():
        raise PolyactError(f"'{field}' has no effect: a setting after it sets the same again")
    return _replaced(value, {path: (field, rest[field]) for path, field in set_by.items()})


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


def _paths(value: Any, field: str, name: str) -> list[str]:
    """The dotted names of all settings that `field` means."""
    known = fields_of(value)
    if field in known:
        return [field]
    inside = [path for path in known if path.split(".")[-1] == field and "." in path]
    if "." in field or not inside:
        bare = {path.split(".")[-1] for path in known}
        raise unknown(f"setting of {name}", field, {*known, *bare} if "." not in field else known)
    return inside


def _with_policy(value: Any, given: dict[str, str], name: str) -> Any:
    place = next((f.name for f in dataclasses.fields(value) if _is_actor(getattr(value, f.name))), None)
    if place is None:
        raise PolyactError(f"{name} always trains its own kind of policy; '{next(iter(given))}' can't be set")
    actor = getattr(value, place)
    kind, options = actor.kind, dict(actor.options)
    if "policy" in given:
        kind, options = policy_class(given["policy"]), {}
    for field, text in given.items():
        if option := field.partition(".")[2]:
            options[option] = parsed(annotation(kind.create, option), text, field)
    return dataclasses.replace(value, **{place: type(actor)(kind, actor.network, **options)})


def _replaced(value: Any, changes: dict[str, tuple[str, str]]) -> Any:
    """A module with new values at dotted paths; changes: (setting, text) by path."""
    heads = dict.fromkeys(path.split(".")[0] for path in changes)
    new = {}
    for head in heads:
        if head in changes:
            field, text = changes[head]
            new[head] = parsed(annotation(type(value), head), text, field)
        else:
            inside = {path.partition(".")[2]: change for path, change in changes.items() if path.split(".")[0] == head}
            new[head] = _replaced(getattr(value, head), inside)
    if _is_actor(value):
        return type(value)(value.kind, new["network"], **dict(value.options))
    return dataclasses.replace(value, **new)


def _is_actor(value: Any) -> bool:
    return type(value).__name__ == "Actor"


def _resolve(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
