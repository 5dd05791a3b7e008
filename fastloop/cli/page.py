"""One HTML file with all that was found: nothing is loaded from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any

from .charts import STYLE, bars, intervals, latencies
from .faults import SHOWN
from .options import as_text, listed, write_file
from .result import Result

__all__ = ["write_page"]

_STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 32px 20px 48px;
  font: 16px/1.5 system-ui, sans-serif; color: var(--text);
  background: var(--paper); }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px;
  overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 40px 0 12px; }
p { margin: 0 0 8px; max-width: 75ch; }
.faint, footer { color: var(--faint); }
.verdict { border-left: 4px solid var(--fastloop); margin: 24px 0;
  padding: 2px 0 2px 16px; font-size: 18px; }
.verdict p:last-child { margin: 0; }
.charts { display: grid; gap: 28px 40px;
  grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); }
.charts svg { width: 100%; height: auto; max-width: 460px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: 15px; }
th, td { padding: 6px 14px; text-align: right;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td + td { white-space: nowrap; }
@media (max-width: 520px) {
  table { font-size: 12px; }
  th, td { padding: 6px 3px; }
}
td.own { font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px;
  font-size: 14px; margin: 0; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
"""


def write_page(result: Result, path: str) -> None:
    """Write the file."""
    write_file(path, _page(result))


def _page(result: Result) -> str:
    """Return the whole page."""
    title = escape(result.data["what"])
    sentences = "".join(f"<p>{escape(s)}</p>" for s in result.sentences())
    method = "".join(f"<p>{escape(s)}</p>" for s in result.data["method"])
    date = escape(result.data["machine"]["date"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: event loops compared</title>
<style>{STYLE}{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p class="faint">{escape(listed(result.labels))}, {result.rounds}, {date}</p>
<div class="verdict">{sentences}</div>
<h2>Figures</h2>
<p class="faint">A bar is the geometric mean, a dot is one run.</p>
<div class="charts">{_charts(result)}</div>
<h2>How sure that is</h2>
<p class="faint">The point is the ratio, the line its 99.9 % interval; grey
where that includes 1, or the difference is below 1 %.</p>
<div class="charts">{_intervals(result)}</div>
<h2>Table</h2>
<p class="faint">Geometric means. {escape(result.legend())}</p>
<div class="wide">{_table(result)}</div>
<h2>How it was measured</h2>
{method}
<h2>To repeat it</h2>
<dl>{_facts(result.data["settings"])}</dl>
<h2>Where</h2>
<dl>{_facts(result.data["machine"])}</dl>
</body>
</html>
"""


def _charts(result: Result) -> str:
    kind = result.data["kind"]
    charts = [bars(result, result.metric(key)) for key in SHOWN[kind]]
    if kind == "http":
        charts.append(latencies(result))
    return "".join(f"<div>{chart}</div>" for chart in charts)


def _intervals(result: Result) -> str:
    charts = [intervals(result, base) for base in result.others()]
    return "".join(f"<div>{chart}</div>" for chart in charts)


def _table(result: Result) -> str:
    """Return the table that bench prints, with doubts in grey."""
    head, *rows = result.table()
    own = result.labels.index(result.candidate) + 1
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    for row in rows:
        cells = []
        for place, cell in enumerate(row):
            text = escape(cell)
            if cell.endswith("?"):
                text = f'<span class="faint">{text}</span>'
            kind = ' class="own"' if place == own else ""
            cells.append(f"<td{kind}>{text}</td>")
        lines.append("".join(cells))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _facts(facts: dict[str, Any]) -> str:
    return "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(as_text(value))}</dd>"
        for name, value in facts.items()
    )
