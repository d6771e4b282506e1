"""`bench eval`: evaluate a checkpoint."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from bench.cli.choices import asked_cache, asked_views, not_among
from bench.cli.output import say, tell
from bench.cli.progress import progress
from bench.cli.where import ClassNames, DataRoot, Fold, LabelsFrom, TestList, TrainList, ValList, source
from bench.data.resize import PIXELS
from bench.errors import UserError
from bench.spec.fields import DECODERS
from bench.text import counted, one_line, quantity

if TYPE_CHECKING:
    from bench.run.evaluation import Evaluation, Plan, Split
    from bench.spec.fields import Decoder

SPLITS = ("test", "val")
FORMATS = ("table", "json")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def eval_(
    checkpoint: Annotated[
        str,
        typer.Option(
            help="A cell's adapter.safetensors, its folder or RUN/CELL; or a .pth file of AIM's released code.",
            metavar="FILE",
        ),
    ],
    dataset: Annotated[str | None, typer.Option(help="Name of the data set. [default: the training's]")] = None,
    data_root: DataRoot = None,
    train_list: TrainList = None,
    val_list: ValList = None,
    test_list: TestList = None,
    class_names: ClassNames = None,
    fold: Fold = None,
    labels_from: LabelsFrom = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Where the cell's backbone lies now, or the architecture of a released file. [default: the file's]"
        ),
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="What the file must hold. [default: the file's]")] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="s of the joint adapter, which a released file does not tell. [default: as published]"),
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip. [default: the training's]", min=1)] = None,
    input_size: Annotated[
        str | None,
        typer.Option(help="Side of the model's frames in pixels. [default: the training's]", metavar="PIXELS"),
    ] = None,
    clips: Annotated[int | None, typer.Option(help="Test clips a video. [default: the data set's]", min=1)] = None,
    crops: Annotated[int | None, typer.Option(help="1 or 3. [default: the data set's]", min=1)] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help="Clips x crops in one, such as 3x1; 1x1@256 takes the crop from a short side of 256 pixels.",
            metavar="CxK[@S]",
        ),
    ] = None,
    pixels: Annotated[
        str,
        typer.Option(
            help="How frames are resized: own, with antialiasing, or released, as AIM's released code does.",
            metavar="PIXELS",
        ),
    ] = "own",
    split: Annotated[str, typer.Option(help=f"Which list: {' or '.join(SPLITS)}.", metavar="SPLIT")] = "test",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    loader_workers: Annotated[
        str,
        typer.Option(
            help="Decoding processes; 0 decodes without them, and without a limit in seconds; auto: one a core, none "
            "for the embedded data set.",
            metavar="INTEGER|auto",
        ),
    ] = "auto",
    decode_timeout: Annotated[
        float, typer.Option(help="Seconds after which a video counts as broken.", metavar="SECONDS")
    ] = 60.0,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="A video that cannot be read, or a class without one to train on, is an error."),
    ] = False,
    decoder: Annotated[str, typer.Option(help=f"{', '.join(DECODERS[:-1])} or {DECODERS[-1]}.")] = "auto",
    cache: Annotated[
        str,
        typer.Option(
            help="Where decoded frames come from: ram, disk, off, or auto: what `bench data prepare` left on the disk.",
            metavar="PLACE",
        ),
    ] = "auto",
    cache_limit: Annotated[
        str | None,
        typer.Option(help="Size of the cache at most. [default: a share of what is free]", metavar="SIZE"),
    ] = None,
    cache_format: Annotated[str, typer.Option(help="raw or jpeg.", metavar="FORMAT")] = "raw",
    order_test: Annotated[bool, typer.Option(help="Also evaluate with the frames reversed and shuffled.")] = True,
    format_: Annotated[
        str, typer.Option("--format", help=f"How to print it: {' or '.join(FORMATS)}.", metavar="FORMAT")
    ] = "table",
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="A Python file or module that registers backbones, strategies or data sets. Repeatable."),
    ] = None,
) -> None:
    """Evaluate a checkpoint on a data set: one of `bench run`, or one that AIM's released code wrote.

    Test views, accuracy and order test are those of `bench run`.
    """
    problems = [
        *not_among("split", split, SPLITS),
        *not_among("format", format_, FORMATS),
        *not_among("precision", precision, PRECISIONS),
        *not_among("pixels", pixels, PIXELS),
        *not_among("decoder", decoder, DECODERS),
    ]
    from bench.run.evaluation import Request, plan
    from bench.spec import checked_device

    planned = None
    try:
        request = Request(
            checkpoint=checkpoint,
            dataset=dataset,
            source=source(data_root, train_list, val_list, test_list, class_names, fold, labels_from, problems),
            backbone=backbone,
            strategy=strategy,
            scale=scale,
            frames=frames,
            clips=clips,
            crops=crops,
            input_size=_checked("input_size", input_size, problems),
            views=asked_views(views, problems),
            pixels="released" if pixels == "released" else "own",
            split=cast("Split", split if split in SPLITS else "test"),
            device=checked_device(device, problems),
            precision=precision if precision in PRECISIONS else "auto",
            decoder=cast("Decoder", decoder if decoder in DECODERS else "auto"),
            loader_workers=_checked("loader_workers", loader_workers, problems),
            decode_timeout=_checked("decode_timeout", decode_timeout, problems),
            strict=strict,
            cache=asked_cache(cache, cache_limit, cache_format, problems),
            plugins=tuple(plugin or ()),
            order_test=order_test,
        )
        planned = plan(request)
    except UserError as error:
        problems += error.problems
    if problems or planned is None:
        raise UserError(problems)
    from bench.measure.placement import bf16_notes

    for note in bf16_notes(planned.placement):
        tell(note, err=True)
    found = _evaluated(planned)
    if format_ == "json":
        say(f"{found.model_dump_json(indent=2)}\n")
    else:
        tell(_table(found))


def _checked(name: str, value: Any, problems: list[str]) -> Any:
    """A field that `bench run` has too, by the rule that holds there; its default where that is broken and told."""
    from pydantic import ValidationError

    from bench.spec import Request, problems_of

    try:
        return getattr(Request(**{name: value}), name)
    except ValidationError as error:
        problems += problems_of(error)
        return getattr(Request(), name)


def _evaluated(planned: Plan) -> Evaluation:
    from bench.run.evaluation import evaluate
    from bench.run.provenance import command
    from bench.train.compute import is_out_of_memory
    from bench.train.trainer import Diverged

    with progress() as show:
        show("building the model")
        try:
            return evaluate(
                planned,
                command(),
                partial(show, f"preparing {planned.dataset.name}"),
                partial(show, "evaluating"),
            )
        except KeyboardInterrupt:
            reason, code = "interrupted", 130
        except Diverged:
            precision = planned.placement.precision
            held = "the checkpoint holds values that are not numbers" + (
                f", or {precision} is too narrow" * (precision != "fp32")
            )
            reason, code = f"a prediction is not a number: {held}", 1
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason, code = "not even one view fits the device's memory", 1
    tell(f"bench: {reason}", err=True)
    raise typer.Exit(code)


def _gmacs(found: Evaluation) -> str | None:
    if found.macs_view is None:
        return None
    one, views = found.macs_view / 1e9, found.clips * found.crops
    return f"{quantity(one, 3)} a view" + (f", {quantity(one * views, 3)} all {views}" if views > 1 else "")


def _table(found: Evaluation) -> str:
    """Names and values below each other: no terminal is too narrow for it."""
    from bench.spec import sized_label

    options = " ".join(f"{name}={value}" for name, value in found.options.items())
    where = found.provenance
    label = sized_label(f"{found.backbone}@{found.weights}", found.input_size)
    rows = {
        "checkpoint": f"{found.checkpoint} (SHA-256 {found.checkpoint_sha256[:12]}, {found.layout})",
        "backbone": f"{label} (SHA-256 {str(where.weights_sha256)[:12]})",
        "strategy": f"{found.strategy} {options}".strip(),
        "params M": f"{quantity(found.params / 1e6, 2)}, trained {quantity(found.trained_params / 1e6, 3)}",
        "GMACs": _gmacs(found),
        "data set": f"{found.dataset} {found.split}, {found.evaluated} of {counted(found.listed, 'video')}",
        "views": f"{found.views} (frames x clips x crops), {found.pixels} pixels",
        "top-1 %": f"{found.top1:.2f}",
        "top-5 %": "-" if found.top5 is None else f"{found.top5:.2f}",
        "mean class %": f"{found.mean_class:.2f}",
        "reversed %": None if found.top1_reversed is None else f"{found.top1_reversed:.2f}",
        "shuffled %": None if found.top1_shuffled is None else f"{found.top1_shuffled:.2f}",
        "device": f"{where.device}, {where.precision}, torch {where.versions['torch']}, {where.wall_seconds:.0f} s",
    }
    width = max(map(len, rows)) + 2
    lines = [f"{name:{width}}{value}" for name, value in rows.items() if value is not None]
    return "\n".join([*map(one_line, lines), *(f"note: {one_line(note)}" for note in found.footnotes)])
