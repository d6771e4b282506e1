"""Step and inference time, peak memory and the share of the machine's matrix-product peak, ours beside the reference.

    python benchmarks/step.py --models clip:ViT-B-16 --strategies joint --batch-size 8 --precisions fp32,bf16
    python benchmarks/step.py --models vit:vit_tiny_patch16_224 --strategies field --against joint --ways "" --beside ""

These run in turn, round after round, on the same weights and the same clips: the reference (AIM in eager mode with
autocast, tests/reference/aim_eager.py), ours, ours in the ways that are asked for (with plain kernels; compiled,
compiled with CUDA graphs, with recomputed activations: all of them on a GPU), and for scale TimeSformer and the plain
image model on the clips' frames. Beside half precision on a CPU the reference runs in float32 too. A round's ratio is
taken within the round, so that what slows the machine for a while slows both; the table shows the median over rounds
and their quartiles, against the reference and against ours with plain kernels: what is written by hand for speed is
worth so much.

Other papers' strategies have no such reference: they stand against our AIM, `joint`, and so does every strategy with
`--against joint`. A prediction is that of the model as it is deployed, merged where the strategy has a merged model.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.families import build, resolve
from backbones.kernels.switch import Kernels, using
from bench.data.transforms import normalise
from bench.measure.counts import step_macs
from bench.measure.machine import cores, device_name
from bench.measure.placement import bf16_notes, place
from bench.measure.speed import peak, synchronise
from bench.spec import Precision, Recipe
from bench.train.compute import mixed
from bench.train.evaluate import Predictor
from bench.train.trainer import Trainer
from benchmarks.record import add_to_csv, provenance
from tests.reference import aim_eager

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_PEAK_SECONDS = 30.0  # for which a size of the matrix product is tried at most
# ways to take our own step, and what the step is told
_WAYS: dict[str, dict[str, Any]] = {
    "plain": {"kernels": "plain"},
    "compiled": {"compile": True},
    "graphs": {"compile": "graphs"},
    "checkpointed": {"checkpoint_activations": True},
    "compiled+checkpointed": {"compile": True, "checkpoint_activations": True},
    "compiled+plain": {"compile": True, "kernels": "plain"},
}


def matrix_peak(device: torch.device, precision: Precision, clock: Callable[[], float] = time.perf_counter) -> float:
    """Multiply-accumulates a second of the fastest square matrix product found, in the precision."""
    best = 0.0
    for size in (4096, 8192) if device.type == "cuda" else (1024, 2048):
        if best and 13 * size**3 / best > _PEAK_SECONDS:  # a format that the device emulates
            break
        a, b = (torch.randn(size, size, device=device, dtype=_DTYPES[precision]) for _ in range(2))
        for _ in range(3):
            a @ b
        for _ in range(10):
            synchronise(device)
            begun = clock()
            a @ b
            synchronise(device)
            best = max(best, size**3 / (clock() - begun))
    return best


def built(name: str, strategy: str, frames: int, seed: int = 0) -> VideoClassifier:
    """A model with random weights; the same seed gives the same weights. Swin takes 32 frames for a ViT's 8."""
    torch.manual_seed(seed)
    chosen = STRATEGIES.get(strategy)
    return VideoClassifier(
        build(resolve(f"{name}@none", "base")), chosen, chosen.options(), classes=400, frames=frames, drop_path=0.2
    )


def in_reference(model: VideoClassifier) -> VideoClassifier:
    """The model, its forward replaced by the reference's."""
    model.forward = lambda clips: aim_eager.logits(model, clips)  # type: ignore[method-assign]
    return model


def widened(model: VideoClassifier) -> None:
    """Frozen weights in float32 again: the reference leaves it to autocast to round them, at every use."""
    for parameter in model.parameters():
        parameter.data = parameter.data.float()


@dataclass
class Contender:
    """Timed subject: one training step, or the prediction of one batch; `engine` takes it, but for the image model."""

    name: str
    call: Callable[[], object]
    needed: int
    resident: Callable[[], list[torch.Tensor]]
    engine: Trainer | Predictor | None = None
    seconds: list[float] = field(default_factory=list)
    first: float = 0.0
    memory: int = 0

    def who(self, batch: int) -> str:
        """The name, and what was not done as it says."""
        if self.engine is None:
            return self.name
        at_once, why_not = self.engine.micro_batch, self.engine.computation.why_not
        parts = f", {at_once} of {batch} clips at once as memory ran out" if at_once < batch else ""
        return self.name + parts + (f", NOT compiled: {why_not}" if why_not else "")


