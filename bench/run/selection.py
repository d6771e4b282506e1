"""From what a user names to what there is: backbones, strategies, options, device; all mistakes are collected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from adapters.base import STRATEGIES, Strategy
from adapters.heads import HEADS, Head, unread
from backbones.families import FAMILIES, another_size, resolve, why_unsupported
from backbones.names import BackboneName, BadBackboneName, BadInputSize
from backbones.registry import Registry, UnknownName, did_you_mean
from bench.data.dataset import DATASETS, DataError, VideoDataset
from bench.data.decode.open import why_unusable
from bench.errors import UserError, collected
from bench.measure.placement import Placement, place
from bench.plugins import load as load_plugins
from bench.spec import EvaluationRequest, PredictionRequest, problems_of
from bench.spec.recipe_entries import Defaults, RecipeEntry


def names(asked: Iterable[str], registry: Registry[Any], problems: list[str]) -> list[str]:
    """The registered names that were asked for.

    `all` is every one; of strategies those of AIM's paper and of plugins, and `field` the other papers' as well.
    """
    found: list[str] = []
    for name in asked:
        if name == "all" or (name == "field" and registry is STRATEGIES):
            every = registry.names()
            found += [one for one in every if name == "field" or not getattr(registry.get(one), "of_field", False)]
            continue
        try:
            registry.get(name)
            found.append(name)
        except UnknownName as error:
            near = did_you_mean(name, registry.names())
            groups = ["all", "field"] if registry is STRATEGIES else ["all"]
            problems.append(str(error) if near else f"{error}, or {' or '.join(groups)}{did_you_mean(name, groups)}")
    return list(dict.fromkeys(found))


def chosen_backbones(
    names: Iterable[str], size: str, where: str, problems: list[str], defaults: list[str]
) -> list[BackboneName]:
    """The backbones that were named; `all` is every family's.

    Args:
        names: as a user wrote them.
        size: what a bare family name means: "tiny" or "base".
        where: what makes it so, for the sentences on what was filled in.
        problems: gets a sentence for each name that names nothing, or a model that does not open.
        defaults: gets a sentence for each name that was not written in full.
    """
    asked: list[str] = []
    for text in names:
        asked += FAMILIES.names() if text == "all" else [text]
    found = []
    for text in dict.fromkeys(asked):
        try:
            name = resolve(text, size)
        except BadBackboneName as error:
            problems.append(str(error))
            continue
        # the tiny ones are our own; other models are built, which takes a library's import
        if name.model != "tiny" and (reason := why_unsupported(name.family, name.model)):
            problems.append(f"backbone {text!r}: {reason}")
            continue
        if text != str(name):
            defaults.append(f"{text} = {name} {where}".rstrip())
        found.append(name)
    return list(dict.fromkeys(found))


def chosen_size(name: BackboneName, asked: int | None, problems: list[str]) -> int | None:
    """The input size that was asked for; None where it is the backbone's own, or does not fit, which is told once."""
    try:
        return another_size(name, asked)
    except BadInputSize as error:
        problems += [] if str(error) in problems else [str(error)]
        return None


def placement_of(device: str, precision: str, problems: list[str]) -> Placement | None:
    """Device and precision on this machine; None, and sentences, where it does not have them."""
    try:
        return place(device, precision)
    except UserError as error:
        problems += error.problems
        return None


def usable(request: EvaluationRequest | PredictionRequest, problems: list[str]) -> Placement | None:
    """Import a request's plugins, and return where its model is computed; None where that is nowhere on this machine.

    Sentences are added on these, and on a decoder that is not installed.
    """
    with collected(problems):
        load_plugins(request.plugins)
    if unusable := why_unusable(request.decoder):
        problems.append(unusable)
    return placement_of(request.device, request.precision, problems)


