"""README.md and docs/: commands that work, examples that load, links that lead somewhere, tables that are complete."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from adapters.heads import HEADS
from backbones.registry import Registry
from bench.cli.app import app
from bench.measure.parts import PARTS
from bench.plugins import load
from bench.run import counts
from bench.run.columns import COLUMNS
from bench.run.store import Run
from bench.spec import Cell, Recipe
from bench.yaml_files import parse
from tests import models
from tests.bench import make
from tests.bench.command import Command
from tests.bench.conftest import nothing_stays_registered

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", ROOT / "results" / "README.md"]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^(?:\$ |.*&& )?(?:uv run )?bench (?P<arguments>.*?)(?:\s+# (?P<comment>.*))?$")
_INLINE = re.compile(r"`bench\s([^`]+)`")
_MARK = re.compile(r"\bneeds (?P<needs>.+)$")
_NEEDS = {"data", "weights", "a GPU", "a network", "a run", "a Slurm cluster", "minutes"}
_FILE = re.compile(r"# (\w+\.(?:py|yaml))\n")


class Shown(NamedTuple):
    """A command of a page.

    Attributes:
        page: its name.
        arguments: of `bench`.
        needs: what the test does not have; the command is then parsed alone.
        output: the lines that the page shows below it.
    """

    page: str
    arguments: tuple[str, ...]
    needs: frozenset[str]
    output: str

    def __str__(self) -> str:
        return f"{self.page}: bench {' '.join(self.arguments)}"


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of the code blocks."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def shown(page: Path) -> Iterator[Shown]:
    """The commands in the code blocks, in order."""
    for language, text in blocks(page):
        if language in ("python", "yaml"):
            continue
        first, *rest = re.split(r"^(?=\$ )", text, flags=re.MULTILINE)
        for line in first.splitlines():
            if found := _COMMAND.match(line):
                yield _shown(page, found, "")
        for part in rest:
            line, _, output = part.partition("\n")
            found = _COMMAND.match(line)
            assert found, line
            yield _shown(page, found, output)


def _shown(page: Path, found: re.Match[str], output: str) -> Shown:
    mark = _MARK.search(found["comment"] or "")
    needs = re.split(r", | and ", mark["needs"]) if mark else ()
    return Shown(page.name, tuple(shlex.split(found["arguments"])), frozenset(needs), output)


COMMANDS = list(dict.fromkeys(command for page in PAGES for command in shown(page)))
# a command that two pages show is run once
RUN = list({(c.arguments, c.output): c for c in COMMANDS if not c.needs}.values())
FILES = {name[1]: text for page in PAGES for language, text in blocks(page) if language and (name := _FILE.match(text))}


@cache
def bench_command() -> Any:
    """The verbs as the parser has them."""
    return typer.main.get_command(app)


def verb(arguments: Iterable[str]) -> tuple[Any, list[str]]:
    """The command that the first arguments name, and the arguments that are its own."""
    command, rest = bench_command(), list(arguments)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"there is no verb {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    return command, rest


def unknown_flags(arguments: Iterable[str]) -> list[str]:
    """Flags that the verb's help does not list."""
    command, rest = verb(arguments)
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    flags = [argument.partition("=")[0] for argument in rest if re.match(r"--?[a-z]", argument)]
    return [flag for flag in flags if flag not in known | {"--help"}]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files that the pages show, and a run `table1`."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    run = Run(tmp_path / "results" / "table1")
    cells = [make.cell(), make.cell(strategy="frozen", options={})]
    run.open(make.matrix(), cells, "bench run", {})
    for cell in cells:
        run.write(make.done(cell))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    with nothing_stays_registered():
        yield tmp_path


@pytest.fixture(scope="module")
def counted_once() -> Iterator[None]:
    """The models of a plan are counted once, however many commands have them."""
    original, known = counts.counts, {}

    def remembered(cells: Sequence[Cell]) -> dict[Cell, tuple[int, int, int]]:
        new = [cell for cell in cells if cell.model_key() not in known]
        known.update({cell.model_key(): found for cell, found in original(new).items()})
        return {cell: known[cell.model_key()] for cell in cells}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "counts", remembered)
        yield


# --- commands ---


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_parses(command: Shown) -> None:
    assert command.needs <= _NEEDS
    assert not unknown_flags(command.arguments)
    if "--help" not in command.arguments:
        found, rest = verb(command.arguments)
        found.make_context("bench", rest)  # raises where an argument lacks or a value is none


def test_a_flag_that_was_renamed_is_found() -> None:
    assert unknown_flags(["run", "--learning-rate", "1", "--lr=2", "-o", "a=-1"]) == ["--learning-rate"]
    assert unknown_flags(["data", "check", "k400", "--backbones", "x"]) == ["--backbones"]
    with pytest.raises(AssertionError, match="no verb 'chek'"):
        unknown_flags(["data", "chek"])


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_a_command_within_a_sentence_has_a_verb_and_flags_that_there_are(page: str) -> None:
    (file,) = [file for file in PAGES if file.name == page]
    for text in _INLINE.findall(_BLOCK.sub("", file.read_text(encoding="utf-8"))):
        assert not unknown_flags(shlex.split(text)), text


