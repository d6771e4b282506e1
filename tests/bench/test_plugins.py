"""Files and modules of a user: imported once, and every one that fails told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.base import STRATEGIES
from bench.errors import UserError
from bench.plugins import load
from tests.bench.command import Command, quotes

STRATEGY = """
from adapters.base import register_strategy
from adapters.blockwise import BlockwiseStrategy

@register_strategy
class Mine(BlockwiseStrategy):
    name = "{name}"
    summary = "{name}, from a file"
"""


@pytest.fixture(autouse=True)
def _no_module_stays(registries_as_before: None) -> Iterator[None]:
    yield
    sys.modules.pop("some_module", None)


def problems(*plugins: str) -> tuple[str, ...]:
    with pytest.raises(UserError) as error:
        load(plugins)
    return error.value.problems


def test_a_file_is_imported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my-own plugin.py"
    file.write_text(STRATEGY.format(name="mine") + f"open({str(tmp_path / 'times')!r}, 'a').write('x')\n")
    load([str(file), "./my-own plugin.py"])
    load([str(file)])
    assert STRATEGIES.get("mine").summary == "mine, from a file"
    assert (tmp_path / "times").read_text() == "x"


def test_files_of_one_name_in_two_folders_are_two_plugins(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plugin.py").write_text(STRATEGY.format(name=name))
    load([str(tmp_path / name / "plugin.py") for name in ("one", "two")])
    assert {"one", "two"} <= set(STRATEGIES.names())


def test_a_module_is_imported_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_module.py").write_text(STRATEGY.format(name="from-module"))
    monkeypatch.syspath_prepend(tmp_path)
    load(["some_module"])
    assert "from-module" in STRATEGIES


def test_every_plugin_that_fails_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raises.py").write_text("x = 1\nraise ValueError('first\\nsecond')\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "taken.py").write_text(STRATEGY.format(name="joint"))
    (tmp_path / "binary.py").write_bytes(b"\xff\x00")
    found = problems("raises.py", "syntax.py", "leaves.py", "taken.py", "binary.py", "leavs.py", "raises", "", "..x")
    told = (
        ("plugin 'raises.py'", "ValueError: first second", f"line 2 of {tmp_path}/raises.py"),
        ("plugin 'syntax.py'", "SyntaxError"),
        ("plugin 'leaves.py'", "SystemExit: 3", f"line 2 of {tmp_path}/leaves.py"),
        ("plugin 'taken.py'", "ValueError", "strategy", "'joint'"),
        ("plugin 'binary.py'", "SyntaxError"),
        ("plugin 'leavs.py'", "'leaves.py'"),
        ("plugin 'raises'", "'raises.py'"),
        ("plugin ''",),
        ("plugin '..x'",),
    )
    for sentence, values in zip(found, told, strict=True):
        assert quotes(sentence, *values) and "\n" not in sentence


def test_a_failed_file_can_be_repaired_and_loaded(tmp_path: Path) -> None:
    file = tmp_path / "plugin.py"
    file.write_text("raise ValueError\n")
    problems(str(file))
    file.write_text(STRATEGY.format(name="repaired"))
    load([str(file)])
    assert "repaired" in STRATEGIES


def test_a_listing_shows_what_a_plugin_adds(tmp_path: Path, bench: Command) -> None:
    file = tmp_path / "plugin.py"
    file.write_text(STRATEGY.format(name="mine"))
    said = bench("list", "strategies", "--plugin", file)
    assert said.code == 0
    assert "mine, from a file" in said.out
    assert bench("list", "strategies", "--plugin", tmp_path / "plugn.py").code == 2
