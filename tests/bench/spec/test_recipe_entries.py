"""Entries of recipes: which hold, which win, what is told of a wrong one, and how a user sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapters.base import STRATEGIES
from backbones.families import FAMILIES
from backbones.names import BackboneName
from bench.cli.options import Given
from bench.cli.run import planned
from bench.data.dataset import DATASETS
from bench.data.motion.dataset import Motion
from bench.errors import UserError
from bench.run.selection import check_entries
from bench.spec import Request
from bench.spec.recipe_entries import Defaults, RecipeEntry, package_entries, read_entries
from bench.spec.source import Views
from tests.bench.command import Command

VIT = BackboneName("vit", "vit_base_patch16_224", "none")
LARGE = BackboneName("vit", "vit_large_patch16_224", "none")
SWIN = BackboneName("swin", "swin_base_patch4_window7_224", "none")


def entries(**found: Any) -> dict[str, RecipeEntry]:
    problems: list[str] = []
    read = read_entries(found, "file", problems)
    assert not problems
    return read


def test_every_entry_of_the_package_has_a_source_and_names_what_there_is() -> None:
    problems: list[str] = []
    # a stride is a data set's own, and these are the data sets'
    found = {entry.where: entry.model_copy(update={"span": None}) for entry in package_entries()}
    check_entries(found, problems)
    assert not problems
    assert len(found) == len(package_entries())
    assert all(entry.source for entry in package_entries())


@pytest.mark.parametrize(
    ("keys", "fits"),
    [
        ({}, [True, True, True, True]),
        ({"family": "vit"}, [True, True, False, False]),
        ({"family": ["swin", "clip"]}, [False, False, True, False]),
        ({"not_family": "swin"}, [True, True, False, True]),
        ({"model": "*_large_*"}, [False, True, False, False]),
        ({"size": "large"}, [False, True, False, False]),
        ({"strategy": "joint"}, [True, True, True, False]),
        ({"trains": "added"}, [True, True, True, False]),
        ({"trains": "all"}, [False, False, False, False]),
        ({"family": "vit", "strategy": "full"}, [False, False, False, False]),
    ],
    ids=str,
)
def test_an_entry_holds_where_all_its_keys_do(keys: dict[str, Any], fits: list[bool]) -> None:
    entry = entries(one=keys)["one"]
    cases = [(VIT, "joint"), (LARGE, "joint"), (SWIN, "joint"), (None, None)]
    assert [entry.matches(*case) for case in cases] == fits


def test_what_names_more_wins_and_then_what_comes_later() -> None:
    found = entries(
        special={"family": "vit", "strategy": "joint", "recipe": {"lr": 4}},
        first={"family": "vit", "recipe": {"lr": 1, "epochs": 7}, "views": "2x3"},
        second={"strategy": "joint", "recipe": {"lr": 2, "dropout": 0.25, "head_lr": 5}},
        general={"recipe": {"lr": 3, "head_lr": 6}, "frames": 5, "span": 20},
    )
    own = Defaults(8, 128, Views(1, 1)).changed_by(found.values(), VIT, "joint")
    assert own.recipe == {"lr": 4, "epochs": 7, "dropout": 0.25, "head_lr": 5}
    assert (own.frames, own.stride(5), own.stride(40), own.views) == (5, 4, 1, Views(2, 3))
    assert own.origins == {
        "frames": "file:general",
        "span": "file:general",
        "views": "file:first",
        "recipe.lr": "file:special",
        "recipe.epochs": "file:first",
        "recipe.dropout": "file:second",
        "recipe.head_lr": "file:second",
    }
    assert Defaults(8, 128, Views(1, 1)).changed_by(found.values(), VIT, "full").recipe["lr"] == 1


def test_a_class_that_derives_from_a_data_set_has_its_entries_below_its_own() -> None:
    class Longer(Motion):
        name = "longer"
        recipes = "mine: {recipe: {epochs: 9}}"

    class Longest(Longer):
        name = "longest"

    for cls in (Longer, Longest):
        own = cls().defaults(VIT, "joint")
        # more keys in the package's `motion-joint`, and the nearer class's entry wins all the same
        assert own.recipe == {**Motion().defaults(VIT, "joint").recipe, "epochs": 9}
        assert own.origins["recipe.epochs"] == "Longer.recipes:mine"
    assert "recipe.epochs" in Motion().defaults().origins and Motion().defaults().recipe["epochs"] == 2


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"recipes": "mine: {recipe: {epocs: 9}}"}, "Odd.recipes:mine.recipe.epocs"),
        ({"recipes": {"mine": {"dataset": "k400"}}}, "Odd.recipes:mine"),
        ({"recipes": "a: [1,"}, "line 1"),
        ({"recipe": lambda self, backbone, strategy: {}}, "recipe()"),
        ({"stride": lambda self, frames: 1}, "stride()"),
    ],
    ids=["unknown name", "another data set", "no YAML", "recipe", "stride"],
)
def test_a_data_set_that_says_it_wrongly_is_refused(body: dict[str, Any], told: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        type("Odd", (Motion,), {"name": "odd", **body})
    assert told in str(error.value)


def test_a_data_set_may_override_the_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Motion):
        name = "own"

        def defaults(self, backbone: BackboneName | None = None, strategy: str | None = None) -> Defaults:
            return Defaults(3, 128, Views(1, 3), {"scale": 2}, {"epochs": 5})

    DATASETS.names()
    monkeypatch.setitem(DATASETS._entries, "own", Own)
    file = {"backbones": "vit:tiny@none", "strategies": "joint", "datasets": "own", "device": "cpu"}
    (cell,) = planned(Given(Request, file), None)[1].cells
    assert (cell.frames, cell.crops, cell.options["scale"], cell.recipe.epochs) == (3, 3, 2.0, 5)


# --- a user's ---

BASE = {"backbones": "vit:tiny@none,clip:tiny@none", "strategies": "joint,full", "device": "cpu"}


def configured(tmp_path: Path, text: str, **flags: Any) -> Any:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    return planned(Given(Request, {**BASE, **flags}), file)[1]


def test_a_users_entries_win_over_the_packages_and_lose_to_the_command(tmp_path: Path) -> None:
    text = """
    recipes:
      mine: {dataset: motion, family: vit, views: 1x3, frames: 4, options: {scale: 2}, recipe: {lr: 1e-3, epochs: 5}}
      other: {dataset: k400, recipe: {lr: 7}}
    recipe: {dropout: 0.25}
    recipe_by_strategy: {full: {epochs: 6}}
    """
    found = configured(tmp_path, text)
    seen = {
        (c.backbone, c.strategy): (c.frames, c.crops, c.options.get("scale"), c.recipe.lr, c.recipe.epochs)
        for c in found.cells
    }
    own = {s: Motion().defaults(VIT, s).recipe["lr"] for s in ("joint", "full")}
    assert seen == {
        ("vit:tiny", "joint"): (4, 3, 2.0, 1e-3, 5),
        ("vit:tiny", "full"): (4, 3, None, 1e-3, 6),
        ("clip:tiny", "joint"): (8, 1, 0.5, own["joint"], 2),
        ("clip:tiny", "full"): (8, 1, None, own["full"], 6),
    }
    assert {c.recipe.dropout for c in found.cells} == {0.25}
    joint = found.origins[0]
    assert joint["recipe.lr"] == joint["frames"] == joint["options.scale"] == f"{tmp_path}/c.yaml:recipes:mine"
    assert found.origins[1]["recipe.epochs"] == "recipe_by_strategy.full.epochs"
    asked = configured(tmp_path, text, recipe={"lr": 3e-3}, frames="2", views="1x1", options={"scale": 3}).cells[0]
    assert (asked.recipe.lr, asked.frames, asked.crops, asked.options["scale"]) == (3e-3, 2, 1, 3.0)


def test_what_is_wrong_is_told_with_file_and_entry_at_once(tmp_path: Path) -> None:
    text = """
    recipes:
      a: {famly: vit}
      b: {recipe: {epocs: 3}}
      c: {recipe: {lr: 99}}
      d: 3
      e: {strategy: jont, dataset: moton, not_family: swim, span: 3, options: {scale: 99, ratoi: 2}}
      f: {where: here}
    """
    with pytest.raises(UserError) as error:
        configured(tmp_path, text)
    at = f"{tmp_path}/c.yaml:recipes:"
    told = ["a.famly", "b.recipe.epocs", "c.recipe.lr", "d", "e.strategy", "e.dataset", "e.not_family", "e.span"]
    told += ["e.options.scale", "e.options.ratoi", "f.where"]
    for place in told:
        assert len([problem for problem in error.value.problems if f"{at}{place}" in problem]) == 1, place
    assert len(error.value.problems) == len(told)
    nearest = ("family", "epochs", "joint", "motion", "swin", "ratio")
    assert all(sum(f"did you mean {name!r}" in p for p in error.value.problems) == 1 for name in nearest)
    with pytest.raises(UserError) as error:
        configured(tmp_path, "recipes: [1]")
    assert len(error.value.problems) == 1


def test_entries_are_listed_with_their_sources(bench: Command) -> None:
    everything = bench("list", "recipes")
    assert everything.code == 0
    lines = everything.out.splitlines()
    assert {entry.where for entry in package_entries()} <= set(lines)
    assert all(len(line) <= 80 for line in lines) and "…" not in everything.out
    text = " ".join(everything.out.split())
    assert all(" ".join(entry.source.split()) in text for entry in package_entries())
    some = set(bench("list", "recipes", "--filter", "k700").out.splitlines()) & set(lines)
    assert {line for line in some if line.startswith("recipes/")} == {
        "recipes/kinetics.yaml:k700",
        "recipes/kinetics.yaml:kinetics-swin",
    }
    said = bench("list", "recipes", "--filter", "nosuch")
    assert said.code == 2 and "'nosuch'" in said.problems[0]


def test_a_dry_run_tells_the_source_of_each_value(bench: Command, tmp_path: Path) -> None:
    text = (
        "recipes: {mine: {family: vit, options: {scale: 2}, recipe: {dropout: 0.25}}}\nrecipe: {weight_decay: 0.125}\n"
    )
    (tmp_path / "c.yaml").write_text(text)
    dry = ("run", "--backbones", "vit:tiny@none", "--strategies", "joint", "--device", "cpu", "--dry-run")
    said = bench(*dry, "--lr", "0.01", "--recipe", "erase=0.5", "--frames", "4", "--config", tmp_path / "c.yaml")
    assert said.code == 0
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in said.out.splitlines() if line.strip()}
    expected = {
        "frames": "--frames",
        "views": "data set motion",
        "options.scale": f"{tmp_path}/c.yaml:recipes:mine",
        "recipe.dropout": f"{tmp_path}/c.yaml:recipes:mine",
        "recipe.weight_decay": f"--config {tmp_path}/c.yaml",
        "recipe.lr": "--lr",
        "recipe.head_lr": "--lr, in proportion",
        "recipe.erase": "--recipe erase",
        "recipe.epochs": "recipes/motion.yaml:motion",
    }
    assert {name: " ".join(rows[name].split()[1:-1]) for name in expected} == expected
    # what is as the defaults have it is not told
    assert "recipe.label_smoothing" not in rows and "options.ratio" not in rows


def test_names_of_families_and_strategies_stand_in_the_recipes_alone() -> None:
    """A data set's code is free of them."""
    folder = Path(__file__).parents[3] / "bench" / "data"
    names = {f'"{name}"' for name in (*FAMILIES.names(), *STRATEGIES.names())}
    found = {
        (file.name, name)
        for place in ("catalog", "motion")
        for file in (folder / place).glob("*.py")
        for name in names
        if name in file.read_text()
    }
    assert not found
