"""The views of a test, as they are written: clips x crops, and the short side from which crops are taken."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple, cast

EXPECTED = "expected clips x crops, such as 3x1, or with the short side before the crop, such as 1x1@256"
# of the picture before the crop, in pixels: decoded frames have this size too
_LARGEST = 4096


class Views(NamedTuple):
    """Clips of a video, crops of a clip, and the pixels of the short side before the crop.

    `short_side` None is the side of the model's input: the crops then cover the short side.
    """

    clips: int
    crops: Literal[1, 3]
    short_side: int | None = None

    def __str__(self) -> str:
        return f"{self.clips}x{self.crops}" + (f"@{self.short_side}" if self.short_side else "")


def parse(value: Any) -> Views:
    """`3x1`, `1x3@256`. Raises ValueError, its message in half a sentence."""
    written = value if isinstance(value, str) else ""
    found = re.fullmatch(r"\s*(\d{1,3})\s*[x×]\s*(\d{1,3})\s*(?:@\s*(\d{1,5})\s*)?", written)
    if found is None or not int(found[1]):
        raise ValueError(EXPECTED)
    if (crops := int(found[2])) not in (1, 3):
        raise ValueError("expected 1 crop (the centre) or 3 (left, centre, right)")
    side = None if found[3] is None else int(found[3])
    if side is not None and not 1 <= side <= _LARGEST:
        raise ValueError(f"expected a short side of 1 to {_LARGEST} pixels")
    return Views(int(found[1]), cast(Literal[1, 3], crops), side)


def checked_views(views: Views, size: int | None, model: str) -> tuple[Views, str | None]:
    """The views, without a short side that is the model's input anyway, and the sentence on one that is too small.

    Args:
        size: pixels of the input's side; None where it is not known.
    """
    if size is None or views.short_side is None or views.short_side > size:
        return views, None
    told = f"views is {str(views)!r}: {model} is shown {size} pixels, expected a short side of at least {size}"
    return views._replace(short_side=None), told if views.short_side < size else None