@pytest.mark.parametrize("command", RUN, ids=str)
def test_a_command_runs(
    command: Shown, home: Path, counted_once: None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A training is left at its plan."""
    trains = command.arguments[0] == "run" and not {"--dry-run", "--help"} & set(command.arguments)
    said = Command(monkeypatch, capsys)(*command.arguments, *(["--dry-run"] if trains else []))
    assert said.code == 0, said.err
    if command.output:
        assert said.out.strip() == command.output.strip()


# --- examples ---


def test_every_example_in_python_is_a_plugin_of_a_command_that_runs() -> None:
    examples = [text for page in PAGES for language, text in blocks(page) if language == "python"]
    named = {argument for command in RUN for argument in command.arguments}
    assert examples
    for text in examples:
        found = _FILE.match(text)
        assert found and found[1] in named, text


@pytest.mark.parametrize("family", models.FAMILIES)
def test_the_strategy_of_the_page_keeps_the_contract(family: str, home: Path) -> None:
    """At the start it computes what its image model computes; then what it adds trains, and looks at the order."""
    load(["time_conv.py"])
    strategy = STRATEGIES.get("time-conv")
    backbone, clips = models.backbone(family), models.clips()
    adapted = VideoClassifier(backbone, strategy, strategy.options(), classes=10, frames=models.FRAMES).eval()
    with torch.no_grad():
        still = backbone(clips.flatten(0, 1)).unflatten(0, clips.shape[:2]).mean(1)
        torch.testing.assert_close(adapted.features(clips), still, rtol=1e-5, atol=1e-5)
        models.awaken(adapted)
        given, back = adapted.features(clips), adapted.features(clips.flip(1))
    assert not torch.allclose(given, back, atol=1e-3)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    final_norm = {id(parameter) for parameter in backbone.final_norm.parameters()}
    for name, parameter in adapted.named_parameters():
        added = name.startswith(("body.", "head."))
        assert (name in trained) == (added or id(parameter) in final_norm), name


# --- tables ---


def rows(page: str, header: str) -> list[list[str]]:
    """The cells of the table whose header begins so."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    table = text[text.index(f"\n| {header} |") :].strip().partition("\n\n")[0]
    return [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


def test_the_recipes_page_has_every_name_and_its_default() -> None:
    found = [(name.strip("` "), parse(default)) for name, default, *_ in rows("recipes.md", "name | default")]
    assert found == [(name, _plain(value)) for name, value in Recipe()]


@pytest.mark.parametrize(
    ("registry", "header"), [(STRATEGIES, "option | default"), (HEADS, "option of a head | default")]
)
def test_the_methods_page_has_every_option(registry: Registry[Any], header: str) -> None:
    with nothing_stays_registered():
        names = registry.names()
    options: dict[str, list[str]] = {}
    defaults = {}
    for name in names:
        for option, field in registry.get(name).options.model_fields.items():
            options.setdefault(option, []).append(name)
            defaults[option] = field.default
    found = rows("methods.md", header)
    assert {name.strip("` "): parse(default) for name, default, *_ in found} == defaults
    assert {name.strip("` "): set(taken.split(", ")) for name, _, taken, *_ in found} == {
        option: set(takers) for option, takers in options.items()
    }


def test_the_methods_page_has_every_strategy_and_head() -> None:
    with nothing_stays_registered():
        strategies, heads = STRATEGIES.names(), HEADS.names()
    assert {name.strip("` ") for name, *_ in rows("methods.md", "name | trains")} == set(strategies)
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").partition("## Heads")[2].partition("\n## ")[0]
    assert set(re.findall(r"^- `([\w-]+)`: ", text, flags=re.MULTILINE)) == set(heads)


def test_the_reports_page_has_the_columns_in_their_order() -> None:
    names = [name.strip("` ") for name, *_ in rows("reports.md", "column | is")]
    of_parts = [name.removesuffix("PART") for name in names if name.endswith("PART")]
    parts = [f"{name}{part}" for part in PARTS for name in of_parts]
    assert (*(name for name in names if not name.endswith("PART")), *parts) == COLUMNS


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


# --- links and paths ---


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_readme_leads_to_every_page_and_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_folders_of_the_code_that_a_page_names_are_there(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    named = re.findall(r"`((?:adapters|backbones|bench|benchmarks|docs|tests)/[\w/.]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_rooms_of_the_contributing_page_are_there() -> None:
    (tree,) = [text for _, text in blocks(ROOT / "docs" / "contributing.md") if text.startswith("backbones/")]
    at = [ROOT]
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in re.match(r"\s*((?:[\w./]+(?: |$))+)", line)[1].split():  # names stand before the column of the text
            if name == "...":
                continue
            path = at[depth] / name
            assert path.exists(), line
            if name.endswith("/"):
                at[depth + 1 :] = [path]
