"""The skirmish arena: maps are fair, shots obey walls, aim, cover and reloading, and games end as they should."""

from collections import deque

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.rollout import rollout
from polyact.envs.catalogue import make
from polyact.envs.render import render_rgb
from polyact.envs.skirmish.aiming import PER_TURN, aiming
from polyact.envs.skirmish.bots import BOTS, TURNS, aimed, wrapped
from polyact.envs.skirmish.maps import CELLS, COVER, FAR, FLOOR, SIZE, WALL, checked, random_map, tables
from polyact.envs.skirmish.skirmish import RELOAD, hunter, skirmish, skirmishes
from polyact.envs.skirmish.view import WIDTH, pack, unpack
from polyact.errors import PolyactError
from polyact.policies.random_policy import RandomPolicy
from polyact.policies.scripted import Scripted

KEY = jax.random.key(0)
OPEN = skirmish(terrain=np.zeros((SIZE, SIZE), np.int8))
STAY = jnp.zeros(6, jnp.int32)
SHOOT = jnp.array([0, 0, 1, 0, 0, 0])
reset, step = (
    eqx.filter_jit(lambda env, key: env.reset(key)),
    eqx.filter_jit(lambda env, state, action, key: env.step(state, action, key)),
)

PERCEIVED = eqx.filter_jit(lambda env, state: env._perceived(state))
SHOTS = eqx.filter_jit(lambda env, *what: env._shots(*what))


def at(x, y):
    return y * SIZE + x


def duel(env, ours, theirs, aim=0.0, **fields):
    """A state with fighter 0 at `ours`, fighter 2 at `theirs` (x, y), who neither moves nor shoots, and both mates dead."""
    state, _ = reset(env, KEY)
    state = eqx.tree_at(
        lambda s: (s.cell, s.aim, s.health, s.character, s.theirs),
        state,
        (
            jnp.array([at(*ours), at(0, 0), at(*theirs), at(15, 15)]),
            jnp.array([aim, 0.0, 0.0, 0.0]),
            jnp.array([1.0, 0.0, 1.0, 0.0]),
            jnp.zeros(9),
            jnp.zeros((2, WIDTH)),
        ),
    )
    return eqx.tree_at(lambda s: [getattr(s, name) for name in fields], state, list(fields.values())) if fields else state


def certain(env):
    return eqx.tree_at(lambda e: (e.accuracy, e.shelter), env, (jnp.asarray(2.0), jnp.asarray(0.0)))


def hurt(env, state, action=SHOOT):
    """Health that fighter 2 loses in one tick."""
    return float(1 - step(certain(env), state, action, KEY)[0].health[2])


def test_random_maps_are_fair_and_connected():
    for seed in range(5):
        terrain = random_map(seed)
        assert np.array_equal(terrain, terrain[::-1, ::-1])
        assert set(np.unique(terrain)) == {FLOOR, WALL, COVER}
        checked(terrain)


def test_steps_between_cells_are_those_of_a_breadth_first_search():
    terrain = random_map(3)
    neighbours, steps, _ = tables(terrain.tobytes())
    start = int(np.flatnonzero(terrain.reshape(-1) == FLOOR)[40])
    found, queue = {start: 0}, deque([start])
    while queue:
        cell = queue.popleft()
        for there in map(int, neighbours[cell]):
            if there not in found:
                found[there] = found[cell] + 1
                queue.append(there)
    assert [found.get(cell, FAR) for cell in range(CELLS)] == steps[start].tolist()


def test_walls_hide_and_cover_does_not():
    terrain = np.zeros((SIZE, SIZE), np.int8)
    terrain[4, 8], terrain[10, 8] = WALL, COVER
    _, _, sight = tables(terrain.tobytes())
    assert np.array_equal(sight, sight.T)
    assert not sight[at(5, 4), at(12, 4)]
    assert sight[at(5, 10), at(12, 10)]
    assert sight[at(5, 5), at(12, 5)]


@pytest.mark.parametrize(
    ("terrain", "message"),
    [
        (np.zeros((4, 4)), "16 x 16 cells"),
        (np.full((SIZE, SIZE), 3), "of 0 \\(floor\\)"),
        (np.eye(SIZE), "free bases"),
        (np.pad(np.ones((SIZE, 1)), ((0, 0), (8, 7))), "connected"),
    ],
)
def test_what_is_no_map_is_refused(terrain, message):
    with pytest.raises(PolyactError, match=message):
        skirmish(terrain=terrain)


def test_a_shot_hits_within_the_angle_and_the_reach_only():
    damage, distance = float(OPEN.damage), 5
    half = np.arctan2(float(OPEN.width), distance)
    assert hurt(OPEN, duel(OPEN, (4, 8), (9, 8), aim=0.95 * half)) == pytest.approx(damage)
    assert hurt(OPEN, duel(OPEN, (4, 8), (9, 8), aim=1.05 * half)) == 0
    assert hurt(OPEN, duel(OPEN, (4, 8), (14, 8))) == 0
    assert hurt(OPEN, duel(OPEN, (4, 8), (9, 8)), STAY) == 0


