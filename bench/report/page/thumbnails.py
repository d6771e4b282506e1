"""Small pictures of test videos, for a page: a few frames of each side by side."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Sequence
from pathlib import Path

from backbones.registry import UnknownName
from bench.data.dataset import DATASETS, DataError
from bench.spec import Cell

_HEIGHT = 48  # pixels; frames that are smaller stay as they are
_FRAMES = 3
_QUALITY = 65  # of JPEG
_SECONDS = 5.0  # for all of a list: videos may be long, or far away


def thumbnails(cell: Cell, names: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return pictures (JPEG, base64) of a cell's test videos by name, and why there are none where there are none.

    Videos are not fetched or rendered for it. What cannot be read now is left out, and so is what is left when reading
    has taken five seconds.
    """
    try:
        dataset = DATASETS.get(cell.dataset)(cell.data)
        paths = {video.name: video.path for video in dataset.videos(cell.split)}
    except UnknownName:
        return {}, f"the data set {cell.dataset} is not known here"
    except (DataError, OSError, ValueError) as error:
        return {}, str(error)
    found = {}
    until = time.monotonic() + _SECONDS
    for name in names:
        if name in paths and (picture := _picture(paths[name])) is not None:
            found[name] = picture
        if time.monotonic() > until:
            break
    return found, "" if found else "the videos are not where they were"


def _picture(file: Path) -> str | None:
    import numpy as np
    from PIL import Image

    from bench.data.decode.open import open_video

    try:
        reader = open_video(file)
    except (DataError, OSError):
        return None
    try:
        count = len(reader)
        frames = reader.frames([(2 * index + 1) * count // (2 * _FRAMES) for index in range(_FRAMES)])
    except (DataError, OSError, IndexError):  # the last of a video without frames
        return None
    finally:
        reader.close()
    picture = Image.fromarray(np.concatenate(list(frames), axis=1))
    picture.thumbnail((picture.width, _HEIGHT))
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=_QUALITY)
    return base64.b64encode(content.getvalue()).decode("ascii")
