"""Write docs/speed.svg, the README's chart, from the figures of tools/benchmarks/RESULTS.md.

.venv/bin/python scripts/speed_chart.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

sys.path.insert(0, str(ROOT))

from tests.support.markdown import measured_figure  # noqa: E402 - found by the line above

CHART = ROOT / "docs" / "speed.svg"
RESULTS = ROOT / "tools" / "benchmarks" / "RESULTS.md"

# The case and the unit of each panel.
PANELS = [("100 MiB alone", "MiB/s"), ("16 KiB on 64 connections", "requests/s")]
PEERS = {
    "nginx tuned": "nginx, tuned buffers",
    "nginx default": "nginx, default buffers",
    "**downspout, service.py**": "downspout",
    "naive starlette": "what people write first",
}

WIDTH, BAR, GAP, LEFT, LONGEST = 760, 22, 10, 210, 430
# Colours that are readable on a light and on a dark page.
STYLE = (
    "text{font:14px sans-serif;fill:#808890}.title{font-weight:bold}"
    "rect{fill:#8fa7b3}.ours{fill:#1b7a94}"
)


def speed_chart(results: str) -> str:
    """Return the chart as SVG: a panel for each case, with a bar for each peer."""
    lines, y = [f"<style>{STYLE}</style>"], 0
    for case, unit in PANELS:
        y += 24
        lines.append(f'<text class="title" x="0" y="{y}">{case}, {unit}</text>')
        figures = {peer: measured_figure(results, case, unit, peer) for peer in PEERS}
        values = {peer: float(figure.replace(",", "")) for peer, figure in figures.items()}
        for peer, name in PEERS.items():
            y += BAR + GAP
            length = max(round(LONGEST * values[peer] / max(values.values())), 1)
            ours = ' class="ours"' if name == "downspout" else ""
            lines += [
                f'<text x="{LEFT - GAP}" y="{y}" text-anchor="end">{name}</text>',
                f'<rect{ours} x="{LEFT}" y="{y - 16}" width="{length}" height="{BAR}"/>',
                f'<text x="{LEFT + length + GAP}" y="{y}">{figures[peer]}</text>',
            ]
        y += BAR
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', *lines, "</svg>", ""])


if __name__ == "__main__":
    CHART.write_text(speed_chart(RESULTS.read_text(encoding="utf-8")), encoding="utf-8")
