"""Plots as SVG text, drawn by hand: no scripts, colours from the page's style sheet, a title on everything that can be pointed at.

Every plot is drawn for a given width, so that a page can hold a wide and a narrow version and letters keep their size on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from polyact.evaluation.report.report import Distributions, Effect, Forest, Group, Lines, Plot
from polyact.evaluation.statistics.curves import Curve
from polyact.evaluation.statistics.estimate import Estimate

COLOURS = 8
MOST_DOTS = 300


def draw(plot: Plot, width: int = 720) -> str:
    """The plot as one <svg> element of this width in pixels. Its classes (c0 .. c7, grid, label, ...) are styled by the page."""
    match plot:
        case Distributions():
            return _distributions(plot, width)
        case Lines():
            return _lines(plot, width)
        case Forest():
            return _forest(plot, width)


def legend(plot: Plot) -> tuple[str, ...]:
    """Names of the series, in the order of their colours; none where rows carry their own names."""
    return tuple(curve.label for curve in plot.curves) if isinstance(plot, Lines) and len(plot.curves) > 1 else ()


def marker(series: int, x: float, y: float, size: float = 3.2) -> str:
    """The point of a series: shape and colour both tell series apart."""
    colour = f"c{series % COLOURS}"
    match series % 4:
        case 0:
            return f'<circle class="{colour} dot" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
        case 1:
            return (
                f'<rect class="{colour} dot" x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size:.1f}" height="{2 * size:.1f}"/>'
            )
        case 2:
            corners = [(x, y - 1.3 * size), (x + 1.2 * size, y + size), (x - 1.2 * size, y + size)]
        case _:
            corners = [(x, y - 1.4 * size), (x + 1.4 * size, y), (x, y + 1.4 * size), (x - 1.4 * size, y)]
    return f'<polygon class="{colour} dot" points="{_points(corners)}"/>'


@dataclass(frozen=True)
class Scale:
    """A straight map from data to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round numbers in range, at most `most` and one more."""
        rough = (self.high - self.low) / max(most, 1)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def span(values: Sequence[float], start: float, end: float, margin: float = 0.04) -> Scale:
    """A scale that holds all finite values with a margin."""
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    extra = (high - low) * margin
    return Scale(low - extra, high + extra, start, end)


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """The ticks' numbers: one unit for all of them, as many decimals as the step needs."""
    largest = max((abs(t) for t in ticks), default=0.0)
    size, unit = next(((s, u) for s, u in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if largest >= 10 * s), (1.0, ""))
    step = (ticks[1] - ticks[0]) / size if len(ticks) > 1 else largest / size or 1.0
    return [f"{t / size:.{_decimals(step)}f}{unit}".replace("-", "−") if abs(t) > step * size * 1e-9 else "0" for t in ticks]


def _decimals(step: float) -> int:
    return next((d for d in range(7) if abs(step * 10**d - round(step * 10**d)) < 1e-6 * max(1.0, step * 10**d)), 6)


def _distributions(plot: Distributions, width: int) -> str:
    row, top = 78, 6
    bottom = top + row * len(plot.groups)
    values = [v for group in plot.groups for v in group.values]
    ends = [e for group in plot.groups if group.estimate for e in (group.estimate.low, group.estimate.high, group.estimate.value)]
    x = span([*values, *ends], 12, width - 12)
    body = _x_axis(x, top, bottom, plot.x_label, width)
    for number, group in enumerate(plot.groups):
        body += _distribution(group, number, x, top + row * number, width)
    return _svg(width, bottom + 44, plot.title, body)


def _distribution(group: Group, series: int, x: Scale, top: float, width: int) -> str:
    colour, base = f"c{series % COLOURS}", top + 48
    out = _row_text(group.label, group.estimate, top + 15, width)
    finite = np.sort(np.array([v for v in group.values if math.isfinite(v)]))
    if len(finite) > 1 and np.ptp(finite) > 0:
        places, heights = _density(finite, x)
        shape = [(places[0], base), *zip(places, base - 26 * heights, strict=True), (places[-1], base)]
        out += f'<polygon class="{colour} area" points="{_points(shape)}"/>'
    shown = finite if len(finite) <= MOST_DOTS else finite[np.linspace(0, len(finite) - 1, MOST_DOTS).round().astype(int)]
    jitter = (np.arange(len(shown)) * 0.618034) % 1.0
    for value, offset in zip(shown, jitter, strict=True):
        at = f'cx="{x(value):.1f}" cy="{base + 12 + 12 * offset:.1f}"'
        out += f'<circle class="{colour} speck" {at} r="2"><title>{value:.6g}</title></circle>'
    return out + (_interval(group.estimate, x, base + 4, f"{colour} mark", group.label) if group.estimate else "")


def _density(values: np.ndarray, x: Scale) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian kernel density along the axis, highest point 1, in pixels. Half of Silverman's width, so that two modes stay two."""
    pixels = np.array([x(v) for v in values])
    quarter = np.subtract(*np.quantile(pixels, [0.75, 0.25])) / 1.34
    spread = min(s for s in (pixels.std(), quarter or np.inf) if s > 0)
    width = max(0.5 * spread * len(pixels) ** -0.2, 1.5)
    places = np.linspace(max(pixels[0] - 3 * width, x.start), min(pixels[-1] + 3 * width, x.end), 120)
    counts, edges = np.histogram(pixels, bins=400)
    middles = (edges[:-1] + edges[1:]) / 2
    heights = (np.exp(-(((places[:, None] - middles) / width) ** 2) / 2) * counts).sum(1)
    return places, heights / heights.max()


