"""Spaces of trials: what recipes and strategies declare, and what a user changes."""

from __future__ import annotations

from typing import Any

import pytest

from bench.spec import Dimension
from bench.tune.space import Space
from tests.bench.command import field_of, quotes
from tests.bench.tune.rows import planned


def space(asked: dict[str, Any] | None = None, strategy: str = "joint", **recipe: Any) -> dict[str, Dimension]:
    problems: list[str] = []
    (cell,) = planned((strategy,), (0,), recipe=recipe)
    found = Space(asked or {}, [strategy], problems).of(cell)
    assert not problems
    return found


def test_a_recipe_declares_ranges_about_its_own_values() -> None:
    found = space(lr=2e-3, head_lr=4e-2, weight_decay=0.1, drop_path=0.2)
    assert list(found) == ["lr", "head_lr", "weight_decay", "drop_path"]
    assert (found["lr"].scale, found["lr"].low, found["lr"].high) == ("log", 2e-4, 2e-2)
    assert (found["head_lr"].low, found["head_lr"].high) == (4e-3, 0.4)
    assert (found["weight_decay"].scale, found["weight_decay"].low, found["weight_decay"].high) == ("log", 0.01, 1.0)
    assert (found["drop_path"].scale, found["drop_path"].low, found["drop_path"].high) == ("linear", 0.0, 0.4)


def test_what_is_off_stays_off_and_no_range_leaves_what_a_recipe_may_have() -> None:
    assert list(space(weight_decay=0.0, drop_path=0.0)) == ["lr", "head_lr"]
    found = space(lr=5.0, head_lr=10.0, drop_path=0.5)
    assert (found["lr"].high, found["head_lr"].high, found["drop_path"].high) == (10.0, 10.0, 0.6)


def test_where_the_head_alone_trains_its_rate_alone_is_varied() -> None:
    assert "lr" not in space(strategy="frozen") and "head_lr" in space(strategy="frozen")
    assert "lr" not in space({"lr": "1e-4..1e-2"}, strategy="frozen")


def test_a_user_changes_it() -> None:
    asked = {"lr": "1e-5..1e-2", "drop_path": "0..0.5", "weight_decay": "fixed", "dropout": [0.0, 0.5]}
    found = space(asked, lr=3.0)
    assert (found["lr"].scale, found["lr"].low, found["lr"].high) == ("log", 1e-5, 1e-2)
    assert (found["drop_path"].scale, found["drop_path"].low, found["drop_path"].high) == ("linear", 0.0, 0.5)
    assert "weight_decay" not in found
    assert (found["dropout"].scale, found["dropout"].choices) == ("choice", (0.0, 0.5))


def test_options_are_varied_where_they_are_asked_for() -> None:
    assert not [name for name in space() if name.startswith("options.")]
    found = space({"ratio": "declared", "joint.scale": [0.1, 1]})
    assert 0.25 in found["options.ratio"].choices and found["options.scale"].choices == (0.1, 1)
    problems: list[str] = []
    both = Space({"rank": [4, 8], "lora.dropout": [0.0, 0.2]}, ["joint", "lora"], problems)
    joint, lora = planned(("joint", "lora"), (0,))
    assert not problems
    assert not {"options.rank", "options.dropout", "dropout"} & both.of(joint).keys()
    assert both.of(lora)["options.rank"].choices == (4, 8) and both.of(lora)["options.dropout"].choices == (0.0, 0.2)


@pytest.mark.parametrize(
    ("name", "value", "about"),
    [
        ("lr", "1e-2", "tune_space.lr"),
        ("lr", 0.1, "tune_space.lr"),
        ("lr", "1e-2..1e-4", "tune_space.lr"),
        ("lr", "0..1e-2", "tune_space.lr"),
        ("lr", "1e-2..inf", "tune_space.lr"),
        ("lr", "1e-2..100", "tune_space.lr"),
        ("lr", [], "tune_space.lr"),
        ("lr", "declared", "tune_space.lr"),
        ("drop_path", "0..1", "tune_space.drop_path"),
        ("ratio", "0.1..1", "tune_space.ratio"),
        ("ratio", [0.5, 99], "tune_space.ratio"),
        ("blocks", "declared", "tune_space.blocks"),
    ],
)
def test_what_is_wrong_is_told_by_its_name(name: str, value: Any, about: str) -> None:
    problems: list[str] = []
    Space({name: value}, ["joint"], problems)
    (problem,) = problems
    assert field_of(problem) == about


def test_an_unknown_name_gets_the_nearest_one() -> None:
    problems: list[str] = []
    Space({"ratoi": [0.5], "rank": [4], "epochs": [1, 2]}, ["joint"], problems)
    assert len(problems) == 3
    assert (
        quotes(problems[0], "'ratoi'", "'ratio'") and quotes(problems[1], "'rank'") and quotes(problems[2], "'epochs'")
    )
