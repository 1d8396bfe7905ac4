"""Pictures of a data set as SVG texts: returns, lengths and action coverage of its sources."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from polyact import spaces
from polyact.data.coverage import BINS, busiest
from polyact.data.episodes import leaves
from polyact.data.source import Source

_SHOWN = 20_000  # actions drawn per source, evenly spaced over the data


def pictures(sources: Sequence[Source]) -> dict[str, str]:
    """SVG by title: 'Returns' and 'Lengths' (histograms over episodes), 'Actions' (one panel per source that has some)."""
    returns = {source.name: source.episodes.returns for source in sources if source.episodes.reward is not None}
    lengths = {source.name: source.episodes.lengths for source in sources}
    out = {"Returns": _histogram(returns, "return of an episode")} if returns else {}
    out["Lengths"] = _histogram(lengths, "steps of an episode")
    panels = [(source.name, *panel) for source in sources for panel in _panels(source)]
    return out | ({"Actions": _actions(panels)} if panels else {})


def _histogram(values: dict[str, np.ndarray], label: str) -> str:
    figure, (axes,) = _figure(1, (6.0, 3.2))
    every = np.concatenate([np.asarray(part, np.float64) for part in values.values()])
    every = every[np.isfinite(every)]
    edges = np.histogram_bin_edges(every, bins=min(40, max(5, int(np.sqrt(len(every))))) if len(every) else 1)
    for name, part in values.items():
        axes.hist(part, edges, histtype="stepfilled", alpha=0.45, label=_plain(name))
    axes.set(xlabel=label, ylabel="episodes")
    if len(values) > 1:
        axes.legend(fontsize=8)
    return _svg(figure)


def _panels(source: Source) -> list[tuple[str, np.ndarray, Any]]:
    """(part, actions, space) of each numeric part of the action."""
    if source.episodes.action is None or not source.episodes.steps:
        return []
    every = slice(None, None, max(1, source.episodes.steps // _SHOWN))
    space = dict(_spaces("action", source.action_space))
    return [
        (path, array[every], space[path])
        for path, array in leaves(source.episodes.action, "action")
        if path in space and array.dtype.kind in "biuf" and array[:1].size
    ]


def _spaces(path: str, space: Any) -> list[tuple[str, Any]]:
    if isinstance(space, spaces.Dict):
        return [leaf for name, part in space.items for leaf in _spaces(f"{path}/{name}", part)]
    return [(path, space)]


def _actions(panels: list[tuple[str, str, np.ndarray, Any]]) -> str:
    columns = min(3, len(panels))
    figure, grid = _figure(len(panels), (2.8 * columns, 2.6 * -(-len(panels) // columns)), columns)
    for axes, (name, part, action, space) in zip(grid, panels, strict=True):
        flat = action.reshape(len(action), -1).astype(np.float64)
        if isinstance(space, spaces.Discrete):
            axes.bar(
                np.arange(space.start, space.start + space.n), np.bincount(action.astype(np.int64) - space.start, minlength=space.n)
            )
            axes.set(xlabel="action")
        elif flat.shape[1] == 1:
            axes.hist(flat[:, 0], 4 * BINS)
            axes.set(xlabel="action")
        else:
            x, y = busiest(flat)
            axes.hist2d(flat[:, x], flat[:, y], 2 * BINS, cmin=1)
            axes.set(xlabel=f"action {x}", ylabel=f"action {y}")
        axes.set_title(_plain(name if part == "action" else f"{name}: {part}"), fontsize=9)
    return _svg(figure)


def _figure(count: int, size: tuple[float, float], columns: int = 1) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    rows = -(-count // columns)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def _svg(figure: Any) -> str:
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "polyact", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def _plain(name: str) -> str:
    """A name without matplotlib's mathematics, and short."""
    return name.replace("$", r"\$")[:40]
