"""Multiply-accumulates of an adapted image model in closed form, written from the layers' shapes.

A Linear from i to o costs i o a token; attention among n tokens of width D costs 2 n^2 D (q k^T, then times v); a
convolution whose stride is its kernel costs its weights a patch. Norms, activations and sums cost nothing here, as in
the published counts.
"""

from __future__ import annotations


def adapter(width: int, ratio: float = 0.25) -> int:
    """One token through one adapter."""
    return 2 * width * int(width * ratio)


def vit(
    *,
    side: int,
    patch: int,
    width: int,
    depth: int,
    frames: int,
    classes: int,
    spatial: bool = False,
    time: str | None = None,
    joint: bool = False,
    temporal_adapters: int = 1,
    ratio: float = 0.25,
    adapted: int | None = None,
) -> int:
    """One clip through a ViT with CLS (timm's, or CLIP's image tower).

    Args:
        time: None, "shared" (AIM) or "own" (TimeSformer: its attention over time is followed by a Linear).
        adapted: how many blocks the strategy touches; all if None.
    """
    patches = (side // patch) ** 2
    tokens = patches + 1
    adapted = depth if adapted is None else adapted
    embedding = frames * patches * 3 * patch * patch * width
    plain = frames * (tokens * 4 * width * width + 2 * tokens * tokens * width + tokens * 8 * width * width)
    added = 0
    if spatial:
        added += frames * tokens * adapter(width, ratio)
    if joint:
        added += frames * tokens * adapter(width, ratio)
    if time is not None:
        added += frames * tokens * 4 * width * width  # q, k, v and the output's projection
        added += tokens * 2 * frames * frames * width
        if time == "own":
            added += frames * tokens * width * width
        else:
            added += temporal_adapters * frames * tokens * adapter(width, ratio)
    return embedding + depth * plain + adapted * added + width * classes


def swin(
    *,
    side: int,
    patch: int,
    width: int,
    depths: tuple[int, ...],
    window: int,
    frames: int,
    classes: int,
    spatial: bool = False,
    time: str | None = None,
    joint: bool = False,
    ratio: float = 0.25,
    tubelet: int = 1,
) -> int:
    """One clip through a Swin whose grids are multiples of its window, or smaller than it.

    Args:
        tubelet: frames that a patch covers, so that fewer tokens go through the blocks.
    """
    grid = side // patch
    total = frames * grid * grid * 3 * patch * patch * width
    frames //= tubelet
    for stage, depth in enumerate(depths):
        if stage:
            grid //= 2
            total += frames * grid * grid * (4 * width) * (2 * width)  # patch merging
            width *= 2
        tokens = grid * grid
        area = min(window, grid) ** 2
        for block in range(depth):
            total += frames * tokens * (12 * width * width + 2 * area * width)
            total += frames * tokens * adapter(width, ratio) * (int(spatial) + int(joint))
            if time == "own":
                total += frames * tokens * 5 * width * width + tokens * 2 * frames * frames * width
            elif time == "shared" and block % 2 == 0:
                total += frames * tokens * (4 * width * width + adapter(width, ratio))
                total += tokens * 2 * frames * frames * width
    return total + width * classes
