"""`bench profile`: models counted part by part and measured, as cells that stop after their measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from adapters.base import STRATEGIES
from adapters.heads import HEADS
from backbones.families import FAMILIES, build
from backbones.names import BackboneName, BadBackboneName, UnsupportedModel, WeightsError, split
from bench.data.dataset import DATASETS
from bench.errors import UserError
from bench.measure.machine import cores, device_name, exclusive_machine_lock
from bench.measure.placement import Placement, bf16_notes
from bench.plugins import load as load_plugins
from bench.run.columns import row
from bench.run.footnotes import RANDOM
from bench.run.matrix import Plan, lasting
from bench.run.provenance import Stopwatch, command, provenance, sources
from bench.run.result import Counts, Result
from bench.run.selection import (
    brought_options,
    chosen_backbones,
    chosen_options,
    chosen_size,
    fitted_options,
    names,
    placement_of,
    refusal,
)
from bench.spec import Cell, ProfileRequest, Recipe
from bench.spec.source import Views, parse_views

# whose published setting the whole table has: 8 frames, a Swin's 32
_PUBLISHED = "k400"
# of the training whose step is timed: AIM trains 8 clips a GPU; a CPU would take minutes a step
_BATCH_ON_GPU, _BATCH_ON_CPU = 8, 1
_NO_DEVICE = Placement("cpu", None, "fp32")  # of cells that compute nothing
_RANDOM = "random weights (@none): they change no speed"
# what tells models apart, and what must be alike for speeds to stand in one table
_OF_MODEL = ("weights", "options", "input_size", "frames", "views", "classes", "sources")
_OF_USE = ("precision", "batch_size", "compile", "kernels", "checkpoint_activations")
_CONDITIONS = ("commit", "dirty", "versions", "device", "threads", *_OF_USE)


def plan(request: ProfileRequest, problems: Iterable[str] = ()) -> Plan:
    """The models of a request as cells.

    Args:
        problems: that were found before.

    Raises:
        UserError: every unknown name, impossible value and impossible combination, `problems` among them.
    """
    problems = list(problems)
    defaults: list[str] = []
    try:
        load_plugins(request.plugins)
    except UserError as error:
        problems += error.problems
    strategies = [STRATEGIES.get(name) for name in names(request.strategies, STRATEGIES, problems)]
    options = chosen_options(request.options, strategies, problems)
    asked = without_weights(request.backbones) if request.whole else request.backbones
    backbones = chosen_backbones(asked, "base", "", problems, defaults)
    placement = placement_of(request.device, request.precision, problems) if request.timing else _NO_DEVICE
    published = DATASETS.get(_PUBLISHED)() if request.whole else None
    sizes = {backbone: chosen_size(backbone, request.input_size, problems) for backbone in backbones}
    chosen = []
    for backbone, strategy in product(backbones, strategies):
        if told := refusal(strategy, HEADS.get("linear"), backbone, sizes[backbone]):
            refused = defaults if request.whole else problems
            refused.append(told)
        elif strategy in options:
            frames, taken = request.frames or (8,), options[strategy]
            views = parse_views(request.views or "3x1")
            if published is not None:
                own = published.defaults(backbone, strategy.name)
                frames, views = request.frames or (own.frames,), views if request.views else own.views
                taken = {**taken, **brought_options(own, published.name, backbone, strategy, request.options, defaults)}
            taken = fitted_options(taken, strategy, backbone.family, frames, problems)
            chosen += [(backbone, strategy.name, taken, count, views) for count in frames]
    if problems or placement is None:
        raise UserError(problems)
    stood = {backbone: _stand_in(backbone) if request.whole else (backbone, "") for backbone in backbones}
    cells = {
        _cell(request, placement, stood[name][0], strategy, taken, frames, views, sizes[name]): stood[name][1]
        for name, strategy, taken, frames, views in chosen
    }
    notes = {cell.key: note for cell, note in cells.items() if note}
    return Plan(tuple(cells), placement, tuple(dict.fromkeys(defaults)), notes=notes)


def _cell(
    request: ProfileRequest,
    placement: Placement,
    backbone: BackboneName,
    strategy: str,
    options: dict[str, Any],
    frames: int,
    views: Views,
    size: int | None,
) -> Cell:
    default = _BATCH_ON_CPU if placement.type == "cpu" else _BATCH_ON_GPU
    return Cell(
        backbone=backbone.architecture,
        weights=lasting(backbone.file) if backbone.file else backbone.weights,
        strategy=strategy,
        options=options,
        dataset="",
        frames=frames,
        input_size=size,
        clips=views.clips,
        crops=views.crops,
        seed=0,
        recipe=Recipe(batch_size=request.batch_size or default),
        device=placement.type,
        precision=placement.precision,
        compile=request.compile,
        kernels=request.kernels,
        checkpoint_activations=request.checkpoint_activations,
        sources=sources(backbone, family=FAMILIES.get(backbone.family), strategy=STRATEGIES.get(strategy)),
        stages=("measure",) if request.timing else (),
        classes=request.classes,
    )


def without_weights(asked: Iterable[str]) -> list[str]:
    """The names as written, with `@none` where they name no weights; `all` is every family's."""
    found = []
    for text in asked:
        for name in FAMILIES.names() if text == "all" else [text]:
            found.append(f"{name}@none" if _names_none(name) else name)
    return found


def _names_none(text: str) -> bool:
    try:
        family, model, weights = split(text)
    except BadBackboneName:  # told when it is resolved
        return False
    if weights is not None or family not in FAMILIES:
        return False
    return model is None or FAMILIES.get(family).split_tag(model)[1] is None


