"""Growth of a training step and a prediction with frames, with the batch and with the model's width.

    python -m benchmarks.growth --out results/growth-cpu.csv --plot

One axis moves, the others stay at their middle: the median time of `Trainer.step` and of a `Predictor` call, the peak
memory of each, and the multiply-accumulates that they need, so that a point also tells how many a second it achieves.
Each axis ends in exponents: the slope of a line through the points' logarithms, 1 where what is measured grows in
proportion (what a call costs whatever it computes makes it less at small ones, hence also that of the last two
points). Widths are models: a number means a ViT of that width, 4 blocks, on frames of 64x64 pixels; anything else is
family:model. Weights are random, clips are noise.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.base import Backbone
from backbones.families import build, resolve
from bench.measure.counts import step_macs
from bench.measure.machine import cores
from bench.measure.placement import bf16_notes, place
from bench.measure.speed import peak, timed
from bench.spec import Precision, Recipe
from bench.train.evaluate import Predictor
from bench.train.trainer import Trainer
from benchmarks.record import provenance, pyplot, save, write_csv

_CLASSES = 400
_SMALL = {"img_size": 64, "patch_size": 16, "depth": 4, "num_classes": 0}
# device type -> the model at which the other axes are measured, and those of the axis of width
_MODELS = {
    "cpu": ("128", "64,128,256,512"),
    "cuda": (
        "vit:vit_base_patch16_224",
        "vit:vit_tiny_patch16_224,vit:vit_small_patch16_224,vit:vit_base_patch16_224,vit:vit_large_patch16_224",
    ),
}


@dataclass(frozen=True)
class Point:
    """A point of measurement: an axis and where on it."""

    axis: str
    model: str
    frames: int
    batch: int


def backbone(model: str) -> Backbone:
    """The backbone with random weights. A number is the width of a small ViT with heads of 32."""
    if not model.isdecimal():
        return build(resolve(f"{model}@none", "base"))
    from timm.models.vision_transformer import VisionTransformer

    from backbones.vit import ViT

    width = int(model)
    tower = VisionTransformer(embed_dim=width, num_heads=max(1, width // 32), **_SMALL)  # type: ignore[arg-type]
    tower.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # type: ignore[assignment]
    return ViT(tower, f"a ViT of width {width}", "none")


def built(model: str, strategy: str, frames: int) -> VideoClassifier:
    torch.manual_seed(0)
    chosen = STRATEGIES.get(strategy)
    return VideoClassifier(backbone(model), chosen, chosen.options(), classes=_CLASSES, frames=frames)


def measured(
    point: Point, strategy: str, mode: str, device: torch.device, precision: Precision, seconds: float
) -> dict[str, Any]:
    """Time, memory and work of a training step, or of the prediction of a batch."""
    model = built(point.model, strategy, point.frames)
    with torch.device("meta"):
        needed = step_macs(built(point.model, strategy, point.frames), point.batch, training=mode == "train")
    generator = torch.Generator().manual_seed(0)
    size, width = model.backbone.input_size, model.backbone.width
    clips = torch.randint(
        0, 256, (point.batch, point.frames, 3, size, size), dtype=torch.uint8, generator=generator
    ).to(device)
    labels = torch.randint(0, _CLASSES, (point.batch,), generator=generator).to(device)
    resident = [*model.to(device).parameters(), *model.buffers(), clips, labels]
    if mode == "train":
        trainer = Trainer(model, Recipe(batch_size=point.batch), device, precision)
        timing = timed(lambda: trainer.step(clips, labels), device, seconds=seconds)
        trainer.optimiser.zero_grad(set_to_none=True)
        state = [value for entry in trainer.optimiser.state.values() for value in entry.values()]
        resident += [value for value in state if torch.is_tensor(value)]
        memory = peak(lambda: trainer.step(clips, labels), device, resident)
        computed = trainer.micro_batch
    else:
        predictor = Predictor(model, device, precision, point.batch)
        views = clips[:, None]
        timing = timed(lambda: predictor(views), device, seconds=seconds)
        memory = peak(lambda: predictor(views), device, resident)
        computed = predictor.micro_batch
    return {
        "axis": point.axis,
        "model": point.model,
        "width": width,
        "frames": point.frames,
        "batch": point.batch,
        "strategy": strategy,
        "mode": mode,
        "ms": 1000 * timing.median,
        "spread": timing.spread,
        "repeats": timing.repeats,
        "memory_mb": memory / 1e6,
        "gmacs": needed / 1e9,
        "gmacs_per_s": needed / 1e9 / timing.median,
        "computed_at_once": computed,  # below the batch where memory ran out
    }


def exponent(places: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the line through the logarithms, by least squares."""
    return float(np.polyfit(np.log(places), np.log(values), 1)[0])


def points(model: str, widths: str, frames: str, batches: str, middle: tuple[int, int]) -> list[Point]:
    of_frames, of_batch = middle
    return [
        *(Point("frames", model, int(count), of_batch) for count in frames.split(",")),
        *(Point("batch", model, of_frames, int(count)) for count in batches.split(",")),
        *(Point("width", name, of_frames, of_batch) for name in widths.split(",")),
    ]


