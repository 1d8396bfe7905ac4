"""Where a language policy acts: a world that asks, may write between the policy's tokens (tools, observations), and rewards the whole."""

from abc import abstractmethod
from typing import TYPE_CHECKING

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar  # a type checker would take an AbstractVar for an argument of every __init__
else:
    from equinox import AbstractVar

FREE, OVER = -1, -2  # what `forced` says where the policy writes, and where nobody does any more


class TokenWorld(eqx.Module):
    """A world of tokens 0 .. V-1, with sequences of at most `length`. Unbatched; batching is `vmap`.

    Everything about a conversation is its question and the tokens so far, so a world has no state.
    """

    vocabulary: AbstractVar[int]
    length: AbstractVar[int]

    @abstractmethod
    def question(self, key: PRNGKeyArray) -> PyTree:
        """A random question."""

    @abstractmethod
    def forced(self, question: PyTree, tokens: Int[Array, " T"], position: Int[Array, ""]) -> Int[Array, ""]:
        """The token that the world writes at `position`, `FREE` where the policy writes, or `OVER`. Later tokens are 0 and unread."""

    @abstractmethod
    def reward(self, question: PyTree, tokens: Int[Array, " T"], written: Bool[Array, " T"], key: PRNGKeyArray) -> Float[Array, ""]:
        """Of a finished conversation; `written`: by the policy."""
