"""The page itself: template, styles and script in one file that loads nothing."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from bench.report.page.data import page_data, to_script
from bench.report.page.plots import plots_of
from bench.report.runs import Runs
from bench.report.table import ResultTable
from bench.text import counted, one_line

# together one module of the page; the first has what the others share
_SCRIPTS = ("page.js", "results.js", "curves.js", "videos.js")


def render_page(runs: Runs, table: ResultTable) -> str:
    """Return the page of a table as one HTML file, which needs neither the network nor the run's files."""
    from jinja2 import Environment, StrictUndefined

    style = _asset("page.css")
    script = "\n".join(map(_asset, _SCRIPTS))
    plots, notes = plots_of(runs, len(table.rows))
    data = page_data(runs, table)
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return template.from_string(_asset("page.html")).render(
        title=one_line(", ".join(folder.resolve().name for folder in runs.folders)),
        summary=_summary(runs, table),
        policy=_policy(style, script),
        style=style,
        script=script,
        data=to_script(data),
        footnotes=table.footnotes,
        failures=table.failures,
        caption=list(dict.fromkeys([*table.caption, *runs.notes])),
        plots=plots,
        plot_notes=notes,
        picture_note=one_line(data["picture_note"]),
        has_videos=bool(data["tests"]),
        has_curves=any(data["curves"]),
        skipped=len(data["skipped"]),
        commands=_commands(runs),
    )


def _asset(name: str) -> str:
    return files("bench.report.page").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: nothing is fetched, and this script alone runs. Plots have styles in attributes."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'",
            f"style-src-elem '{_digest(style)}'",
            "style-src-attr 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _summary(runs: Runs, table: ResultTable) -> str:
    cells = counted(sum(len(row.results) for row in table.rows), "cell")
    return f"{counted(len(table.rows), 'row')} of {cells}, from {counted(len(runs.folders), 'run')}"


def _commands(runs: Runs) -> list[tuple[str, list[str]]]:
    """Each run's folder and the commands that made it, the first first."""
    found = {run.folder: run for result in runs.results if (run := runs.run_of(result.cell))}
    return [
        (one_line(str(folder)), [one_line(command) for command in dict.fromkeys(run.description()["commands"])])
        for folder, run in found.items()
    ]
