"""Pictures of environments: pixels, SVG, self-contained animations, and maps with trajectories over them.

Everything is made from the one description each environment gives of itself (scene.py). SVG comes out as plain strings that can be
put into an HTML page as they are.
"""

from collections.abc import Sequence
from dataclasses import replace
from html import escape

import numpy as np

from polyact.envs.base import State
from polyact.envs.raster import rasterise
from polyact.envs.scene import INK, PALETTE, Circle, Drawable, Line, Point, Polygon, Scene, Shape, Text, View
from polyact.errors import PolyactError

__all__ = ["animate_svg", "map_svg", "render_rgb", "render_svg"]

_WIDTH = 400.0

Tag = tuple[str, dict[str, str], str]


def render_rgb(env: Drawable, state: State, size: int | tuple[int, int] = 256) -> np.ndarray:
    """One state as uint8 [height, width, 3]. size: the width in pixels (the height follows the view), or (height, width)."""
    scene = env.scene(state)
    left, bottom, right, top = scene.view
    height, width = size if isinstance(size, tuple) else (max(1, round(size * (top - bottom) / (right - left))), size)
    if min(height, width) < 1:
        raise PolyactError(f"a picture needs at least one pixel each way, got {height} x {width}")
    return rasterise(scene, height, width)


def render_svg(env: Drawable, state: State) -> str:
    """One state as an SVG document."""
    scene = env.scene(state)
    return _document(scene, "".join(_element(*tag) for tag in _tags(scene)))


def animate_svg(env: Drawable, states: Sequence[State], fps: float) -> str:
    """States shown one after the other at `fps`, over and over, as a self-contained SVG document (SMIL, no script).

    Raises PolyactError when there are no states or the environment's scenes differ in their shapes.
    """
    scenes = [env.scene(state) for state in states]
    if not scenes or fps <= 0:
        raise PolyactError(f"an animation needs states and a positive frame rate, got {len(scenes)} states at {fps:g} per second")
    frames = [_tags(scene, scenes[0].view) for scene in scenes]
    if len({tuple(name for name, _, _ in frame) for frame in frames}) > 1:
        raise PolyactError(f"the scenes of {type(env).__name__} differ in the kinds of their shapes, so they can't be animated")
    duration = f'dur="{len(scenes) / fps:.3f}s" repeatCount="indefinite"'
    moving = "".join(_animated(tags, duration) for tags in zip(*frames, strict=True))
    return _document(scenes[0], f"<g>{_following(scenes, duration)}{moving}</g>")


def map_svg(
    env: Drawable,
    trajectories: Sequence[np.ndarray],
    colours: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> str:
    """Trajectories (points [T, 2] in world coordinates, see `Drawable.position`) over what never moves; none gives the bare map.

    `colours` and `labels`: one for each trajectory; equal labels share one line of the legend and, by default, one colour. A dot
    marks where a trajectory ended. Raises PolyactError on points of another shape and on lists of other lengths.
    """
    trajectories = [np.asarray(points, float) for points in trajectories]
    for place, points in enumerate(trajectories):
        if points.ndim != 2 or points.shape[1] != 2 or not len(points):
            raise PolyactError(f"trajectory {place} has shape {points.shape}, expected [T, 2]")
    kinds = list(labels) if labels is not None else [str(place) for place in range(len(trajectories))]
    order = {kind: PALETTE[place % len(PALETTE)] for place, kind in enumerate(dict.fromkeys(kinds))}
    inks = list(colours) if colours is not None else [order[kind] for kind in kinds]
    if not len(trajectories) == len(kinds) == len(inks):
        raise PolyactError(f"{len(trajectories)} trajectories need as many colours and labels, got {len(inks)} and {len(kinds)}")
    scene = _around(env.backdrop(), trajectories)
    unit = (scene.view[2] - scene.view[0]) / 100
    opacity = float(np.clip(4 / max(len(trajectories), 1), 0.35, 0.9))
    paths = [Line(p, 0.7 * unit, ink, opacity) for p, ink in zip(trajectories, inks, strict=True)]
    ends = [Circle(p[-1], 1.1 * unit, ink) for p, ink in zip(trajectories, inks, strict=True)]
    body = "".join(_element(*tag) for tag in _tags(scene.add(*paths, *ends)))
    legend = _legend(dict(zip(kinds, inks, strict=True))) if labels else ""
    return _document(scene, body + legend)


def _document(scene: Scene, body: str) -> str:
    height = _height(scene)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height:g}" width="{_WIDTH:g}" height="{height:g}" '
        f'style="max-width:100%;height:auto" font-family="system-ui,sans-serif">'
        f'<rect width="100%" height="100%" rx="6" fill="{scene.background}"/>{body}</svg>'
    )