def contenders(
    name: str,
    strategy: str,
    frames: int,
    batch: int,
    device: torch.device,
    precision: Precision,
    training: bool,
    ways: list[str],
    beside: list[str],
    against: str,
) -> list[Contender]:
    """Return the contenders to time: first what the others are compared with, the reference or ours of AIM."""
    found = []
    generator = torch.Generator().manual_seed(0)
    size = built(name, "frozen", frames).backbone.input_size
    clips = torch.randint(0, 256, (batch, frames, 3, size, size), dtype=torch.uint8, generator=generator).to(device)
    labels = torch.randint(0, 400, (batch,), generator=generator).to(device)
    eager = against == "reference" and not STRATEGIES.get(strategy).of_field
    asked: list[tuple[str, str, Precision, dict[str, Any]]] = [
        ("reference", strategy, precision, {}) if eager else ("joint", "joint", precision, {})
    ]
    if eager and precision != "fp32" and device.type == "cpu" and "fp32" in beside:
        asked.append(("reference in fp32", strategy, "fp32", {}))
    asked.append(("ours", strategy, precision, {}))
    asked += [
        (f"ours, {way}", strategy, precision, _WAYS[way])
        for way in ways
        if training or not {"checkpoint_activations"} & _WAYS[way].keys()
    ]
    if strategy != "timesformer" and "timesformer" in beside:
        asked.append(("timesformer", "timesformer", precision, {}))
    for title, strategy_name, number_format, how in asked:
        model = built(name, strategy_name, frames)
        if reference := title.startswith("reference"):
            in_reference(model)
        with torch.device("meta"):
            shapes = built(name, strategy_name, frames)
            needed = step_macs(shapes if training else shapes.deployed(), batch, training=training)
        kernels, how = how.get("kernels", "fast"), {name: how[name] for name in how.keys() - {"kernels"}}
        with using(kernels):
            if training:
                engine: Trainer | Predictor = Trainer(model, Recipe(batch_size=batch), device, number_format, **how)
                call: Callable[[], object] = partial(engine.step, clips, labels)
                resident = partial(_resident, engine)
            else:
                model = model.deployed()
                engine = Predictor(model, device, number_format, batch, **how)
                call = partial(engine, clips[:, None])
                resident = partial(_tensors, model)
        if reference:
            widened(model)
        found.append(Contender(title, partial(_with, kernels, call), needed, resident, engine))
    if not training and "image" in beside:
        image = built(name, "frozen", frames).backbone.to(device).eval()

        @torch.no_grad()
        def plain() -> torch.Tensor:
            with mixed(device, precision):
                return image(normalise(clips.flatten(0, 1), image.mean, image.std))

        with torch.device("meta"):
            needed = step_macs(built(name, "frozen", frames), batch, training=False)
        found.append(Contender("image model", plain, needed, partial(_tensors, image)))
    return found


def strategies_of(text: str, name: str) -> list[str]:
    """Names of a comma list; of the groups `all` and `field`, as in `bench run`, those that the model takes."""
    groups = {
        "all": [one for one in STRATEGIES.names() if not STRATEGIES.get(one).of_field],
        "field": list(STRATEGIES.names()),
    }
    with torch.device("meta"):
        backbone = build(resolve(f"{name}@none", "base"))
    found = []
    for part in text.split(","):
        taken = [one for one in groups.get(part, ()) if STRATEGIES.get(one).refuses(backbone) is None]
        found += taken if part in groups else [part]
    return list(dict.fromkeys(found))


def _with(kernels: Kernels, call: Callable[[], object]) -> object:
    with using(kernels):
        return call()


def _tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _resident(trainer: Trainer) -> list[torch.Tensor]:
    state = [value for entry in trainer.optimiser.state.values() for value in entry.values()]
    return [*_tensors(trainer.model), *(value for value in state if torch.is_tensor(value))]