def asked_of(part: Strategy | Head, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a strategy or head takes of those asked for: by name, or as NAME.option for it alone."""
    own = part.options.model_fields
    found = {name: value for name, value in asked.items() if name in own}
    return found | {name: asked[whole] for name in own if (whole := f"{part.name}.{name}") in asked}


def chosen_options(
    asked: Mapping[str, Any], strategies: list[Strategy], problems: list[str], heads: Sequence[Head] = ()
) -> dict[Strategy | Head, dict[str, Any]]:
    """Each strategy's and head's options, all of them, with those that were asked for where it takes them."""
    everyone: list[Strategy | Head] = [STRATEGIES.get(name) for name in STRATEGIES.names()]
    # where no strategy was named rightly, a value is checked by any that takes the option
    chosen: list[Strategy | Head] = [*(strategies or everyone), *heads]
    everyone += [HEADS.get(name) for name in HEADS.names()] if heads else []
    what = "strategies and heads" if any(head.options.model_fields for head in heads) else "strategies"
    taken = dict.fromkeys(name for part in chosen for name in part.options.model_fields)
    for name in asked:
        if any(name in part.options.model_fields or _of(part, name) for part in chosen):
            continue
        takers = [part.name for part in everyone if name in part.options.model_fields or _of(part, name)]
        if takers:
            problems.append(
                f"option {name!r}: none of the chosen {what} takes it, expected {', '.join(takers)} among them, "
                f"or one of their own options: {', '.join(taken) or 'none'}"
            )
        else:
            listed = ", ".join(taken) or "none"
            problems.append(f"unknown option {name!r}: the chosen {what} take {listed}{did_you_mean(name, taken)}")
    found: dict[Strategy | Head, dict[str, Any]] = {}
    for part in chosen:
        try:
            found[part] = part.options(**asked_of(part, asked)).model_dump(mode="json")
        except ValidationError as error:
            told = problems_of(error, "option", tuple(part.options.model_fields))
            problems += [problem for problem in told if problem not in problems]
    return found


def _of(part: Strategy | Head, name: str) -> bool:
    """Test that an option is named as of this strategy or head alone."""
    return name.startswith(f"{part.name}.") and name.removeprefix(f"{part.name}.") in part.options.model_fields


def brought_options(
    own: Defaults, dataset: str, backbone: BackboneName, strategy: Strategy, asked: Mapping[str, Any], told: list[str]
) -> dict[str, Any]:
    """The options that a data set's defaults bring to a strategy that takes them, but for those that were asked for.

    Args:
        told: gets a sentence for each.
    """
    brought = {
        name: value
        for name, value in own.options.items()
        if name in strategy.options.model_fields and name not in asked_of(strategy, asked)
    }
    whole = strategy.options(**brought).model_dump(mode="json")
    shown = {name: f"{whole[name]:g}" if isinstance(whole[name], float) else whole[name] for name in brought}
    told += [f"{name} = {shown[name]} for {backbone.family} on {dataset}" for name in brought]
    return {name: whole[name] for name in brought}


def check_entries(entries: Mapping[str, RecipeEntry], problems: list[str]) -> None:
    """Tell the names in a user's entries that name nothing, and the options that no strategy takes with that value."""
    registries: dict[str, Registry[Any]] = {
        "dataset": DATASETS, "family": FAMILIES, "not_family": FAMILIES, "strategy": STRATEGIES
    }  # fmt: skip
    takers = [STRATEGIES.get(name) for name in STRATEGIES.names()]
    taken = dict.fromkeys(name for strategy in takers for name in strategy.options.model_fields)
    for entry in entries.values():
        for key, registry in registries.items():
            for name in getattr(entry, key) or ():
                if name not in registry:
                    known = registry.names()
                    problems.append(
                        f"{entry.where}.{key} holds {name!r}: expected one of {', '.join(known)}"
                        f"{did_you_mean(name, known)}"
                    )
        if entry.span is not None:
            problems.append(f"{entry.where}.span is {entry.span}: it is the data set's own, expected frames alone")
        for name, value in entry.options.items():
            taker = next((strategy for strategy in takers if name in strategy.options.model_fields), None)
            if taker is None:
                problems.append(
                    f"unknown name '{entry.where}.options.{name}': expected one of {', '.join(taken)}"
                    f"{did_you_mean(name, taken)}"
                )
                continue
            try:
                taker.options(**{name: value})
            except ValidationError as error:
                problems += problems_of(error, f"{entry.where}.options", tuple(taken))


def fitted_options(
    options: dict[str, Any], strategy: Strategy, family: str, frames: Iterable[int], problems: list[str]
) -> dict[str, Any]:
    """The options as the strategy settles them for a family and these numbers of frames."""
    fitted, told = strategy.fit_options(options, FAMILIES.get(family), tuple(frames))
    problems += [problem for problem in told if problem not in problems]
    return fitted


def refusal(
    strategy: Strategy, head: Head, name: BackboneName, size: int | None, head_options: Mapping[str, Any] | None = None
) -> str | None:
    """Return the sentence on why a backbone, a strategy and a head do not go together; None where they do.

    A model is opened, without its weights, only where the strategy or the head looks at it.

    Args:
        name: of the backbone.
        size: of the input in pixels, where it is not the backbone's own.
    """
    if (reason := unread(strategy, head)) is not None:
        return reason
    parts: tuple[Strategy | Head, ...] = (strategy, head)
    for part in parts:
        if type(part).refuses in (Strategy.refuses, Head.refuses):
            continue
        from bench.run.build import without_weights  # it imports torch

        backbone = without_weights(name, size)
        if head_options and part is head:
            reason = head.refuses(backbone, head.options(**head_options))
        else:
            reason = part.refuses(backbone)
        if reason:
            return f"{name.architecture} cannot take {part.name}: {reason}"
    return None


def nameless(head: Head, dataset: VideoDataset) -> str | None:
    """Return the sentence on a data set without names of classes, which a head needs; None where it has them."""
    if not head.reads_classes:
        return None
    try:
        classes = dataset.classes
    except DataError:  # told where the lists are looked at
        return None
    if classes != tuple(map(str, range(len(classes)))):
        return None
    return (
        f"the head {head.name} reads the names of the classes, and {dataset.name} has numbers alone: expected "
        "class_names (--class-names FILE), or another head"
    )
