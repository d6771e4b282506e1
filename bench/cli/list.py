"""`bench list`: backbones, strategies, data sets, recipes and tables of AIM's paper to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from adapters.base import STRATEGIES, Strategy
from adapters.heads import HEADS, Head
from backbones.families import FAMILIES, matching, why_unsupported
from bench.cli.options import not_among
from bench.data.dataset import DATASETS
from bench.errors import UserError
from bench.papers.tables import PAPER, tables
from bench.plugins import load as load_plugins
from bench.spec.recipe_entries import package_entries

WHAT = ("backbones", "strategies", "heads", "datasets", "recipes", "papers")


def list_(
    what: Annotated[str, typer.Argument(help=f"What to list: {', '.join(WHAT)}.", metavar="WHAT")],
    plugin: Annotated[
        list[str] | None, typer.Option(help="A Python file or module that registers more. Repeatable.")
    ] = None,
    filter_: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="PATTERN",
            help="A part of a name or a shell pattern. Backbones: every model of the libraries whose name fits, such "
            "as 'vit:*dinov2*', its default weights, and whether it is supported. Recipes: the entries that have it in "
            "their file or name or in what they hold for, such as ssv2 or swin.",
        ),
    ] = None,
) -> None:
    """List the backbones, strategies, heads, data sets or the paper's tables by name, or the entries of the recipes."""
    problems = not_among("what to list", what, WHAT)
    if filter_ is not None and what in ("strategies", "heads", "datasets", "papers"):
        problems.append(f"filter is {filter_!r}: expected with backbones or recipes alone, {what} are few")
    try:
        load_plugins(plugin or ())
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    if what == "recipes":
        listing = _recipes(filter_ or "*")
    elif filter_ is not None:
        listing = _models(filter_)
    else:
        listings = {"backbones": _backbones, "strategies": _strategies, "heads": _heads, "datasets": _datasets}
        listing = {**listings, "papers": _papers}[what]()
    Console(highlight=False).print(listing)


def _table(*columns: str, whole: tuple[str, ...]) -> Table:
    """Return a table whose columns `whole` are not broken, as far as the terminal is wide enough."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        # names of strategies are read side by side
        least = 25 if column == "taken by" else None
        table.add_column(column, no_wrap=column in whole, overflow="fold", min_width=least)
    return table


def _add(table: Table, *texts: str) -> None:
    table.add_row(*(escape(text) for text in texts))


def _backbones() -> Group:
    names = _table("backbone", "is", "on motion, a bare name means", whole=("backbone", "on motion, a bare name means"))
    real = _table("backbone", "on real data, a bare name means", whole=("backbone", "on real data, a bare name means"))
    for name in FAMILIES.names():
        family = FAMILIES.get(name)
        _add(names, name, family.summary, f"{name}:tiny@{family.tiny_weights}")
        _add(real, name, f"{name}:{family.base}")
    grammar = (
        "written family[:model][@weights]; weights are a tag, a file or folder, or none (random)\n"
        "all models that there are: bench list backbones --filter '*', or a part of a name"
    )
    return Group(names, "", real, "", escape(grammar))


def _models(pattern: str) -> Group:
    """Return the models whose names fit. Raises UserError where none does."""
    if not (found := matching(pattern)):
        raise UserError([f"filter is {pattern!r}: no model of {', '.join(FAMILIES.names())} is called so"])
    table = _table("backbone", "default weights", "supported", whole=("backbone",))
    supported = 0
    for family, model in found:
        name, reason = f"{family}:{model}", why_unsupported(family, model)
        supported += reason is None
        tags = FAMILIES.get(family).tags(model)
        _add(table, name, tags[0] if tags else "-", f"no: {reason.removeprefix(name).strip()}" if reason else "yes")
    return Group(table, "", f"{supported} of {len(found)} supported")


def _strategies() -> Group:
    strategies = _table("strategy", "trains", "is", whole=("strategy", "trains"))
    parts = [STRATEGIES.get(name) for name in STRATEGIES.names()]
    for strategy in parts:
        _add(strategies, strategy.name, strategy.trains, strategy.summary)
    return Group(strategies, *_options(parts))


def _heads() -> Group:
    heads = _table("head", "reads", "is", whole=("head", "reads"))
    parts = [HEADS.get(name) for name in HEADS.names()]
    for head in parts:
        _add(heads, head.name, head.reads, head.summary)
    return Group(heads, *_options(parts))


def _options(parts: Sequence[Strategy | Head]) -> list[RenderableType]:
    """Return the table of the options of strategies or heads, a row for each default; nothing where there are none."""
    # option -> default -> those with that default, and what it means
    takers: dict[str, dict[str, list[str]]] = {}
    meanings: dict[str, str] = {}
    for part in parts:
        for option, field in part.options.model_fields.items():
            takers.setdefault(option, {}).setdefault(str(field.default), []).append(part.name)
            meanings.setdefault(option, field.description or "")
    table = _table("option", "default", "taken by", "is", whole=("option", "default"))
    for option, by_default in takers.items():
        for default, names in by_default.items():
            _add(table, option, default, ", ".join(names), meanings[option])
    return ["", table] if takers else []


def _datasets() -> Group:
    table = _table("data set", "is", "frames", "sampling", "clips x crops", "flip", whole=("data set",))
    for name in DATASETS.names():
        dataset = DATASETS.get(name)
        own = dataset(None).defaults()
        _add(
            table,
            name,
            dataset.summary,
            str(own.frames),
            dataset.sampling,
            str(own.views),
            "yes" if dataset.flip else "no",
        )
    return Group(table, "", "a backbone may have other frames and views, as published: bench list recipes")


def _papers() -> Group:
    table = _table("table", "is", "data set", "cells", "rows", whole=("table",))
    for paper in tables():
        matrix = paper.matrix
        _add(table, paper.name, paper.summary, ", ".join(matrix.datasets), str(paper.cells), str(len(paper.rows)))
    use = (
        "bench run --config paper/table1 --data-root FOLDER; a replica: --dataset motion; counts: --profile-only\n"
        "bench report RUN --layout paper/table1; rows without a cell are published figures alone"
    )
    return Group(table, "", f"of {PAPER}", escape(use))


def _recipes(pattern: str) -> Group:
    """Return the entries that fit. Raises UserError where none does."""
    wanted = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    entries = list(package_entries())
    for name in DATASETS.names():
        entries += [entry for entry in DATASETS.get(name).own_entries if entry not in entries]
    parts: list[RenderableType] = []
    for entry in entries:
        keys = {key: value if isinstance(value, str) else ", ".join(value) for key, value in entry.keys.items()}
        words = [entry.where, *entry.keys.get("dataset", ()), *(keys.get(key, "") for key in ("family", "strategy"))]
        if not any(fnmatchcase(word.lower(), wanted.lower()) for word in words):
            continue
        table = _table("key", "value", whole=("key",))
        table.show_header = False
        _add(table, "  for", "; ".join(f"{key} {value}" for key, value in keys.items()) or "every cell")
        for key in ("frames", "span", "views", "options", "recipe"):
            if value := getattr(entry, key):
                shown = value if not isinstance(value, dict) else ", ".join(f"{k} {v}" for k, v in value.items())
                _add(table, f"  {key}", str(shown))
        _add(table, "  source", entry.source or "not told")
        parts += [escape(entry.where), table, ""]
    if not parts:
        raise UserError([f"filter is {pattern!r}: no entry of the recipes is called so or holds for it"])
    order = "later and more specific entries win, then recipes of a --config, then --recipe, --lr and the like"
    return Group(*parts, order)
