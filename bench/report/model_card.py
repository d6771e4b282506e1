"""Model card of a trained cell, as the Hugging Face Hub shows it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from bench.report.formats import markdown
from bench.report.table import make_table
from bench.run.result import Result
from bench.text import byte_size, one_line

_SHOWN = 1000  # classes that are listed
_MARKS = re.compile(r"([\\`*_\[\]()!|~$])")
_FIRST = re.compile(r"^(\d+(?=\.(?:\s|$))|(?=[#+=-]))(.)")  # what makes a heading or a list of a line


def escaped(text: object) -> str:
    """Return a text in one line that Markdown shows as it is: no markup, no tag, no link. Names may be anything."""
    line = _FIRST.sub(r"\1\\\2", _MARKS.sub(r"\\\1", one_line(str(text))))
    for mark, shown in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("://", "&#58;//"), ("www.", "www&#46;")):
        line = line.replace(mark, shown)
    return line


def model_card(result: Result, classes: Sequence[str], repo: str, revision: str | None, size: int) -> str:
    """The card of a cell that is done, in Markdown.

    Args:
        classes: names, by label.
        repo, revision: where the files will lie.
        size: of the adapter file, in bytes.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    # whatever the template puts in is escaped, unless a filter has made it Markup
    environment = Environment(
        loader=PackageLoader("bench.report", "."),
        finalize=lambda value: value if isinstance(value, Markup) else escaped(value),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = Markup
    environment.filters["quoted"] = lambda text: Markup(json.dumps(text))
    environment.filters["one_line"] = one_line
    cell, known = result.cell, result.provenance
    provenance = [
        ("cell", cell.key),
        ("started", known.started),
        ("seconds", f"{known.wall_seconds:.0f}"),
        ("device", f"{known.device}, {known.precision}"),
        ("machine", known.machine),
        ("versions", ", ".join(f"{name} {version}" for name, version in known.versions.items())),
        ("commit of aim-bench", f"{known.commit or 'not known'}{' (changed)' if known.dirty else ''}"),
        ("SHA-256 of the backbone's weights", known.weights_sha256),
        ("fingerprint of the data set", known.dataset_fingerprint),
    ]
    return environment.get_template("model_card.md.jinja").render(
        cell=cell,
        table=markdown(make_table([result])),
        tags=["video-classification", "aim-bench", cell.strategy, cell.dataset],
        repo=repo,
        revision=f" --revision {revision}" if revision else "",
        folder=repo.partition("/")[2],
        size=byte_size(size),
        classes=list(classes),
        shown=_SHOWN,
        provenance=[(name, value) for name, value in provenance if value is not None],
        command=known.command,
    )
