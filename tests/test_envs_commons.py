"""The commons: the stocks of steady teams, who gets scarce units, and the inverse world."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.envs.commons import Commons
from polyact.errors import PolyactError

KEY = jax.random.key(0)


def stocks(commons, each, rounds=12, agents=5):
    """Stocks before every harvest when all want the same, and the round (from 1) in which the commons was lost."""
    stock, seen = jnp.asarray(commons.capacity), []
    for number in range(1, rounds + 1):
        seen.append(float(stock))
        taken = commons.allocate(stock, jnp.full(agents, each), jax.random.fold_in(KEY, number))
        if bool(commons.lost(stock - taken.sum())):
            return seen, number
        stock = commons.grown(stock - taken.sum())
    return seen, None


def test_ten_each_keeps_the_stock_for_ever():
    assert stocks(Commons(), 10.0) == ([100.0] * 12, None)


def test_twelve_each_lose_it_in_round_three():
    assert stocks(Commons(), 12.0) == ([100.0, 80.0, 40.0], 3)


def test_twenty_each_lose_it_at_once():
    assert stocks(Commons(), 20.0) == ([100.0], 1)


def test_collapse_is_judged_before_anything_grows_back():
    commons = Commons()
    assert [bool(commons.lost(jnp.asarray(left))) for left in (4.0, 5.0)] == [True, False]


def test_removing_ten_each_keeps_the_trash_constant():
    trash = Commons(growth=50.0, inverse=True)
    assert stocks(trash, 10.0) == ([100.0] * 12, None)
    assert stocks(trash, 11.0, rounds=3)[0] == [100.0, 95.0, 90.0]
    assert stocks(trash, 0.0) == ([100.0], 1)
    assert [bool(trash.lost(jnp.asarray(left))) for left in (95.0, 96.0)] == [False, True]


@pytest.mark.parametrize(("stock", "f"), [(100.0, 10), (99.0, 9), (80.0, 8), (41.0, 4), (9.0, 0)])
def test_the_threshold_is_an_integer_floor_of_an_integer_floor(stock, f):
    assert float(Commons().threshold(stock, 5.0)) == f
    assert float(Commons(growth=50.0, inverse=True).threshold(stock, 5.0)) == 10


@pytest.mark.parametrize("unit_by_unit", [True, False])
def test_allocation_conserves_units_and_never_exceeds_wishes(unit_by_unit):
    commons = Commons(unit_by_unit=unit_by_unit)
    share = jax.jit(jax.vmap(commons.allocate))
    rng = np.random.default_rng(0)
    stock = jnp.asarray(rng.integers(0, 100, 300), jnp.float32)
    wishes = jnp.asarray(rng.integers(0, 60, (300, 5)), jnp.float32)
    taken = share(stock, wishes, jax.random.split(KEY, 300))
    assert bool(jnp.all((taken >= 0) & (taken <= wishes) & (taken == jnp.floor(taken))))
    np.testing.assert_array_equal(taken.sum(1), jnp.minimum(stock, wishes.sum(1)))


def test_scarce_units_go_to_all_alike_until_somebody_has_enough():
    """A share of 15 units among wishes 2 and 100: whoever wants 2 gets them but in the rare case of luck."""
    share = jax.jit(jax.vmap(lambda key: Commons().allocate(30.0, jnp.array([30.0, 30.0, 2.0]), key)))
    taken = share(jax.random.split(KEY, 400)).mean(0)
    assert taken[2] > 1.99
    assert abs(taken[0] - taken[1]) < 0.5


def test_proportional_shares_are_proportional():
    taken = Commons(unit_by_unit=False).allocate(60.0, jnp.array([80.0, 40.0]), KEY)
    assert taken.tolist() == [40.0, 20.0]


def test_numbers_that_make_no_commons_are_refused():
    with pytest.raises(PolyactError, match="a commons needs"):
        Commons(growth=1.0)
