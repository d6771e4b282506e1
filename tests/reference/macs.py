"""Multiply-accumulates of an adapted image model in closed form, part by part, written from the layers' shapes.

A Linear from i to o costs i o a token; attention among n tokens of width D costs 2 n^2 D (q k^T, then times v); a
convolution whose stride is its kernel costs its weights a patch. Norms, activations and sums cost nothing here, as in
the published counts.
"""

from __future__ import annotations


def adapter(width: int, ratio: float = 0.25) -> int:
    """One token through one adapter."""
    return 2 * width * int(width * ratio)


def quadratic(*, side: int, patch: int, width: int, depth: int, frames: int) -> int:
    """The products among the frames of a ViT's attention over time: what grows with the square of their number."""
    tokens = (side // patch) ** 2 + 1
    return depth * tokens * 2 * frames * frames * width


def vit_parts(
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
) -> dict[str, int]:
    """One clip through a ViT with CLS (timm's, or CLIP's image tower).

    Args:
        time: None, "shared" (AIM) or "own" (TimeSformer: its attention over time is followed by a Linear, which counts
            as what an adapter is: added around the attention).
        adapted: how many blocks the strategy touches; all if None.
    """
    patches = (side // patch) ** 2
    tokens = patches + 1
    adapted = depth if adapted is None else adapted
    every = frames * tokens
    temporal, adapters = 0, (int(spatial) + int(joint)) * every * adapter(width, ratio)
    if time is not None:
        # q, k, v and the output's projection of every token; the frames' products at every token's place
        temporal = every * 4 * width * width + tokens * 2 * frames * frames * width
        adapters += every * width * width if time == "own" else temporal_adapters * every * adapter(width, ratio)
    return {
        "embedding": frames * patches * 3 * patch * patch * width,
        "merging": 0,
        "spatial_attention": depth * (every * 4 * width * width + frames * 2 * tokens * tokens * width),
        "temporal_attention": adapted * temporal,
        "mlp": depth * every * 2 * width * (4 * width),
        "adapters": adapted * adapters,
        "head": width * classes,
        "elsewhere": 0,
    }


def swin_parts(
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
) -> dict[str, int]:
    """One clip through a Swin whose grids are multiples of its window, or smaller than it.

    Args:
        tubelet: frames that a patch covers, so that fewer tokens go through the blocks.
    """
    grid = side // patch
    parts = dict.fromkeys(
        ("embedding", "merging", "spatial_attention", "temporal_attention", "mlp", "adapters", "head", "elsewhere"), 0
    )
    parts["embedding"] = frames * grid * grid * 3 * patch * patch * width
    frames //= tubelet
    for stage, depth in enumerate(depths):
        if stage:
            grid //= 2
            parts["merging"] += frames * grid * grid * (4 * width) * (2 * width)
            width *= 2
        every = frames * grid * grid
        area = min(window, grid) ** 2
        for block in range(depth):
            parts["spatial_attention"] += every * (4 * width * width + 2 * area * width)
            parts["mlp"] += every * 2 * width * (4 * width)
            parts["adapters"] += every * adapter(width, ratio) * (int(spatial) + int(joint))
            if time == "own" or (time == "shared" and block % 2 == 0):
                parts["temporal_attention"] += every * 4 * width * width + grid * grid * 2 * frames * frames * width
                parts["adapters"] += every * (width * width if time == "own" else adapter(width, ratio))
    parts["head"] = width * classes
    return parts
