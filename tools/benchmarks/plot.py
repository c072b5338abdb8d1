"""results.svg: bars for each case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .cases import CASES, Case
from .peer import NGINX
from .results import Results, ratio_text

_COLUMNS = 3
_OURS, _REFERENCE, _OTHERS = "#d9541e", "#333333", "#9db4c0"

# Text stays text: it is smaller, can be searched, and is drawn in whatever font there is.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "downspout",
    "font.size": 8,
    "axes.titlesize": 8,
}


def plot(results: Mapping[str, Results], words: Mapping[str, object], path: Path) -> None:
    """Draw the ratio of each peer to nginx with default buffers, on a logarithmic scale."""
    drawn = {case: _ratios(case, results[case.name]) for case in CASES if case.name in results}
    drawn = {case: ratios for case, ratios in drawn.items() if ratios}
    rows = -(-len(drawn) // _COLUMNS) or 1
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(13, 2.6 * rows), layout="constrained")
        grid = figure.subplots(rows, _COLUMNS, squeeze=False)
        for axes in grid.flat[len(drawn) :]:
            axes.remove()
        for axes, (case, ratios) in zip(grid.flat, drawn.items(), strict=False):
            main = case.figures[0]
            better = "less is better" if main.less_is_better else "more is better"
            axes.set_title(f"{case.title.format(**words)}\n{main.name} / {NGINX}, {better}")
            _draw(axes, ratios)
        figure.savefig(path, metadata={"Date": None})


def _ratios(case: Case, results: Results) -> dict[str, float]:
    found = {peer: results.ratio(peer, NGINX, case.figures[0]) for peer in results.values}
    return {peer: spread.median for peer, spread in found.items() if spread and spread.median > 0}


def _draw(axes: Axes, ratios: Mapping[str, float]) -> None:
    names = sorted(ratios, key=ratios.__getitem__)
    colours = [
        _OURS if name.startswith("downspout") else _REFERENCE if name == NGINX else _OTHERS
        for name in names
    ]
    # Bars begin at nginx, for which there is a line.
    bars = axes.barh(names, [ratios[name] - 1 for name in names], left=1, color=colours)
    axes.bar_label(bars, [f" {ratio_text(ratios[name])} " for name in names])
    axes.axvline(1, color=_REFERENCE, linewidth=0.8)
    axes.set_xscale("log")
    # With room for the numbers, which say more than ticks.
    axes.set_xlim(min(*ratios.values(), 0.5) / 6, max(*ratios.values(), 2.0) * 6)
    axes.xaxis.set_visible(False)
    axes.tick_params(left=False)
    axes.spines[:].set_visible(False)
