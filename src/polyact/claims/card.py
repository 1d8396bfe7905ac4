"""What a system is, in the words a user looks for. Imports nothing heavy: the command line lists cards without loading any system."""

from dataclasses import dataclass

from polyact.errors import PolyactError

FAMILIES = ("offline", "generative", "online", "language", "agents", "robots", "society")
USAGE_LINES = 8


@dataclass(frozen=True)
class Card:
    """One published system.

    kind: what it is in polyact's words (learner, policy, combinator, judge, world, experience). summary: one line for a user. usage: a
    few lines of Python that use it. arxiv: the identifier, empty where the paper has none.
    """

    slug: str
    name: str
    title: str
    arxiv: str
    family: str
    kind: str
    summary: str
    usage: str

    def __post_init__(self):
        if self.family not in FAMILIES:
            raise PolyactError(f"card '{self.slug}': unknown family '{self.family}' (known: {', '.join(FAMILIES)})")
        if len(self.usage.strip().splitlines()) > USAGE_LINES:
            raise PolyactError(f"card '{self.slug}': usage has more than {USAGE_LINES} lines")
