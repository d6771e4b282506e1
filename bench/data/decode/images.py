"""A folder of pictures, one a frame, as video data sets are often unpacked: read as a video is."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np

from bench.data.decode.base import Frames, VideoError, VideoReader, first_words

_NUMBERED = re.compile(r"(?P<name>.*?)(?P<number>\d+)\.(jpe?g|png|bmp|webp)", re.IGNORECASE)
_USUAL = "img_"  # of mmaction, beside whose frames flow_x_00001.jpg and flow_y_00001.jpg may lie


class ImagesReader(VideoReader):
    """The pictures of a folder in the order of their numbers: img_00001.jpg, frame_000001.png, 1.jpg and the like.

    Args:
        frames: how many there are, where a list says; more are left unread.

    Raises VideoError where there are none, fewer, or some under more than one name.
    """

    decoder = "images"

    def __init__(self, path: Path, short_side: int | None = None, frames: int | None = None) -> None:
        super().__init__(path, short_side)
        self._files = _numbered(path)
        if frames is not None and len(self._files) < frames:
            raise VideoError(path, f"the folder holds {len(self._files)} pictures: the list says {frames}")
        self._files = self._files[:frames]

    def __len__(self) -> int:
        return len(self._files)

    def _read(self, indices: list[int]) -> Frames:
        pictures = [self._picture(self._files[i]) for i in indices]
        for index, picture in zip(indices, pictures, strict=True):
            if picture.shape != pictures[0].shape:
                name, (height, width) = self._files[index].name, picture.shape[:2]
                raise VideoError(
                    self.path, f"{name} has {width}x{height} pixels, unlike {self._files[indices[0]].name}"
                )
        return np.stack(pictures)

    def _picture(self, file: Path) -> Frames:
        from PIL import Image

        try:
            with Image.open(file) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # all of Pillow's own
            raise VideoError(self.path, f"{file.name} cannot be read as a picture ({first_words(error)})") from error

    def close(self) -> None:
        pass


def _numbered(folder: Path) -> list[Path]:
    """The folder's frames in order."""
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise VideoError(folder, error.strerror or "the folder cannot be read") from error
    found: dict[str, list[tuple[int, str, Path]]] = {}
    for file in entries:
        if match := _NUMBERED.fullmatch(file.name):
            found.setdefault(match["name"], []).append((int(match["number"]), file.name, file))
    if not found:
        raise VideoError(folder, "the folder holds no numbered pictures, such as img_00001.jpg")
    if len(found) > 1 and _USUAL not in found:
        names = ", ".join(f"{name}*" for name in sorted(found))
        raise VideoError(
            folder, f"the folder holds pictures of {len(found)} names ({names}): expected one, or {_USUAL}*"
        )
    chosen = sorted(found[_USUAL] if _USUAL in found else next(iter(found.values())))
    for (number, name, _), (following, other, _) in pairwise(chosen):
        if number == following:
            raise VideoError(folder, f"{name} and {other} are one frame twice")
    return [file for _, _, file in chosen]