def _lines(plot: Lines, width: int) -> str:
    height, top, right = (310 if width >= 500 else 265), 28, 14
    bottom = height - 44
    estimates = [e for curve in plot.curves for e in curve.estimates]
    y = span([v for e in estimates for v in (e.value, e.low, e.high)], bottom, top)
    ticks = y.ticks(5)
    texts = tick_texts(ticks)
    left = 14 + 7 * max(len(text) for text in texts)
    x = span([v for curve in plot.curves for v in curve.x], left, width - right, 0.02)
    body = f'<text class="label" x="2" y="12">{escape(plot.y_label)}</text>'
    for t, text in zip(ticks, texts, strict=True):
        body += f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        body += f'<text class="tick" x="{left - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{text}</text>'
    body += _x_axis(x, top, bottom, plot.x_label, width, grid=False)
    for number, curve in enumerate(plot.curves):
        body += _curve(curve, number, x, y)
    return _svg(width, height, plot.title, body)


def _curve(curve: Curve, series: int, x: Scale, y: Scale) -> str:
    colour = f"c{series % COLOURS}"
    points = [(px, e) for px, e in zip(curve.x, curve.estimates, strict=True) if math.isfinite(e.value)]
    sure = [(px, e) for px, e in points if math.isfinite(e.low) and math.isfinite(e.high)]
    band = [(x(px), y(e.high)) for px, e in sure] + [(x(px), y(e.low)) for px, e in reversed(sure)]
    line = _points([(x(px), y(e.value)) for px, e in points])
    out = f'<polygon class="{colour} band" points="{_points(band)}"/>' if len(sure) > 1 else ""
    out += f'<polyline class="{colour} line d{series % 4}" points="{line}"/>'
    few = len(points) <= 25
    for px, e in points:
        at = (x(px), y(e.value))
        dot = marker(series, *at) if few else f'<circle class="target" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="5"/>'
        out += f"<g>{dot}<title>{escape(curve.label)} at {px:g}: {escape(str(e))}</title></g>"
    return out


def _forest(plot: Forest, width: int) -> str:
    row, top = 46, 6
    bottom = top + row * len(plot.effects)
    neutral = [] if plot.neutral is None else [plot.neutral]
    values = [v for effect in plot.effects for v in (effect.estimate.low, effect.estimate.high, effect.estimate.value)]
    x = span([*values, *neutral], 12, width - 12)
    body = _x_axis(x, top, bottom, plot.x_label, width)
    for number, effect in enumerate(plot.effects):
        above = top + row * number
        for at in neutral:
            body += f'<line class="neutral" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{above + 20}" y2="{above + 42}"/>'
        body += _effect(effect, x, above, plot.neutral, width)
    return _svg(width, bottom + 44, plot.title, body)


def _effect(effect: Effect, x: Scale, top: float, neutral: float | None, width: int) -> str:
    e = effect.estimate
    side = "c0" if neutral is None or e.low > neutral else "c1" if e.high < neutral else "cn"
    return _row_text(effect.label, e, top + 15, width) + _interval(e, x, top + 29, f"{side} mark", effect.label)


def _interval(e: Estimate, x: Scale, y: float, classes: str, label: str) -> str:
    low, high = (end if math.isfinite(end) else edge for end, edge in ((e.low, x.low), (e.high, x.high)))
    return (
        f'<g class="{classes}"><line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<circle cx="{x(e.value):.1f}" cy="{y:.1f}" r="5"/><title>{escape(label)}: {escape(str(e))}</title></g>'
    )


def _row_text(label: str, e: Estimate | None, y: float, width: int) -> str:
    numbers = f"{e.text} {e.interval_text}" if e else ""
    room = int((width - 36 - 6.8 * len(numbers)) / 7.9)
    short = label if len(label) <= room else label[: max(room - 1, 1)] + "…"
    return (
        f'<text class="name" x="12" y="{y:.1f}">{escape(short)}<title>{escape(label)}</title></text>'
        f'<text class="number" x="{width - 12}" y="{y:.1f}" text-anchor="end">{escape(numbers)}</text>'
    )


def _x_axis(x: Scale, top: float, bottom: float, label: str, width: int, grid: bool = True) -> str:
    ticks = x.ticks(max(3, min(8, width // 75)))
    out = f'<line class="axis" x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{bottom}" y2="{bottom}"/>'
    for t, text in zip(ticks, tick_texts(ticks), strict=True):
        at, rise = x(t), top if grid else bottom
        out += f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{rise}" y2="{bottom + 4}"/>'
        out += f'<text class="tick" x="{at:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>'
    return (
        out + f'<text class="label" x="{(x.start + x.end) / 2:.1f}" y="{bottom + 36}" text-anchor="middle">{escape(label)}</text>'
    )


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _svg(width: int, height: float, title: str, body: str) -> str:
    return (
        f'<svg class="plot" role="img" aria-label="{escape(title)}" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )
