"""`plot`: draws the charts of a result that `bench --json` wrote."""

from __future__ import annotations

from pathlib import Path

from .charts import write_chart
from .commands import Refused
from .options import need, parser_of
from .page import write_page
from .result import Result

__all__ = ["main"]


def main(words: list[str]) -> int:
    """Write the chart, or the page; return 0."""
    parser = parser_of("plot", "For a README, or a page with all charts.")
    parser.add_argument("result", help="a file of bench --json")
    parser.add_argument(
        "-o",
        "--output",
        help="its name ends in .svg, .png or .html (default: RESULT.svg)",
    )
    options = parser.parse_args(words)
    need("plot", "matplotlib")
    result = Result.load(options.result)
    path = options.output or str(Path(options.result).with_suffix(".svg"))
    if not path.endswith((".svg", ".png", ".html")):
        raise Refused(f"{path}: plot writes .svg, .png and .html")
    write = write_page if path.endswith(".html") else write_chart
    write(result, path)
    print(path)
    return 0