def test_turning_comes_before_the_shot():
    state = duel(OPEN, (4, 8), (9, 8), aim=-float(TURNS[3]))
    assert hurt(OPEN, state) == 0
    assert hurt(OPEN, state, SHOOT.at[1].set(3)) > 0


def test_a_fighter_must_reload():
    state, env = duel(OPEN, (4, 8), (9, 8)), certain(OPEN)
    health = []
    for _ in range(RELOAD + 2):
        state, _ = step(env, state, SHOOT, KEY)
        health.append(round((1 - float(state.health[2])) / float(env.damage)))
    assert health == [1] * (RELOAD + 1) + [2]


def test_walls_stop_shots_and_cover_shelters_those_right_behind_it():
    terrain = np.zeros((SIZE, SIZE), np.int8)
    terrain[8, 7] = COVER
    covered = skirmish(terrain=terrain)
    assert hurt(covered, duel(covered, (4, 8), (8, 8))) == 0
    assert hurt(covered, duel(covered, (4, 8), (9, 8))) > 0
    terrain[8, 7] = WALL
    walled = skirmish(terrain=terrain)
    assert hurt(walled, duel(walled, (4, 8), (9, 8))) == 0


def test_a_game_ends_when_a_side_is_dead_or_time_is_over():
    env = certain(OPEN)
    state = duel(OPEN, (4, 8), (9, 8), health=jnp.array([1.0, 0.0, 0.2, 0.0]))
    _, out = step(env, state, SHOOT, KEY)
    assert out.terminated
    assert out.info["success"]
    assert float(out.reward) == pytest.approx(0.1 + 1)
    late = eqx.tree_at(lambda s: s.time, state, jnp.asarray(OPEN.horizon - 1))
    _, out = step(env, late, STAY, KEY)
    assert out.terminated
    assert float(out.reward) == 1


def test_what_is_packed_can_be_unpacked():
    state, observation = reset(OPEN, KEY)
    view = eqx.filter_jit(lambda env, state: env._view(state, jnp.asarray(1)))(OPEN, state)
    assert observation.shape == (2, WIDTH)
    for name, part in unpack(pack(view))._asdict().items():
        np.testing.assert_allclose(part, np.asarray(getattr(view, name), np.float32), atol=1e-5, err_msg=name)


def test_the_best_turn_leaves_the_smallest_error():
    for error in np.linspace(-3, 3, 41):
        turn, left = aimed(jnp.asarray(error))
        assert abs(float(left)) == pytest.approx(np.abs(wrapped(jnp.asarray(error - TURNS))).min(), abs=1e-5)
        assert float(wrapped(jnp.asarray(error - TURNS[int(turn)]))) == pytest.approx(float(left), abs=1e-5)


def test_aiming_tells_which_turn_hits_after_which_step_of_the_foe():
    """The same answers as the shots themselves, with a foe who is made to step."""
    known = jnp.array([at(4, 8), at(0, 0), at(8, 8), at(15, 15)])
    state = duel(OPEN, (4, 8), (8, 8), aim=-float(TURNS[3]), known=known, age=jnp.zeros(4, jnp.int32))
    _, rows = PERCEIVED(OPEN, state)
    told = np.asarray(aiming(rows[0])).reshape(len(TURNS), PER_TURN)[:, :5]
    for turn, would_hit in enumerate(told):
        for move, place in enumerate([(8, 8), (9, 8), (7, 8), (8, 9), (8, 7)]):
            cell = state.cell.at[2].set(at(*place))
            aim = wrapped(state.aim + jnp.array([TURNS[turn], 0, 0, 0]))
            alive, shot = state.health > 0, jnp.array([True, False, False, False])
            lost = SHOTS(certain(OPEN), state.cell, aim, cell, alive, shot, KEY)[2]
            assert bool(lost > 0) == bool(would_hit[move]), (turn, move)


def test_maps_can_be_vmapped_and_a_bot_beats_chance_on_each():
    maps, rule = skirmishes([0, 1]), Scripted(OPEN, hunter)
    bots, chance = (rollout(policy, maps, episodes=64, key=KEY) for policy in (rule, RandomPolicy(maps.action_space)))
    won, by_chance = (np.asarray(games.info["success"])[np.cumsum(games.lengths) - 1] for games in (bots, chance))
    for number in (0, 1):
        assert won[number::2].mean() > by_chance[number::2].mean() + 0.15
        assert bots.returns[number::2].mean() > chance.returns[number::2].mean() + 0.3
    assert set(np.flatnonzero(bots.terminated)) == set(np.cumsum(bots.lengths) - 1)
    assert not bots.truncated.any()


def test_the_arena_can_be_made_by_name_and_drawn():
    env = make("skirmish", number=4)
    state, observation = reset(env, KEY)
    assert render_rgb(env, state, 64).shape == (64, 64, 3)
    place = env.position(np.asarray(observation)[None])[0]
    assert place[1] * SIZE + place[0] == state.cell[0]
    assert len(BOTS) == 8
