"""Pictures of a data set: its classes as a contact sheet and as an animation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import Split, Video, VideoDataset
from bench.data.decode.open import open_video
from bench.data.sampling import test_indices
from bench.data.validate import present
from bench.files import write_atomically

Frames = NDArray[np.uint8]  # (T, H, W, 3)

_SIDE = 80  # pixels of a frame's longer side in the pictures
_GAP = 4
_TEXT = 110  # pixels beside a row for the class's name
_PAPER = (255, 255, 255)
_INK = (20, 20, 20)


def examples(dataset: VideoDataset, split: Split, frames: int) -> list[tuple[str, Frames]]:
    """Each class's name and the frames that a test would see of its first video, scaled to the pictures' size.

    Raises:
        DataError: see `VideoDataset.videos` and `bench.data.decode.open.open_video`.
    """
    first: dict[int, Video] = {}
    for video in present(dataset.videos(split)):
        first.setdefault(video.label, video)
    found = []
    for label, video in sorted(first.items()):
        reader = open_video(video.path)
        try:
            indices = test_indices(dataset.sampling, len(reader), frames, dataset.defaults().stride(frames), 1)[0]
            found.append((dataset.classes[label], _scaled(reader.frames(indices))))
        finally:
            reader.close()
    return found


def _scaled(frames: Frames) -> Frames:
    from PIL import Image

    height, width = frames.shape[1:3]
    factor = _SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames])


def _page(width: int, height: int) -> tuple[Any, Any]:
    from PIL import Image, ImageDraw

    page = Image.new("RGB", (width, height), _PAPER)
    return page, ImageDraw.Draw(page)


def contact_sheet(shown: Sequence[tuple[str, Frames]]) -> Any:
    """A PIL image: a row a class, its name and then its frames from first to last."""
    from PIL import Image

    count = max(len(frames) for _, frames in shown)
    page, draw = _page(_TEXT + count * (_SIDE + _GAP), len(shown) * (_SIDE + _GAP) + _GAP)
    for row, (name, frames) in enumerate(shown):
        top = _GAP + row * (_SIDE + _GAP)
        draw.text((_GAP, top + _SIDE // 2), name, fill=_INK, anchor="lm")
        for column, frame in enumerate(frames):
            page.paste(Image.fromarray(frame), (_TEXT + column * (_SIDE + _GAP), top))
    return page


def animation(shown: Sequence[tuple[str, Frames]], columns: int = 5) -> list[Any]:
    """PIL images, one a frame: all classes at once on a grid, each under its name."""
    from PIL import Image

    line = 16
    cell_width, cell_height = max(_SIDE, _TEXT - 10) + _GAP, _SIDE + line + _GAP
    rows = -(-len(shown) // columns)
    pages = []
    for index in range(max(len(frames) for _, frames in shown)):
        page, draw = _page(min(columns, len(shown)) * cell_width, rows * cell_height)
        for place, (name, frames) in enumerate(shown):
            left, top = place % columns * cell_width, place // columns * cell_height
            draw.text((left + cell_width // 2, top + line // 2), name, fill=_INK, anchor="mm")
            frame = Image.fromarray(frames[min(index, len(frames) - 1)])
            page.paste(frame, (left + (cell_width - frame.width) // 2, top + line))
        pages.append(page)
    return pages


def write_pictures(
    dataset: VideoDataset, split: Split, folder: Path, *, frames: int, milliseconds: int = 180
) -> list[Path]:
    """Write `<data set>.png` and `<data set>.gif` into a folder, which is made where it is missing.

    Raises:
        DataError: the videos cannot be read.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = examples(dataset, split, frames)
    sheet, moving = folder / f"{dataset.name}.png", folder / f"{dataset.name}.gif"
    write_atomically(sheet, lambda path: contact_sheet(shown).save(path, format="PNG", optimize=True))
    pages = animation(shown)
    write_atomically(
        moving,
        lambda path: pages[0].save(
            path, format="GIF", save_all=True, append_images=pages[1:], duration=milliseconds, loop=0
        ),
    )
    return [sheet, moving]