def main(
    model: Annotated[
        str, typer.Option(help="family:model, or a number for a small ViT. [default: 128, on a GPU ViT-B/16]")
    ] = "",
    widths: Annotated[
        str, typer.Option(help="Comma list of models of several widths. [default: 64 to 512, on a GPU ViT-Ti to ViT-L]")
    ] = "",
    strategies: Annotated[str, typer.Option(help="Comma list of strategies.")] = "frozen,joint,full",
    modes: Annotated[str, typer.Option(help="train, infer or both.")] = "train,infer",
    frames: Annotated[str, typer.Option(help="Comma list of frames.")] = "4,8,16,32,64",
    batches: Annotated[str, typer.Option(help="Comma list of clips a step.")] = "1,2,4,8",
    middle: Annotated[str, typer.Option(help="Frames and batch where another axis moves.")] = "8,2",
    seconds: Annotated[float, typer.Option(help="Time spent on a point's timed calls, at least 7 of them.")] = 0.6,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Also write the points as CSV.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw them, into a PNG beside the CSV.")] = False,
) -> None:
    """Print time, memory and multiply-accumulates along each axis, and the exponents of their growth."""
    if plot and out is None:
        raise typer.BadParameter("--plot draws beside --out, which is not given")
    warnings.simplefilter("ignore")
    placement = place(device, precision)
    where = torch.device(placement.torch_name)
    torch.set_num_threads(cores())
    own_model, own_widths = _MODELS["cuda" if where.type == "cuda" else "cpu"]
    of_frames, of_batch = map(int, middle.split(","))
    about = {
        **provenance(placement.torch_name),
        "threads": torch.get_num_threads(),
        "precision": placement.precision,
    }
    console = Console(width=150)
    console.print(
        f"{about['device']}, torch {about['torch']}, {about['threads']} threads, {about['precision']}, "
        f"commit {about['commit']}"
    )
    for note in bf16_notes(placement):
        console.print(note)
    asked = points(model or own_model, widths or own_widths, frames, batches, (of_frames, of_batch))
    rows = []
    for strategy in strategies.split(","):
        for mode in modes.split(","):
            rows += [
                {**measured(point, strategy, mode, where, placement.precision, seconds), **about} for point in asked
            ]
            console.print(_table(f"{strategy}, {mode}", [row for row in rows if _of(row, strategy, mode)]))
    if out is not None:
        write_csv(out, rows)
        if plot:
            _draw(rows, out.with_suffix(".png"))


def _of(row: dict[str, Any], strategy: str, mode: str) -> bool:
    return (row["strategy"], row["mode"]) == (strategy, mode)


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("axis", "model", "frames", "batch", "ms", "spread %", "MB", "GMACs", "GMACs/s"):
        table.add_column(column, justify="left" if column in ("axis", "model") else "right")
    for axis in dict.fromkeys(row["axis"] for row in rows):
        along = [row for row in rows if row["axis"] == axis]
        for row in along:
            table.add_row(
                axis,
                row["model"],
                str(row["frames"]),
                str(row["batch"]),
                f"{row['ms']:.2f}",
                f"{100 * row['spread']:.0f}",
                f"{row['memory_mb']:.1f}",
                f"{row['gmacs']:.3f}",
                f"{row['gmacs_per_s']:.1f}",
            )
        for title, part in (("exponent", along), ("of the last two", along[-2:])):
            if len(part) > 1:
                places = [row[axis] for row in part]
                slopes = {
                    key: f"{exponent(places, [row[key] for row in part]):.2f}" for key in ("ms", "memory_mb", "gmacs")
                }
                values = (slopes["ms"], "", slopes["memory_mb"], slopes["gmacs"])
                table.add_row(title, "", "", "", *values, "", style="bold")
        table.add_section()
    return table


def _draw(rows: list[dict[str, Any]], file: Path) -> None:
    axes = list(dict.fromkeys(row["axis"] for row in rows))
    kinds = (("ms", "ms"), ("memory_mb", "MB"), ("gmacs_per_s", "GMACs/s"))
    figure, grid = pyplot().subplots(
        len(kinds), len(axes), figsize=(3.4 * len(axes), 7.5), layout="constrained", squeeze=False, sharey="row"
    )
    strategies = list(dict.fromkeys(row["strategy"] for row in rows))
    for down, (key, unit) in enumerate(kinds):
        for across, axis in enumerate(axes):
            panel = grid[down][across]
            for number, strategy in enumerate(strategies):
                for mode, line in (("train", "o-"), ("infer", "s--")):
                    along = [row for row in rows if row["axis"] == axis and _of(row, strategy, mode)]
                    if along:
                        places = [row[axis] for row in along]
                        panel.plot(
                            places,
                            [row[key] for row in along],
                            line,
                            color=f"C{number}",
                            ms=3,
                            label=f"{strategy}, {mode}",
                        )
            panel.set_xscale("log", base=2)
            panel.xaxis.set_major_formatter("{x:.0f}")
            if key != "gmacs_per_s":
                panel.set_yscale("log")
            panel.grid(alpha=0.3)
            if down == len(kinds) - 1:
                panel.set_xlabel(axis)
            if across == 0:
                panel.set_ylabel(unit)
    grid[-1][0].set_ylim(bottom=0)
    grid[0][0].legend(fontsize=7)
    first = rows[0]
    figure.suptitle(f"{first['device']}, {first['threads']} threads, {first['precision']}", fontsize=9)
    save(figure, file)


if __name__ == "__main__":
    typer.run(main)
