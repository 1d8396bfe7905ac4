"""Pictures: right shapes, right places, well-formed SVG."""

from xml.etree import ElementTree

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_envs_physics import PHYSICS

from polyact.envs.catalogue import make
from polyact.envs.raster import rasterise
from polyact.envs.render import animate_svg, map_svg, render_rgb, render_svg
from polyact.envs.scene import Circle, Drawable, Line, Polygon, Scene, Text, box
from polyact.errors import PolyactError

SVG = "{http://www.w3.org/2000/svg}"


def shown(*shapes, view=(-1.0, -1.0, 1.0, 1.0), size=(40, 40)):
    """Darkness [height, width] in [0, 1] of black shapes on white."""
    return 1 - rasterise(Scene(shapes, view, "#ffffff"), *size)[..., 0] / 255


@pytest.fixture(scope="module", params=PHYSICS)
def film(request):
    env = make(request.param)
    assert isinstance(env, Drawable)
    state, observation = env.reset(jax.random.key(1))
    states, observations = [state], [observation]
    step = eqx.filter_jit(env.step)
    for time in range(6):
        state, out = step(state, jnp.asarray(env.action_space.high) * (-1.0) ** (time // 3), jax.random.key(time))
        states.append(state)
        observations.append(out.observation)
    return env, jax.device_get(states), np.stack(observations)


def test_every_world_is_drawn_in_any_size(film):
    env, states, _ = film
    wide = render_rgb(env, states[0], 64)
    left, bottom, right, top = env.scene(states[0]).view
    assert wide.dtype == np.uint8
    assert wide.shape == (round(64 * (top - bottom) / (right - left)), 64, 3)
    exact = render_rgb(env, states[0], (48, 80))
    assert exact.shape == (48, 80, 3)
    assert len(np.unique(exact.reshape(-1, 3), axis=0)) > 3
    assert np.any(render_rgb(env, states[0], 128) != render_rgb(env, states[3], 128)), "nothing moved"


def test_every_world_has_well_formed_svg_and_animation(film):
    env, states, _ = film
    still = ElementTree.fromstring(render_svg(env, states[0]))
    shapes = [element for element in still if element.tag != f"{SVG}rect"]
    assert len(shapes) == len(env.scene(states[0]).shapes)
    moving = ElementTree.fromstring(animate_svg(env, states, 20))
    animated = [*moving.iter(f"{SVG}animate"), *moving.iter(f"{SVG}animateTransform")]
    assert animated
    assert all(len(element.attrib["values"].split(";")) == len(states) for element in animated)
    assert all(element.attrib["dur"] == "0.350s" for element in animated)
    assert "http" not in animate_svg(env, states, 20).replace("http://www.w3.org/2000/svg", "")


def test_every_world_maps_its_trajectories(film):
    env, _, observations = film
    path = env.position(observations)
    assert path.shape == (len(observations), 2)
    tree = ElementTree.fromstring(map_svg(env, [path, path + 0.01, path], labels=["a<b", "c", "a<b"]))
    lines = [element for element in tree.iter(f"{SVG}polyline") if element.attrib["stroke"] in ("#2563eb", "#ea580c")]
    assert {element.attrib["stroke"] for element in lines} >= {"#2563eb", "#ea580c"}
    assert [element.text for element in tree.iter(f"{SVG}text")] == ["a<b", "c"]
    ElementTree.fromstring(map_svg(env, []))


def test_a_map_widens_to_hold_its_trajectories():
    env = make("hopper2d")
    near, far = (ElementTree.fromstring(map_svg(env, [np.array([[0, 0.6], [x, 0.6]])])) for x in (1.0, 30.0))
    assert float(far.attrib["height"]) < 0.2 * float(near.attrib["height"])


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda env: map_svg(env, [np.zeros((3, 4))]), "trajectory 0 has shape (3, 4), expected [T, 2]"),
        (lambda env: map_svg(env, [np.zeros((3, 2))], labels=["a", "b"]), "1 trajectories need as many"),
        (lambda env: animate_svg(env, [], 10), "got 0 states"),
        (lambda env: render_rgb(env, env.reset(jax.random.key(0))[0], 0), "at least one pixel"),
    ],
)
def test_bad_requests_get_one_line(attempt, message):
    with pytest.raises(PolyactError) as caught:
        attempt(make("pendulum"))
    assert message in str(caught.value)


def test_a_disc_covers_its_area_and_nothing_else():
    dark = shown(Circle((0.0, 0.0), 0.5, "#000000"), size=(200, 200))
    assert dark.sum() / 100**2 == pytest.approx(np.pi * 0.25, rel=0.01)
    y, x = (np.mgrid[0:200, 0:200] + 0.5) / 100 - 1
    assert np.all(dark[np.hypot(x, y) > 0.51] == 0)
    assert np.all(dark[np.hypot(x, y) < 0.49] == 1)


def test_polygons_follow_the_even_odd_rule_and_lie_where_they_should():
    dark = shown(Polygon(box((0.5, 0.5), 0.25, 0.25), "#000000"))
    assert np.all(dark[5:15, 25:35] == 1)
    assert dark.sum() == pytest.approx(100, rel=0.01)
    star = np.array([[np.sin(a), np.cos(a)] for a in 4 * np.pi / 5 * np.arange(5)])
    assert shown(Polygon(star, "#000000"))[20, 20] == 0


def test_lines_have_round_ends_and_dashes():
    whole = shown(Line(np.array([[-0.5, 0.0], [0.5, 0.0]]), 0.2, "#000000"), size=(200, 200))
    assert whole.sum() / 100**2 == pytest.approx(0.2 + np.pi * 0.01, rel=0.01)
    dashed = shown(Line(np.array([[-0.5, 0.0], [0.5, 0.0]]), 0.02, "#000000", dash=(0.1, 0.1)), size=(200, 200))
    runs = np.sum(np.diff((dashed[100] > 0.5).astype(int)) == 1)
    assert runs == 5


def test_text_is_drawn_around_its_place():
    dark = shown(Text((0.0, 0.0), "Hello", 0.5, "#000000"), size=(100, 100))
    y, x = np.nonzero(dark > 0.5)
    assert abs(x.mean() - 50) < 4
    assert abs(y.mean() - 50) < 8
    assert dark.sum() > 50


def test_opacity_mixes():
    dark = shown(Polygon(box((0.0, 0.0), 1.0, 1.0), "#000000", 0.25))
    np.testing.assert_allclose(dark[10:30, 10:30], 0.25, atol=0.01)
