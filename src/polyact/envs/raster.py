"""Shapes to pixels, in NumPy: coverage from signed distances, so edges are smooth without supersampling."""

from functools import lru_cache

import numpy as np

from polyact.envs.scene import Circle, Line, Polygon, Scene, Shape, Text


def rasterise(scene: Scene, height: int, width: int) -> np.ndarray:
    """The scene as uint8 [height, width, 3]; the view is fitted in and centred."""
    left, bottom, right, top = scene.view
    scale = min(width / (right - left), height / (top - bottom))
    origin = np.array([width / 2 - scale * (left + right) / 2, height / 2 + scale * (bottom + top) / 2])
    image = np.broadcast_to(_rgb(scene.background), (height, width, 3)).copy()
    for shape in scene.shapes:
        outlines, reach = _in_pixels(shape, origin, scale)
        if outlines:
            _paint(image, shape, outlines, reach)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def text_outlines(text: str, size: float) -> list[np.ndarray]:
    """Closed outlines [n, 2] of a line of text, centred on the origin, y upwards."""
    return [outline * size for outline in _unit_outlines(text)]


@lru_cache(maxsize=256)
def _unit_outlines(text: str) -> tuple[np.ndarray, ...]:
    from matplotlib.textpath import TextPath

    outlines = [np.asarray(part, float) for part in TextPath((0, 0), text, size=100).to_polygons()]
    if not outlines:
        return ()
    points = np.concatenate(outlines)
    middle = (points.min(0) + points.max(0)) / 2
    return tuple((outline - middle) / 100 for outline in outlines)


def _in_pixels(shape: Shape, origin: np.ndarray, scale: float) -> tuple[list[np.ndarray], float]:
    """Outlines in pixel coordinates (y downwards), and a radius or half width in pixels."""
    flip = np.array([scale, -scale])
    match shape:
        case Circle():
            return [np.asarray(shape.centre)[None] * flip + origin], shape.radius * scale
        case Line():
            pieces = [np.asarray(shape.points, float)] if shape.dash is None else _dashes(shape.points, shape.dash)
            return [piece * flip + origin for piece in pieces], max(shape.width * scale / 2, 0.5)
        case Polygon():
            return [np.asarray(shape.points, float) * flip + origin], 0.0
        case Text():
            return [(outline + shape.centre) * flip + origin for outline in text_outlines(shape.text, shape.size)], 0.0


def _paint(image: np.ndarray, shape: Shape, outlines: list[np.ndarray], reach: float) -> None:
    points = np.concatenate(outlines)
    window = _window(points, reach, *image.shape[:2])
    if window is None:
        return
    y, x = np.mgrid[window] + 0.5
    if isinstance(shape, Circle | Line):
        segments = [(p[i], p[min(i + 1, len(p) - 1)]) for p in outlines for i in range(max(len(p) - 1, 1))]
        distance = _to_segments(x, y, segments, reach) - reach
    else:
        edges = [edge for outline in outlines for edge in zip(outline, np.roll(outline, -1, 0), strict=True)]
        distance = _to_segments(x, y, edges, 0.0) * np.where(_inside(x, y, edges), -1, 1)
    colour = shape.colour if isinstance(shape, Line | Text) else shape.fill
    opacity = 1.0 if isinstance(shape, Text) else shape.opacity
    cover = (np.clip(0.5 - distance, 0, 1) * opacity)[..., None]
    image[window] += cover * (_rgb(colour) - image[window])


def _window(points: np.ndarray, reach: float, height: int, width: int) -> tuple[slice, slice] | None:
    """The pixels that a shape may touch, or None when it is out of the picture."""
    low = np.clip(np.floor(points.min(0) - reach - 1), 0, [width, height]).astype(int)
    high = np.clip(np.ceil(points.max(0) + reach + 1), 0, [width, height]).astype(int)
    return None if np.any(low >= high) else (slice(low[1], high[1]), slice(low[0], high[0]))


Segments = list[tuple[np.ndarray, np.ndarray]]


def _to_segments(x: np.ndarray, y: np.ndarray, segments: Segments, reach: float) -> np.ndarray:
    """Distance to the nearest segment where that is within reach + 1 pixels; farther away some larger number."""
    distance = np.full(x.shape, reach + 1.0)
    corner = np.array([x[0, 0] - 0.5, y[0, 0] - 0.5])
    for a, b in segments:
        near = _window(np.stack([a, b]) - corner, reach, *x.shape)
        if near is None:
            continue
        dx, dy = b - a
        px, py = x[near] - a[0], y[near] - a[1]
        along = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
        distance[near] = np.minimum(distance[near], np.hypot(px - along * dx, py - along * dy))
    return distance


def _inside(x: np.ndarray, y: np.ndarray, edges: Segments) -> np.ndarray:
    """Whether points lie inside closed outlines, by the even-odd rule."""
    inside = np.zeros(x.shape, bool)
    for a, b in edges:
        if a[1] != b[1]:
            crosses = (y < a[1]) != (y < b[1])
            inside ^= crosses & (x < a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0]))
    return inside


def _dashes(points: np.ndarray, dash: tuple[float, float]) -> list[np.ndarray]:
    """The drawn pieces of a dashed polyline."""
    points = np.asarray(points, float)
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    pieces = []
    for start in np.arange(0, along[-1], sum(dash)):
        stop = min(start + dash[0], along[-1])
        at = np.concatenate([[start], along[(along > start) & (along < stop)], [stop]])
        pieces.append(np.stack([np.interp(at, along, points[:, i]) for i in range(2)], 1))
    return pieces


def _rgb(colour: str) -> np.ndarray:
    """'#rrggbb' as three numbers in [0, 1]."""
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
