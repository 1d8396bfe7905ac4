"""How much arithmetic an update is: the matrix products of all networks, forward and backward, and nothing else.

A product [B, i] @ [i, o] is 2 B i o operations. Going backward, the gradient of the weights is a product of the same size, and so is
that of the input where one is needed (not for data). Activations, losses, sampling and the optimiser are not counted: they are time
that does no counted work, so leaving them out makes the share of the machine's rate smaller, not larger.
"""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Net:
    """An MLP by its widths, input to output."""

    widths: tuple[int, ...]

    @classmethod
    def of(cls, inputs: int, outputs: int, width: int, depth: int) -> "Net":
        return cls((inputs, *[width] * depth, outputs))

    def forward(self, batch: int) -> int:
        """Operations of one pass over a batch."""
        return sum(2 * batch * i * o for i, o in self._layers())

    def backward(self, batch: int, *, weights: bool = True, inputs: bool = False) -> int:
        """Operations of the gradients: of the weights, of every hidden layer, and of the input where it is asked for."""
        first, *later = self._layers()
        through = sum(2 * batch * i * o for i, o in later) + (2 * batch * first[0] * first[1] if inputs else 0)
        return through + (self.forward(batch) if weights else 0)

    def train(self, batch: int) -> int:
        """Forward and the gradient of the weights."""
        return self.forward(batch) + self.backward(batch)

    def _layers(self) -> list[tuple[int, int]]:
        return list(pairwise(self.widths))


def iql(observation: int, action: int, width: int, depth: int, batch: int, critics: int = 2) -> int:
    """Critics, V and actor trained on a batch; the target critics on it; V once more on the next observations."""
    critic = Net.of(observation + action, 1, width, depth)
    value, actor = Net.of(observation, 1, width, depth), Net.of(observation, action, width, depth)
    trained = critics * critic.train(batch) + value.train(batch) + actor.train(batch)
    return trained + critics * critic.forward(batch) + value.forward(batch)


def cql(observation: int, action: int, width: int, depth: int, batch: int, samples: int, critics: int = 2) -> int:
    """Critics trained on a batch and on three sets of sampled actions for each of its rows, the target critics on the batch; the actor
    once on the next observations and trained through the critics. Every pass is counted once, however often a library repeats it.
    """
    critic, actor = Net.of(observation + action, 1, width, depth), Net.of(observation, 2 * action, width, depth)
    values = critics * (critic.train(batch * (1 + 3 * samples)) + critic.forward(batch))
    through = critics * (critic.forward(batch) + critic.backward(batch, weights=False, inputs=True))
    return values + through + actor.forward(batch) + actor.train(batch)
