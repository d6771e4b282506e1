"""Options made of a request's fields: each field is a flag, a line of the help and a key of a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from bench.cli.options import Given, Option, options_of, takes
from bench.spec import FrozenModel, Names, Plugins, Request
from bench.spec.fields import PANELS, RECIPE, RUNNING, Flag


class Inner(FrozenModel):
    lr: Annotated[float, Flag(RECIPE, help="Rate", default="")] = 1.0
    momentum: float = 0.9


class Example(FrozenModel):
    what: Annotated[str, Flag(argument=True)] = Field(description="Thing")
    names: Annotated[Names, Flag(RUNNING, name="name")] = Field(("a", "b"), description="Names")
    plugins: Annotated[Plugins, Flag(name="plugin", repeated=True)] = Field((), description="Modules")
    mode: Literal["fast", "exact", "debugging"] = Field("fast", description="Way to go")
    short: Literal["raw", "jpeg"] = "raw"
    count: Annotated[int | None, Flag(short="c", default="one a core")] = Field(None, ge=1, description="Processes")
    limit: float = Field(1.5, gt=0, description="Seconds.")
    sure: bool = Field(True, description="Be sure")
    loud: Annotated[bool, Flag(one_way=True)] = Field(False, description="Be loud")
    out: Path | None = Field(None, description="Folder")
    recipe: Annotated[dict[str, Any], Flag(RECIPE, members=Inner)] = Field(default_factory=dict, description="Parts")
    entries: Annotated[dict[str, Any], Flag(hidden=True)] = Field(default_factory=dict)


class Ran:
    """A verb of Example, and what it was given."""

    def __init__(self) -> None:
        app = typer.Typer()
        self.given: Given[Example] | None = None
        self.dry: bool | None = None

        @app.command()
        @takes(Example)
        def verb(given: Given[Example], dry: Annotated[bool, typer.Option("--dry")] = False) -> None:
            """Try it."""
            self.given, self.dry = given, dry

        self._app = app

    def __call__(self, *arguments: str) -> Given[Example]:
        said = CliRunner().invoke(self._app, list(arguments), catch_exceptions=False)
        assert self.given is not None, said.output
        return self.given

    def refused(self, *arguments: str) -> tuple[int, str]:
        said = CliRunner().invoke(self._app, list(arguments), env={"COLUMNS": "120"})
        assert self.given is None
        return said.exit_code, " ".join(said.output.replace("│", " ").split())


def by_name(model: type[FrozenModel]) -> dict[str, Option]:
    return {option.path: option for option in options_of(model)}


def test_every_kind_of_value_comes_in_as_it_was_written() -> None:
    ran = Ran()
    given = ran(
        *("x", "--name", "c,d", "--plugin", "one", "--plugin", "two.py", "--mode", "exact", "-c", "3", "--dry"),
        *(
            "--limit",
            "2e-1",
            "--no-sure",
            "--loud",
            "--out",
            "~/here",
            "--recipe",
            "momentum=0.5,betas=[1, 2]",
            "--lr",
            "1e-3",
        ),
    )
    assert given.values == {
        "what": "x",
        "names": "c,d",
        "plugins": ["one", "two.py"],
        "mode": "exact",
        "count": 3,
        "limit": 0.2,
        "sure": False,
        "loud": True,
        "out": Path("~/here"),
        "recipe": {"momentum": 0.5, "betas": [1, 2], "lr": 1e-3},
    }
    assert ran.dry is True
    assert given.flags["recipe.lr"] == "--lr" and given.flags["recipe.momentum"] == "--recipe momentum"
    assert given.flags["names"] == "--name" and given.flags["what"] == "WHAT"
    request, problems = given.checked()
    assert problems == []
    assert request == Example(
        what="x",
        names=("c", "d"),
        plugins=("one", "two.py"),
        mode="exact",
        count=3,
        limit=0.2,
        sure=False,
        loud=True,
        out=Path("~/here"),
        recipe={"momentum": 0.5, "betas": [1, 2], "lr": 1e-3},
    )


def test_what_is_not_given_is_the_models_own() -> None:
    ran = Ran()
    given = ran("x")
    assert (given.values, given.problems, ran.dry) == ({"what": "x"}, [], False)
    assert given.checked() == (Example(what="x"), [])


def test_everything_wrong_is_told_at_once_with_the_nearest_name() -> None:
    given = Ran()("x", "--mode", "exct", "--count", "0", "--limit", "abc", "--name", ",", "--recipe", "lr")
    request, problems = given.checked()
    assert request == Example(what="x")  # with the defaults of what was wrong
    assert [problem.split()[0] for problem in problems] == ["--recipe", "names", "mode", "count", "limit"]
    assert "did you mean 'exact'" in problems[2]


def test_a_member_is_given_once() -> None:
    (problem,) = Ran()("x", "--recipe", "lr=1", "--lr", "2").problems
    assert problem.startswith("--recipe lr=1: ")


def test_a_field_without_a_default_is_required() -> None:
    code, text = Ran().refused()
    assert code == 2 and "WHAT" in text
    given = Given(Example, {})
    request, problems = given.checked()
    assert request is None
    assert problems == ["what is missing"]


def test_help_has_each_field_with_its_choices_and_default() -> None:
    _, text = Ran().refused("--help")
    options = by_name(Example)
    assert "--no-sure" in text and "--no-loud" not in text
    assert "entries" not in options and "recipe.momentum" not in options
    for option in options.values():
        assert (option.name.upper() if option.flag.argument else f"--{option.name}") in text
    assert options["names"].help == "Names. [default: a,b]"
    assert options["mode"].help == "Way to go: fast, exact or debugging. [default: fast]"
    assert (options["short"].metavar, options["mode"].metavar) == ("raw|jpeg", "TEXT")
    assert options["count"].help == "Processes. [default: one a core]"
    assert options["limit"].help == "Seconds. [default: 1.5]"
    assert options["sure"].help == "Be sure. [default: yes]"
    assert options["recipe"].help == "Parts. Repeatable."
    assert options["recipe.lr"].help == "Rate."


@pytest.mark.parametrize("option", options_of(Request), ids=lambda option: option.path)
def test_every_option_of_a_run_is_told_in_a_panel(option: Option) -> None:
    assert option.flag.panel in PANELS[1:]
    assert option.help.split(".")[0]


def test_a_file_has_the_flags_names_and_the_fields(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("name: [c]\nlr: 3\nrecipe: {momentum: 1}\nplugin: m\nentries: {a: 1}\nlimit:\n")
    problems: list[str] = []
    found = Given(Example, {}).read(file, problems)
    assert (problems, found) == (
        [],
        {"names": ["c"], "recipe": {"momentum": 1, "lr": 3}, "plugins": "m", "entries": {"a": 1}},
    )
    file.write_text("name: a\nnames: b\nlr: 3\nrecipe: {lr: 1}\nentries: 3\n")
    Given(Example, {}).read(file, problems)
    assert [problem.split(":")[0] for problem in problems] == ["config", "entries is 3", "config"]


def test_a_new_field_is_an_option_and_a_key_at_once(tmp_path: Path) -> None:
    class Wider(Request):
        kernels: Literal["fast", "plain"] = Field("fast", description="Computation")

    assert by_name(Wider)["kernels"].help == "Computation. [default: fast]"
    given = Given.parsed(Wider, {"kernels": "plain"})
    assert given.checked()[0] == Wider(kernels="plain")
    (tmp_path / "c.yaml").write_text("kernels: plain\n")
    assert Given(Wider, {}).read(tmp_path / "c.yaml", []) == {"kernels": "plain"}