def _height(scene: Scene) -> float:
    left, bottom, right, top = scene.view
    return round(_WIDTH * (top - bottom) / (right - left), 1)


def _tags(scene: Scene, view: View | None = None) -> list[Tag]:
    """Each shape as (element name, attributes, content), in the pixels of `view` (default: the scene's own)."""
    left, _, right, top = view or scene.view
    scale = _WIDTH / (right - left)

    def place(points: Point) -> str:
        pixels = (np.asarray(points, float).reshape(-1, 2) - [left, top]) * [scale, -scale]
        return " ".join(f"{_short(x)},{_short(y)}" for x, y in pixels)

    def tag(shape: Shape) -> Tag:
        match shape:
            case Circle():
                x, y = place(shape.centre).split(",")
                return "circle", {"cx": x, "cy": y, "r": _short(shape.radius * scale), "fill": shape.fill} | _see(shape.opacity), ""
            case Polygon():
                return (
                    "polygon",
                    {"points": place(shape.points), "fill": shape.fill, "fill-rule": "evenodd"} | _see(shape.opacity),
                    "",
                )
            case Line():
                style = {"fill": "none", "stroke": shape.colour, "stroke-width": _short(max(shape.width * scale, 1))}
                dash = {"stroke-dasharray": " ".join(_short(d * scale) for d in shape.dash)} if shape.dash else {}
                ends = {"stroke-linecap": "round", "stroke-linejoin": "round"}
                return "polyline", {"points": place(shape.points)} | style | ends | dash | _see(shape.opacity), ""
            case Text():
                x, y = place(shape.centre).split(",")
                style = {"font-size": _short(shape.size * scale), "fill": shape.colour}
                return "text", {"x": x, "y": y, "text-anchor": "middle", "dominant-baseline": "central"} | style, escape(shape.text)

    return [tag(shape) for shape in scene.shapes]


def _see(opacity: float) -> dict[str, str]:
    return {} if opacity == 1 else {"opacity": f"{opacity:.2f}"}


def _short(value: float) -> str:
    """A pixel coordinate to a tenth, without needless characters."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _element(name: str, attributes: dict[str, str], content: str) -> str:
    written = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f"<{name}{written}>{content}</{name}>"


def _animated(tags: Sequence[Tag], duration: str) -> str:
    """One shape through all frames: attributes that change become `animate` elements."""
    name, attributes, content = tags[0]
    changes = ""
    for key in attributes:
        values = [tag[1].get(key, attributes[key]) for tag in tags]
        if len(set(values)) > 1:
            changes += f'<animate attributeName="{key}" {duration} values="{";".join(values)}"/>'
    return _element(name, attributes, content + changes)


def _following(scenes: Sequence[Scene], duration: str) -> str:
    """The camera: everything moves against the shift of the view."""
    views = np.array([scene.view for scene in scenes])
    shift = (views[0] - views)[:, [0, 3]] * _WIDTH / (views[0, 2] - views[0, 0]) * [1, -1]
    if not np.any(shift):
        return ""
    values = ";".join(f"{_short(x)} {_short(y)}" for x, y in shift)
    return f'<animateTransform attributeName="transform" type="translate" {duration} values="{values}"/>'


def _around(scene: Scene, trajectories: Sequence[np.ndarray]) -> Scene:
    """The scene with its view widened to hold all trajectories."""
    left, bottom, right, top = scene.view
    points = np.concatenate([*trajectories, np.array([[left, bottom], [right, top]])])
    low, high = points.min(0), points.max(0)
    margin = 0.02 * max(high - low) * np.array([low < [left, bottom], high > [right, top]])
    return replace(scene, view=(*(low - margin[0]).tolist(), *(high + margin[1]).tolist()))


def _legend(colours: dict[str, str]) -> str:
    plate = f'<rect x="4" y="4" width="{max(map(len, colours)) * 7 + 30}" height="{17 * len(colours) + 6}" rx="4" fill="#ffffff" '
    rows = "".join(
        f'<circle cx="14" cy="{y}" r="4" fill="{colour}"/><text x="24" y="{y}" font-size="12" fill="{INK}" '
        f'dominant-baseline="central">{escape(label)}</text>'
        for y, (label, colour) in zip(range(16, 16 + 17 * len(colours), 17), colours.items(), strict=True)
    )
    return f'{plate}opacity="0.85"/>{rows}'
