"""Families of worlds: the same environment with other physics, one or many at once.

An environment is a pytree of physical parameters, so changing one is an edit of a leaf and a family is the same pytree with a
leading axis. `perturb` makes one changed world, `randomise` and `family` make many; `reset_many` and `step_many` run them side by side.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from polyact.envs.base import Env
from polyact.errors import PolyactError
from polyact.spaces import Space


class Family(eqx.Module):
    """Environments of one kind side by side: every array leaf of `members` has a leading axis of length `count`.

    Raises PolyactError when the leaves disagree about that length. Under `vmap` the members are ordinary environments:
    `jax.vmap(lambda env, key: env.reset(key))(family.members, keys)`.
    """

    members: Env

    def __check_init__(self):
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(self.members)]
        lengths = {shape[0] if shape else None for shape in shapes}
        if len(lengths) != 1 or None in lengths:
            raise PolyactError(
                f"a family of {type(self.members).__name__} needs one leading axis on every array leaf, got leaves of shapes "
                f"{sorted(set(shapes))}"
            )

    @property
    def count(self) -> int:
        return jax.tree.leaves(self.members)[0].shape[0]

    @property
    def observation_space(self) -> Space:
        return self.members.observation_space

    @property
    def action_space(self) -> Space:
        return self.members.action_space

    @property
    def horizon(self) -> int:
        return self.members.horizon

    def member(self, index: int) -> Env:
        """The environment at one place of the family."""
        return jax.tree.map(lambda leaf: leaf[index], self.members)

    def spread(self, count: int) -> "Family":
        """`count` places taken by the members in turn, so that more episodes than members can run at once."""
        turn = jnp.arange(count) % self.count
        return Family(jax.tree.map(lambda leaf: leaf[turn], self.members))


def family(members: Sequence[Env]) -> Family:
    """Environments of one class, and with the same static fields, as a family. Raises PolyactError when they differ."""
    if not members:
        raise PolyactError("a family needs at least one environment")
    first = jax.tree.structure(members[0])
    for place, member in enumerate(members[1:], 1):
        if jax.tree.structure(member) != first:
            difference = f"number {place} is {member}, number 0 is {members[0]}"
            raise PolyactError(f"the environments of a family may differ only in array leaves: {difference}")
    return Family(jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *members))
