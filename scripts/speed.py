"""Write the chart and the tables of speed in the pages from tools/benchmarks/RESULTS.md.

.venv/bin/python scripts/speed.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent

sys.path.insert(0, str(ROOT))

from tests.support.document import with_table  # noqa: E402 - found by the line above
from tests.support.markdown import measured_figure  # noqa: E402

README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
CHART = ROOT / "docs" / "speed.svg"
RESULTS = ROOT / "tools" / "benchmarks" / "RESULTS.md"

# The case and the unit of each row, and of each panel of the chart.
PANELS = [("100 MiB alone", "MiB/s"), ("16 KiB on 64 connections", "requests/s")]
IN_README = [
    ("100 MiB alone", "MiB/s"),
    ("100 MiB alone, over TLS", "MiB/s"),
    ("32 x 10 MiB at once", "MiB/s"),
    ("16 KiB on 64 connections", "requests/s"),
    ("100 MiB alone, capped at 40 MiB/s", "MiB/s"),
]
IN_PERFORMANCE = [
    *((f"{size} alone", "MiB/s") for size in ("10 MiB", "100 MiB", "1 GiB")),
    ("1 GiB alone", "CPU s/GiB"),
    ("32 x 10 MiB at once", "MiB/s"),
    ("32 x 10 MiB at once, each on a new connection to the origin", "MiB/s"),
    *((f"16 KiB on {number} connections", "requests/s") for number in (16, 64)),
    ("16 KiB on 64 connections", "CPU ms/request"),
    ("first byte of 16 KiB", "first byte µs"),
    ("200 slow readers of 100 MiB", "KiB/reader"),
    ("100 MiB alone, capped at 40 MiB/s", "MiB/s"),
]
OVER_TLS = [
    *((f"{size} alone, over TLS", "MiB/s") for size in ("100 MiB", "1 GiB")),
    ("100 MiB alone, over TLS", "CPU s/GiB"),
    ("32 x 10 MiB at once, over TLS", "MiB/s"),
    ("16 KiB on 64 connections, over TLS", "requests/s"),
    ("16 KiB on 64 connections, over TLS", "CPU ms/request"),
    ("first byte of 16 KiB, over TLS", "first byte µs"),
    ("200 slow readers of 100 MiB, over TLS", "KiB/reader"),
    ("100 MiB alone, capped at 40 MiB/s, over TLS", "MiB/s"),
]
WORKERS = [
    (f"{case}{workers}", unit)
    for case, unit in (
        ("16 KiB on 64 connections", "requests/s"),
        ("32 x 10 MiB at once", "MiB/s"),
    )
    for workers in ("", ", 2 workers", ", 4 workers")
]
COLUMNS = {
    "downspout": "**downspout, service.py**",
    "nginx, default buffers": "nginx default",
    "nginx, tuned buffers": "nginx tuned",
    "what people write": "naive starlette",
    "obstore": "obstore 256 KiB",
}
MEMORY = "MiB of memory"
PEERS = {
    "nginx tuned": "nginx, tuned buffers",
    "nginx default": "nginx, default buffers",
    "**downspout, service.py**": "downspout",
    "naive starlette": "what people write",
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


def speed_table(results: str, rows: Sequence[tuple[str, str]], columns: Sequence[str]) -> str:
    """Return a table in Markdown with a row for each case, and a column for each peer."""
    lines = [f"| | {' | '.join(columns)} |", "|---" + "|--:" * len(columns) + "|"]
    for case, unit in rows:
        figures = [measured_figure(results, case, unit, COLUMNS[peer]) for peer in columns]
        lines.append(f"| {case}, {unit} | {' | '.join(figures)} |")
    return "\n".join(lines)


def workers_table(results: str) -> str:
    """Return the table of what more processes give, and how much memory they take."""
    lines = ["| | downspout | memory of all processes, MiB |", "|---|--:|--:|"]
    for case, unit in WORKERS:
        figures = [
            measured_figure(results, case, one, COLUMNS["downspout"]) for one in (unit, MEMORY)
        ]
        lines.append(f"| {case}, {unit} | {' | '.join(figures)} |")
    return "\n".join(lines)


def tables(results: str) -> list[tuple[Path, str, str]]:
    """Return page, name and text of each table."""
    few, plain = list(COLUMNS)[:4], list(COLUMNS)
    return [
        (README, "speed", speed_table(results, IN_README, few)),
        (PERFORMANCE, "speed", speed_table(results, IN_PERFORMANCE, plain)),
        (PERFORMANCE, "tls", speed_table(results, OVER_TLS, plain)),
        (PERFORMANCE, "workers", workers_table(results)),
    ]


if __name__ == "__main__":
    measured = RESULTS.read_text(encoding="utf-8")
    CHART.write_text(speed_chart(measured), encoding="utf-8")
    for page, name, table in tables(measured):
        page.write_text(with_table(page, name, table), encoding="utf-8")
