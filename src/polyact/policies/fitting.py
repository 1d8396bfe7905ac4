"""Whether a policy can act in an environment, found out from their spaces before a program is built that would fail deep inside."""

from typing import Any

import jax

from polyact import spaces
from polyact.errors import PolyactError
from polyact.policies.base import Policy
from polyact.policies.encoding import input_space
from polyact.policies.spec import Body
from polyact.spaces import Space


def check_fits(policy: Policy, env: Any, name: str = "the policy") -> None:
    """Raise PolyactError when the body a policy was trained with has other spaces than `env` (bounds may differ).

    Policies without a body (scripted, random ones) and with several different ones pass.
    """
    seen = {(body.observation_space, body.action_space) for body in bodies(policy)}
    if len(seen) != 1:
        return
    ((observation, action),) = seen
    for word, own, other in (("observations", observation, env.observation_space), ("actions", action, env.action_space)):
        if not alike(input_space(own), input_space(other)):
            raise PolyactError(f"{name} was made for {word} {own}, the environment has {other}")


def bodies(policy: Policy) -> list[Body]:
    """Every body in a policy, however it is wrapped."""
    found = jax.tree.leaves(policy, is_leaf=lambda node: isinstance(node, Body))
    return [node for node in found if isinstance(node, Body)]


def alike(one: Space, other: Space) -> bool:
    """Whether two spaces hold values of the same kind and size; bounds and dtypes may differ."""
    match one, other:
        case spaces.Dict(), spaces.Dict():
            return one.spaces.keys() == other.spaces.keys() and all(alike(part, other.spaces[key]) for key, part in one.items)
        case spaces.Tuple(), spaces.Tuple():
            return len(one.spaces) == len(other.spaces) and all(map(alike, one.spaces, other.spaces))
        case spaces.Box(), spaces.Box():
            return one.shape == other.shape
    return one == other