def _stand_in(name: BackboneName) -> tuple[BackboneName, str]:
    """The backbone with weights that can be had, and the footnote where they are random."""
    if name.random:
        return name, _RANDOM
    try:
        build(name)
    except (UnsupportedModel, WeightsError) as error:
        why = " ".join(str(error).split())
        return replace(name, weights="none"), f"{_RANDOM}, and {name.weights_label} cannot be had ({why})"
    return name, ""


def counted(planned: Plan, whole: bool = False) -> list[Counts | str]:
    """The counts of each model of a plan, part by part; of a whole table why one cannot be counted.

    Raises:
        UserError: models that cannot be built or counted, weights that cannot be had; never of a whole table.
    """
    from bench.run.counts import by_part

    found: list[Counts | str] = []
    for cell in planned.cells:
        try:
            found.append(by_part(cell))
        except Exception as error:  # a plugin's code can raise anything
            found.append(f"{cell.label} cannot be counted: {_line(error)}")
    if whole:
        return found
    problems = [each for each in found if isinstance(each, str)]
    if problems := problems + _unusable_weights(planned.cells):
        raise UserError(problems)
    return found


def _unusable_weights(cells: Iterable[Cell]) -> list[str]:
    """Load the weights of each backbone that is measured once, as far as they come from outside."""
    problems = []
    for name in dict.fromkeys(cell.backbone_name for cell in cells if cell.stages):
        if name.random or (name.model == "tiny" and name.file is None):
            continue
        try:
            build(name)
        except (UnsupportedModel, WeightsError) as error:
            problems.append(f"{error}; {name.architecture}@none has random weights, --no-timing needs none")
    return problems


def execute(
    planned: Plan,
    counts: Sequence[Counts | str],
    known: Callable[[Cell], Result | None] = lambda _: None,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """The result of each cell of a plan, one after the other; one that cannot be measured says so and ends no other.

    Args:
        counts: what `counted` made of the plan.
        known: the result of a cell that was measured before; None where it was not.
        on_wait: called where another command is measuring on this machine.
    """
    for cell, found in zip(planned.cells, counts, strict=True):
        if isinstance(found, str):
            yield _failed(cell, Stopwatch(), planned, None, "failed", found, [])
        elif not cell.stages:
            yield _executed(cell, planned, found)
        elif (before := known(cell)) is not None:
            yield before
        else:
            with exclusive_machine_lock(on_wait):
                # another command may have measured it while this one waited
                yield known(cell) or _executed(cell, planned, found)


def _executed(cell: Cell, planned: Plan, counts: Counts) -> Result:
    import torch

    from bench.data.decode_pool import Reading
    from bench.run import cell as execution
    from bench.run.context import WorkerContext
    from bench.run.repeatable import in_this_process
    from bench.train.compute import is_out_of_memory

    device = planned.placement.torch_name
    note = planned.notes.get(cell.key)
    notes = [note] if note else [RANDOM] if cell.stages and cell.backbone_name.random else []
    context = WorkerContext(torch.device(device), Reading(), command(), device_notes=bf16_notes(planned.placement))
    since = Stopwatch()
    try:
        result = in_this_process(context, cores(), lambda: execution.execute(cell, context, counts=counts))
    except Exception as error:  # a plugin's code can raise anything
        if is_out_of_memory(error):
            why = f"memory ran out: {device} has no room for one clip"
            return _failed(cell, since, planned, counts, "oom", why, notes)
        return _failed(cell, since, planned, counts, "failed", f"could not be timed: {_line(error)}", notes)
    told = [each for each in result.footnotes if each != RANDOM]
    return result.model_copy(update={"footnotes": (*notes, *told)})


def _failed(
    cell: Cell,
    since: Stopwatch,
    planned: Plan,
    counts: Counts | None,
    status: Any,
    why: str,
    notes: Sequence[str],
) -> Result:
    known = provenance(
        cell, since, command=command(), device=device_name(planned.placement.torch_name), threads=cores()
    )
    return Result(cell=cell, status=status, counts=counts, footnotes=(*notes, why), provenance=known, error=why)


def incompatibility(found: Iterable[Result], planned: Plan) -> str:
    """Return the difference that keeps results from standing in a table with those of a plan; "" where all can."""
    wanted = {
        cell.key: row(_failed(cell, Stopwatch(), planned, None, "failed", "to come", [])) for cell in planned.cells
    }
    rows = [row(result) for result in found]
    if not rows or not wanted:
        return ""
    one = next(iter(wanted.values()))
    for name in _CONDITIONS:
        others = [each[name] for each in rows if each[name] != one[name]]
        if others and name == "versions":
            return "other versions of packages"
        if others:
            return f"{name.replace('_', ' ')} {_shown(others[0])}, not {_shown(one[name])}"
    if one["dirty"]:
        return "code that was changed since its commit"
    models: dict[tuple[Any, Any], Mapping[str, Any]] = {(w["backbone"], w["strategy"]): w for w in wanted.values()}
    for each in rows:
        other = models.get((each["backbone"], each["strategy"]))
        if other is not None and each["cell"] not in wanted:
            name = next((name for name in _OF_MODEL if each[name] != other[name]), "cell")
            model = f"{each['backbone']} {each['strategy']}"
            return f"{model} with {name} {_shown(each[name], 'none')}, not {_shown(other[name], 'none')}"
    return ""


def _shown(value: Any, nothing: str = "unknown") -> str:
    return nothing if value in (None, "") else str(value)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