def race(
    found: list[Contender],
    device: torch.device,
    rounds: int,
    warmup: int,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Time the contenders in turn. Each round begins with another one."""
    for one in found:
        synchronise(device)
        begun = clock()
        one.call()
        synchronise(device)
        one.first = clock() - begun
        for _ in range(warmup - 1):
            one.call()
        one.memory = peak(one.call, device, one.resident())
    for turn in range(rounds):
        order = found[turn % len(found) :] + found[: turn % len(found)]
        for one in order:
            synchronise(device)
            begun = clock()
            one.call()
            synchronise(device)
            one.seconds.append(clock() - begun)


def rows(found: list[Contender], batch: int, top: float) -> list[dict[str, Any]]:
    """Return a row for each contender: against the reference, and against ours with plain kernels where that ran."""
    reference = found[0]
    plain = next((one for one in found if one.name == "ours, plain"), None)
    listed = []
    for one in found:
        low, middle, high = _ratios(reference, one)
        against = (None,) * 3 if plain is None else _ratios(plain, one)
        median = statistics.median(one.seconds)
        listed.append(
            {
                "who": one.who(batch),
                "ms": 1000 * median,
                "clips_per_s": batch / median,
                "speed_ratio": middle,
                "ratio_low": low,
                "ratio_high": high,
                "memory_gb": one.memory / 1e9,
                "memory_ratio": one.memory / reference.memory,
                "plain_ratio": against[1],
                "plain_ratio_low": against[0],
                "plain_ratio_high": against[2],
                "plain_memory_ratio": None if plain is None else one.memory / plain.memory,
                "peak_share": one.needed / median / top,
                "first_call_s": one.first,
            }
        )
    return listed


def _ratios(of: Contender, one: Contender) -> list[float]:
    """Quartiles over the rounds of the time of `of` / the time of `one`."""
    ratios = [theirs / ours for theirs, ours in zip(of.seconds, one.seconds, strict=True)]
    return statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3


def main(
    models: Annotated[str, typer.Option(help="Comma list of family:model.")] = "clip:ViT-B-16",
    strategies: Annotated[str, typer.Option(help="Comma list of strategies; all and field as in bench run.")] = "joint",
    modes: Annotated[str, typer.Option(help="train, infer or both.")] = "train,infer",
    precisions: Annotated[
        str,
        typer.Option(help="Comma list of fp32, bf16, fp16; auto: fp32, and bf16 where a CPU does not emulate it."),
    ] = "auto",
    frames: Annotated[int, typer.Option(help="Frames a clip; 0: 8, of Swin 32.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Clips a step.")] = 2,
    ways: Annotated[
        str,
        typer.Option(
            help="Also our step so: comma list of plain, compiled, graphs, checkpointed; auto: plain, on a GPU all."
        ),
    ] = "auto",
    beside: Annotated[
        str, typer.Option(help="What runs beside: comma list of timesformer, image and, on a CPU, fp32; or nothing.")
    ] = "timesformer,image,fp32",
    against: Annotated[
        str, typer.Option(help="Compare AIM's own strategies with: the reference, or joint, our AIM.")
    ] = "reference",
    rounds: Annotated[int, typer.Option(help="Rounds.")] = 5,
    warmup: Annotated[int, typer.Option(help="Calls of each before the rounds, at least 1.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")] = "auto",
    cpu_time: Annotated[
        bool, typer.Option("--cpu-time", help="The CPU's time for one thread: where others keep the machine busy.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the rows as CSV, added to what it holds.")] = None,
) -> None:
    """Print, for every model, strategy, mode and precision, what each contender takes."""
    placement = place(device, "auto")
    where = torch.device(placement.torch_name)
    torch.set_num_threads(1 if cpu_time else cores())
    clock = time.process_time if cpu_time else time.perf_counter
    console = Console(width=150)
    chosen = (
        (list(_WAYS) if where.type == "cuda" else ["plain"])
        if ways == "auto"
        else [way for way in ways.split(",") if way]
    )
    console.print(f"{device_name(placement.torch_name)}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    slow = bf16_notes(replace(placement, precision="bf16"))
    formats = precisions.split(",")
    if precisions == "auto":
        formats = ["fp32"] if slow else ["fp32", "bf16"]
        slow = tuple(f"{note}: left out, --precisions bf16 runs it" for note in slow)
    if precisions == "auto" or "bf16" in formats:
        for note in slow:
            console.print(note)
    for precision in formats:
        top = matrix_peak(where, precision, clock)  # type: ignore[arg-type]
        console.print(f"{precision}: matrix-product peak {top / 1e9:.0f} G multiply-accumulates a second")
        for name in models.split(","):
            for strategy in strategies_of(strategies, name):
                for mode in modes.split(","):
                    count = frames or (32 if name.startswith("swin") else 8)
                    found = contenders(
                        name,
                        strategy,
                        count,
                        batch_size,
                        where,
                        precision,  # type: ignore[arg-type]
                        mode == "train",
                        chosen,
                        beside.split(","),
                        against,
                    )
                    race(found, where, rounds, warmup, clock)
                    about = {"model": name, "strategy": strategy, "mode": mode, "precision": precision}
                    about |= {"frames": count, "batch": batch_size, "rounds": rounds}
                    listed = rows(found, batch_size, top)
                    if out is not None:
                        add_to_csv(out, [{**about, **row, **provenance(placement.torch_name)} for row in listed])
                    console.print(
                        _table(f"{name} {strategy}, {mode}, {precision}, batch {batch_size}, {count} frames", listed)
                    )


def _table(title: str, listed: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in (
        "",
        "ms",
        "clips/s",
        "x reference (quartiles)",
        "memory GB",
        "of reference's",
        "x plain (quartiles)",
        "memory of plain's",
        "of peak %",
        "first s",
    ):
        table.add_column(column, justify="left" if not column else "right")
    for row in listed:
        table.add_row(
            row["who"],
            f"{row['ms']:.1f}",
            f"{row['clips_per_s']:.2f}",
            f"{row['speed_ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})",
            f"{row['memory_gb']:.2f}",
            f"{row['memory_ratio']:.2f}",
            "{plain_ratio:.2f} ({plain_ratio_low:.2f} to {plain_ratio_high:.2f})".format(**row)
            if row["plain_ratio"]
            else "",
            f"{row['plain_memory_ratio']:.2f}" if row["plain_ratio"] else "",
            f"{100 * row['peak_share']:.0f}",
            f"{row['first_call_s']:.1f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
