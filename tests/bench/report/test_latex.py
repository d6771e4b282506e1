"""The table as LaTeX: what a real TeX makes of it, where one is installed, and every sign of a name."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.report.latex import escape, latex
from bench.report.published import AIM, read_published, with_published
from bench.report.runs import Runs
from bench.report.select import with_columns
from bench.report.table import ResultTable, make_table
from bench.report.uncertainty import with_uncertainty
from tests.bench import make
from tests.bench.report.predictions import first, run_of

NASTY = "50 % & $x_1$ {a} ~b^c\\d #1 <e> |f| ± × 模 ß"
TEX = "pdflatex"


def sheet(tmp_path: Path) -> ResultTable:
    """Three rows with intervals, the second one not told apart from the best; one that failed; published figures."""
    counts = {"joint": 50, "spatial": 48, "frozen": 5}
    rows = {make.cell(strategy=name, options={}): first(count) for name, count in counts.items()}
    runs = Runs([run_of(tmp_path / "run", rows)])
    noted = runs.results[1].model_copy(update={"footnotes": (NASTY,)})
    failed = make.failed(make.cell(strategy="full", options={}, weights=f"/{NASTY}.pt"), error=f"[{NASTY}]")
    table = make_table([runs.results[0], noted, runs.results[2], failed])
    return with_published(with_uncertainty(table, runs), read_published([AIM]))


def lines_of(text: str, word: str) -> list[list[str]]:
    """Cells of the lines that hold a word."""
    found = [line.strip().removesuffix("\\\\") for line in text.splitlines() if word in line and " & " in line]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line)] for line in found]


def test_the_best_is_bold_the_second_underlined_and_intervals_stand_beside(tmp_path: Path) -> None:
    text = latex(sheet(tmp_path), "A caption & more", "tab:one")
    columns = text.split("\\begin{tabular}{")[1].splitlines()[0]
    assert columns.startswith("lll")
    (joint,), (spatial,), (frozen,) = (lines_of(text, f"& {name}") for name in ("joint", "spatial\\tnote", "frozen &"))
    at = next(index for index, cell in enumerate(joint) if "83.3" in cell)
    assert joint[at] == "\\bfseries 83.3" and joint[at + 1].startswith("{\\scriptsize [")
    assert spatial[at] == "{\\underline{80.0}}" and "$\\approx$" in spatial[at + 1]
    # one digit less before the point: it is a number for siunitx, which places it
    assert frozen[at] == "8.3" and "approx" not in frozen[at + 1]
    assert "\\caption{A caption \\& more}" in text and "\\label{tab:one}" in text
    assert all(word in text for word in ("\\toprule", "\\midrule", "\\bottomrule", "threeparttable", "S[table-format="))
    assert "\\item[1] " + escape(NASTY) in text
    assert not any("bfseries" in cell or "underline" in cell for line in lines_of(text, "published") for cell in line)


def test_room_beside_an_underlined_number_is_that_of_the_widest() -> None:
    values = {"joint": 0.125, "spatial": 1234.5, "frozen": 3.0}
    listed = [
        make.done(make.cell(strategy=name, options={}), train_memory_bytes=int(gb * 1e9)) for name, gb in values.items()
    ]
    text = latex(with_columns(make_table(listed), ["train_memory_gb"]))
    (frozen,) = lines_of(text, "frozen")
    shown = frozen[-1]
    assert "S[table-format=4.3]" in text
    assert shown == "{\\phantom{000}\\underline{3.000}}"


@pytest.mark.parametrize(("sign", "expected"), [("_", "\\_"), ("%", "\\%"), ("模", "U+6A21"), ("ß", "ß"), ("a", "a")])
def test_signs(sign: str, expected: str) -> None:
    assert escape(sign) == expected


@pytest.mark.skipif(shutil.which(TEX) is None, reason=f"needs {TEX} (Debian: texlive-latex-extra, texlive-science)")
@pytest.mark.slow
def test_a_real_tex_sets_it(tmp_path: Path) -> None:
    (tmp_path / "table.tex").write_text(latex(sheet(tmp_path), NASTY, "tab:one"), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage[paperwidth=100cm]{geometry}\n"
        "\\usepackage{booktabs,siunitx,threeparttable}\n\\begin{document}\n\\input{table}\n"
        "Table \\ref{tab:one}\n\\end{document}\n"
    )
    command = [TEX, "-interaction=nonstopmode", "-halt-on-error", "paper"]
    for _ in range(2):  # the second time knows the table's number
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
    log = (tmp_path / "paper.log").read_text(errors="replace")
    assert "undefined" not in log and "Missing character" not in log
