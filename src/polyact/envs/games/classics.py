"""Small games with known answers: matrix games, Kuhn and Leduc poker, and a common-payoff game with private cards."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from polyact.envs.games.tree import Chance, Choice, Tree, build
from polyact.errors import PolyactError

PASS, BET = 0, 1
FOLD, CALL, RAISE = 0, 1, 2


def matrix_game(rows: Float[np.ndarray, "A B"], columns: Float[np.ndarray, "A B"] | None = None) -> Tree:
    """Both choose at once. rows, columns: payoffs of the player who chooses the row and of the other (the negative, when not given)."""
    columns = -rows if columns is None else columns
    if rows.shape != columns.shape:
        raise PolyactError(f"payoffs of both players need one shape, got {rows.shape} and {columns.shape}")

    def second(first: int) -> Choice:
        return Choice(1, "", range(rows.shape[1]), lambda action: (rows[first, action], columns[first, action]))

    return build(Choice(0, "", range(rows.shape[0]), second), 2, max(rows.shape))


def private_cards(payoff: Float[np.ndarray, "C D A B"]) -> Tree:
    """Each of two players gets a card (independent, uniform), both choose at once; payoff[card, other's card, action, other's action]
    is common to both."""
    cards, others, actions, answers = payoff.shape

    def dealt(deal: int) -> Choice:
        first, second = divmod(deal, others)

        def answered(action: int) -> Choice:
            return Choice(1, second, range(answers), lambda answer: (payoff[first, second, action, answer],) * 2)

        return Choice(0, first, range(actions), answered)

    return build(Chance([1 / (cards * others)] * (cards * others), dealt), 2, max(actions, answers))


def kuhn() -> Tree:
    """Three cards, one each, ante 1, one bet of 1 (Kuhn 1950). Value to the first player: -1/18."""

    def turn(deal: tuple[int, int], played: str) -> Any:
        winner = 1 if deal[0] > deal[1] else -1
        match played:
            case "pp":
                return winner, -winner
            case "bb" | "pbb":
                return 2 * winner, -2 * winner
            case "bp":
                return 1, -1
            case "pbp":
                return -1, 1
        mover = len(played) % 2
        return Choice(mover, (deal[mover], played), (PASS, BET), lambda action: turn(deal, played + "pb"[action]))

    deals = [(first, second) for first in range(3) for second in range(3) if first != second]
    return build(Chance([1 / 6] * 6, lambda k: turn(deals[k], "")), 2, 2)


def leduc() -> Tree:
    """Six cards (three ranks twice), one each and one for both; ante 1, raises of 2 and then 4, at most two a round (Southey et al. 2005).

    Cards of one rank look alike, so deals are drawn by rank. Folding is legal only when there is something to pay.
    """

    def deal(counts: tuple[int, ...], follow: Any) -> Chance:
        def one(rank: int) -> Any:
            return follow(rank, tuple(count - (rank == k) for k, count in enumerate(counts)))

        return Chance([count / sum(counts) for count in counts], one)

    def betting(
        cards: tuple[int, int], table: int | None, left: tuple[int, ...], paid: tuple[int, int], before: str, now: str
    ) -> Any:
        """before, now: what was played in round 1 and in the running round, as letters of f(old), c(all), r(aise)."""
        mover, stake = len(now) % 2, 2 if table is None else 4
        if now.endswith("f"):
            won = min(paid)
            return (won, -won) if mover == 0 else (-won, won)
        if now.endswith("c") and len(now) > 1:
            if table is not None:
                return _showdown(cards, table, paid[0])
            return deal(left, lambda rank, rest: betting(cards, rank, rest, paid, now, ""))
        actions = [CALL]
        actions += [FOLD] if paid[mover] < paid[1 - mover] else []
        actions += [RAISE] if now.count("r") < 2 else []

        def played(action: int) -> Any:
            level = max(paid) + stake * (action == RAISE) if action != FOLD else paid[mover]
            after = (level, paid[1]) if mover == 0 else (paid[0], level)
            return betting(cards, table, left, after, before, now + "fcr"[action])

        return Choice(mover, (cards[mover], table, before, now), sorted(actions), played)

    def both(first: int, left: tuple[int, ...]) -> Chance:
        return deal(left, lambda second, rest: betting((first, second), None, rest, (1, 1), "", ""))

    return build(deal((2, 2, 2), both), 2, 3)


def _showdown(cards: tuple[int, int], table: int, paid: int) -> tuple[int, int]:
    """A pair with the table wins, else the higher card; equal cards share."""
    strength = [10 * (card == table) + card for card in cards]
    sign = int(np.sign(strength[0] - strength[1]))
    return sign * paid, -sign * paid
