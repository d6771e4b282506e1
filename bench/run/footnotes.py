"""Footnotes of a cell: what a reader of its numbers must know and would not expect."""

from __future__ import annotations

from collections.abc import Sequence

from bench.data.dataset import Split
from bench.data.subset import Subset
from bench.measure.result import Measured, not_compiled
from bench.run.result import SkippedVideo
from bench.spec import Cell
from bench.text import counted
from bench.train.evaluate import Predictions

RANDOM = "random weights (@none), not pretrained"
_NAMED = 3  # skipped videos
_ROUNDING, _ROUGH = 1e-3, 0.05  # of probabilities: sums in another order, in single and in half precision


def of_memory(batch_size: int, micro_batch: int, share: int | None = None) -> list[str]:
    """Note that memory had no room for a batch, or for a rank's share of it; nothing where it had."""
    if micro_batch >= (share or batch_size):
        return []
    return [f"memory ran out: batches of {batch_size} computed {counted(micro_batch, 'clip')} at a time"]


def of_repeating(unrepeatable: str) -> list[str]:
    """Note why numbers depend on chance; nothing where they do not."""
    return [f"not repeatable to the bit: {unrepeatable}"] if unrepeatable else []


def of_ranks(size: int) -> list[str]:
    """Note that several processes executed a cell together."""
    return [] if size == 1 else [f"on {size} processes: sums in another order than of one"]


def of_sharing(cells: int) -> list[str]:
    """Note that cells trained together, so that a training's time is that of all of them."""
    if cells == 1:
        return []
    return [f"trained with {counted(cells - 1, 'other cell')} from one forward pass: train_seconds is the time of all"]


def of_small_training_set(cell: Cell, batch_size: int) -> list[str]:
    """Note that a training set is smaller than the recipe's batch, and makes smaller ones."""
    if batch_size >= cell.recipe.batch_size:
        return []
    return [
        f"no more than {counted(batch_size, 'training video')}: batches of {batch_size}, not {cell.recipe.batch_size}"
    ]


def of_subset(cell: Cell, drawn: Subset | None) -> list[str]:
    """Note that a training saw a fraction of the training videos."""
    if drawn is None or cell.train_fraction == 1:
        return []
    note = f"trained on {len(drawn.videos):,} of {counted(drawn.of, 'training video')} ({cell.train_percent}), by class"
    if drawn.scarce:
        classes = counted(drawn.scarce, "class", "classes")
        note += f"; one video of {classes}, whose share would be less than one"
    return [note]


def of_order(cell: Cell, order_aware: bool, found: Predictions) -> list[str]:
    """Note that a method that is said to be blind to the frames' order predicts otherwise in another order."""
    apart = max((float(abs(p - found.probabilities).max()) for p in found.reordered.values()), default=0.0)
    if order_aware or apart <= (_ROUNDING if cell.precision == "fp32" else _ROUGH):
        return []
    return [f"{cell.method} is registered as blind to the frames' order, and its probabilities change by {apart:.2g}"]


def of_compiling(cell: Cell, measured: Measured | None, *whys: str) -> list[str]:
    """Note that a cell that asks for it was not compiled; `whys`: the compiler's words, empty where it did not fail."""
    notes = [not_compiled(why) for why in whys if why]
    if cell.compile and measured is not None and not measured.compiled and not notes:
        notes.append("speed measured without compiling, which failed then")
    return notes


def of_skipped(skipped: Sequence[SkippedVideo], listed: int, evaluated: Split = "test") -> list[str]:
    """Note the videos that could not be read.

    Args:
        listed: videos of the split whose accuracy is told.
        evaluated: that split.
    """
    notes = []
    of = {split: [video for video in skipped if video.split == split] for split in ("train", "val", "test")}
    if lost := of.pop(evaluated):
        kind = "test" if evaluated == "test" else "validation"
        notes.append(
            f"{len(lost)} of {counted(listed, f'{kind} video')} could not be read: accuracy is over the other "
            f"{listed - len(lost)} ({_names(lost)})"
        )
    if lost := of.pop("train", []):
        times = counted(sum(video.times for video in lost), "time")
        videos = counted(len(lost), "training video")
        notes.append(f"{videos} could not be read, other clips took their places ({times}; {_names(lost)})")
    if lost := of.pop("val", []):
        notes.append(f"{counted(len(lost), 'validation video')} could not be read and left out ({_names(lost)})")
    return notes


def _names(videos: Sequence[SkippedVideo]) -> str:
    more = len(videos) - _NAMED
    return ", ".join(video.name for video in videos[:_NAMED]) + (f" and {more} more" if more > 0 else "")
