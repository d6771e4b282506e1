"""`bench run`: train and measure a matrix."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli.request import assignments, build, scalar
from bench.cli.where import ClassNames, DataRoot, Fold, LabelsFrom, TestList, TrainList, ValList

_MATRIX, _RECIPE, _RUNNING = "The matrix", "The recipe", "Running"


def run(
    backbones: Annotated[
        str | None,
        typer.Option(
            help="Comma list of family[:model][@weights], such as clip,vit:vit_base_patch16_224.augreg_in21k, or all. "
            "[default: clip,vit]",
            rich_help_panel=_MATRIX,
        ),
    ] = None,
    strategies: Annotated[
        str | None, typer.Option(help="Comma list of strategies, or all. [default: all]", rich_help_panel=_MATRIX)
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Comma list of data sets. [default: motion]", rich_help_panel=_MATRIX)
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(help="Comma list of frames a clip. [default: the data set's]", rich_help_panel=_MATRIX),
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option(
            help="Side of the models' frames in pixels, where it is not the backbones' own: positions are "
            "interpolated, a Swin keeps its windows. [default: each backbone's own]",
            metavar="PIXELS",
            rich_help_panel=_MATRIX,
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Comma list of seeds, one training each. [default: 0]", rich_help_panel=_MATRIX)
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(
            help="Views of a test, clips x crops, such as 3x1; 1x1@256 takes the crop from a short side of 256 pixels. "
            "[default: the data set's]",
            metavar="CxK[@S]",
            rich_help_panel=_MATRIX,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            help="A strategy's option, name=value, such as ratio=0.5; `bench list strategies` names them. Repeatable.",
            rich_help_panel=_MATRIX,
        ),
    ] = None,
    data_root: DataRoot = None,
    train_list: TrainList = None,
    val_list: ValList = None,
    test_list: TestList = None,
    class_names: ClassNames = None,
    fold: Fold = None,
    labels_from: LabelsFrom = None,
    epochs: Annotated[str | None, typer.Option(help="Epochs.", metavar="INTEGER", rich_help_panel=_RECIPE)] = None,
    batch_size: Annotated[
        str | None, typer.Option(help="Clips a step.", metavar="INTEGER", rich_help_panel=_RECIPE)
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            help="Peak learning rate, the same for every strategy; the head keeps its ratio.",
            metavar="NUMBER",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="Any other part of the recipe, name=value. Repeatable.", rich_help_panel=_RECIPE),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps. [default: auto]", rich_help_panel=_RUNNING)
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, fp32, bf16 or fp16. [default: auto]", rich_help_panel=_RUNNING)
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            help="auto (decord, and PyAV where decord cannot or would misread), decord, pyav or torchcodec. "
            "[default: auto]",
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    compile_: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile each model's step with torch.compile. [default: large models on a GPU and real data]",
            show_default=False,
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    checkpoint_activations: Annotated[
        bool | None,
        typer.Option(
            "--checkpoint-activations/--no-checkpoint-activations",
            help="Compute each block once more for its gradients: less memory, more time, the same numbers. "
            "[default: no]",
            show_default=False,
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    kernels: Annotated[
        str | None,
        typer.Option(
            help="fast, or plain: PyTorch's own operations in place of what is written by hand for speed, to debug it "
            "or to measure what it gives. [default: fast]",
            metavar="fast|plain",
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="What executes the cells: local, the worker processes of this machine, or one that a plugin brings. "
            "[default: local]",
            metavar="NAME",
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            help="Processes that run cells side by side, or auto: one a GPU, one a core. [default: auto]",
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    loader_workers: Annotated[
        str | None,
        typer.Option(
            help="Decoding processes of each cell; 0 decodes without them, and without a limit in seconds; auto: the "
            "cores divided among the cells that run side by side, at most 16, none for the embedded data set. "
            "[default: auto]",
            metavar="INTEGER|auto",
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    decode_timeout: Annotated[
        str | None,
        typer.Option(
            help="Seconds after which a clip's video counts as broken. [default: 60]",
            metavar="SECONDS",
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict/--no-strict",
            help="A video that cannot be read is an error: its cell fails. So is a class without a training video: "
            "nothing runs. [default: no]",
            show_default=False,
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            help="Where decoded frames are kept for other epochs, cells and workers: ram, disk, off, or auto: "
            "what `bench data prepare` left on the disk, else ram where all fit. [default: auto]",
            metavar="PLACE",
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    cache_limit: Annotated[
        str | None,
        typer.Option(
            help="Size of the cache at most, such as 20GB. [default: a share of what is free]",
            metavar="SIZE",
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    cache_format: Annotated[
        str | None,
        typer.Option(
            help="raw, or jpeg: smaller, other pixels, and a footnote. [default: raw]",
            metavar="FORMAT",
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run. [default: results/DATASET-KEY]", rich_help_panel=_RUNNING),
    ] = None,
    order_test: Annotated[
        bool | None,
        typer.Option(
            "--order-test/--no-order-test",
            help="Also evaluate with the frames reversed and shuffled. [default: yes]",
            show_default=False,
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            help="A Python file or module that registers backbones, strategies or data sets. Repeatable.",
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file with any of these; flags win.", rich_help_panel=_RUNNING),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the cells, their counts and where their values come from, run nothing.",
            rich_help_panel=_RUNNING,
        ),
    ] = False,
) -> None:
    """Train and measure every cell of a matrix: backbones x strategies x frames x seeds.

    A cell that is done is not run again: the same command goes on where it was stopped.
    """
    problems: list[str] = []
    recipe_flags: dict[str, Any] = assignments(recipe or (), "--recipe", problems)
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("lr", lr)):
        if value is None:
            continue
        if name in recipe_flags:
            problems.append(f"--recipe {name}={recipe_flags[name]!r}: {name} has a flag that is given too")
        recipe_flags[name] = scalar(value)
    options = assignments(option or (), "--option", problems)
    request = build(
        {
            "backbones": backbones,
            "strategies": strategies,
            "datasets": dataset,
            "frames": frames,
            "input_size": input_size,
            "seeds": seeds,
            "views": views,
            "options": options,
            "data_root": data_root,
            "train_list": train_list,
            "val_list": val_list,
            "test_list": test_list,
            "class_names": class_names,
            "fold": None if fold is None else scalar(fold),
            "labels_from": None if labels_from is None else scalar(labels_from),
            "recipe": recipe_flags,
            "device": device,
            "precision": precision,
            "decoder": decoder,
            "compile": compile_,
            "checkpoint_activations": checkpoint_activations,
            "kernels": kernels,
            "engine": engine,
            "workers": workers,
            "loader_workers": None if loader_workers is None else scalar(loader_workers),
            "decode_timeout": None if decode_timeout is None else scalar(decode_timeout),
            "strict": strict,
            "cache": cache,
            "cache_limit": cache_limit,
            "cache_format": cache_format,
            "out": out,
            "order_test": order_test,
            "plugins": tuple(plugin) if plugin else None,
        },
        config,
        problems,
    )

    from bench.cli.output import tell
    from bench.cli.show import listener, print_plan, print_summary
    from bench.run.engines.base import WorkerFailed
    from bench.run.provenance import command
    from bench.run.start import execute, plan

    expansion = plan(request)
    if dry_run:
        own = {"epochs": "--epochs", "batch_size": "--batch-size", "lr": "--lr"}
        given = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
        flags = {f"recipe.{name}": own[name] if given.get(name) else f"--recipe {name}" for name in recipe_flags}
        flags |= {f"options.{name}": f"--option {name}" for name in options}
        flags |= {"frames": "--frames"} if frames else {}
        flags |= {"views": "--views"} if views else {}
        print_plan(expansion, flags, config)
        return
    # a cluster that takes the machine back asks by SIGTERM: same as Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with listener(expansion) as shown:
            finished, outcome = execute(request, expansion, command(), shown)
    except KeyboardInterrupt:  # before the first cell began, or more than once
        tell("interrupted; the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None
    except WorkerFailed as error:
        tell(f"bench: {error}; what was done is kept, and the same command goes on from there", err=True)
        tell(error.printed.expandtabs(), err=True)
        raise typer.Exit(1) from None
    print_summary(finished, expansion, outcome)
    if outcome.interrupted:
        raise typer.Exit(130)
    if outcome.failures or outcome.unwritten:
        raise typer.Exit(1)
