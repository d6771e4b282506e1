"""Other papers' methods: parameters to the digit and multiply-accumulates, published and in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adapters.attentive import AttentiveProbe
from bench.measure.counts import macs_by_part
from bench.measure.params import count, count_by_part
from tests.adapters.test_field import DEFINED, FIELD
from tests.models import model, without_numbers
from tests.reference.macs import swin_parts, vit_parts

LARGE = ("vit:vit_base_patch16_224@none", "clip:ViT-B-16@none", "clip:ViT-L-14@none")
# side, patch, width, depth
SIZES = {
    "vit:vit_base_patch16_224@none": (224, 16, 768, 12),
    "clip:ViT-B-16@none": (224, 16, 768, 12),
    "clip:ViT-L-14@none": (224, 14, 1024, 24),
    "vit:vit_small_patch32_224@none": (224, 32, 384, 12),
}


def _trained(name: str, width: int, depth: int, patches: int, frames: int, *, clip: bool = False, **o: Any) -> int:
    """Parameters of a ViT by the papers' definitions, without the head."""
    d = width
    return {
        "bitfit": 11 * d * depth + 2 * d,
        "lora": 4 * o.get("rank", 16) * d * depth,
        "adaptformer": depth * (2 * d * 64 + 64 + d),
        "vpt": o.get("tokens", 50) * d * (depth if o.get("deep", True) else 1),
        "st-adapter": depth * o.get("per_block", 1) * (2 * d * 384 + 5 * 384 + d),
        "zeroi2v": 4 * depth * (2 * d * (d // 4) + d // 4 + d) + frames * d + 2 * d,
        "evl": 4 * (12 * d * d + 19 * d + frames * d + 2 * (2 * patches - 1) ** 2 * d) + 3 * d,
    }[name]


def _macs(name: str, side: int, patch: int, d: int, depth: int, frames: int, classes: int, **o: Any) -> int:
    """Multiply-accumulates of a view by a ViT as deployed."""
    total = sum(vit_parts(side=side, patch=patch, width=d, depth=depth, frames=frames, classes=classes).values())
    patches = (side // patch) ** 2
    tokens = frames * (patches + 1)
    p = o.get("tokens", 50)
    added = {
        "adaptformer": tokens * depth * 2 * d * 64,
        "vpt": depth * frames * (p * 12 * d * d + 2 * d * ((patches + 1 + p) ** 2 - (patches + 1) ** 2)),
        "st-adapter": frames * patches * depth * o.get("per_block", 1) * (2 * d * 384 + 3 * 384),
        "evl": 4 * (10 * d * d + 2 * d * d * tokens + 2 * tokens * d + 3 * tokens * d)
        + 4 * 2 * 2 * (frames - 1) * patches**2 * d,
    }
    return total + added.get(name, 0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in FIELD),
        ("lora", {"rank": 8}),
        ("vpt", {"tokens": 10}),
        ("vpt", {"deep": False}),
        ("st-adapter", {"per_block": 2}),
    ],
    ids=str,
)
def test_counts_agree_with_the_closed_form(size: str, name: str, options: dict[str, Any]) -> None:
    side, patch, width, depth = SIZES[size]
    for frames, classes in ((8, 101), (5, 400))[: 1 if "L-14" in size else 2]:
        adapted = without_numbers(size, name, frames, classes, **options)
        trained = _trained(name, width, depth, side // patch, frames, **options)
        assert count(adapted)[1] == trained + (width + 1) * classes
        found = sum(macs_by_part(adapted.deployed()).values())
        assert found == pytest.approx(_macs(name, side, patch, width, depth, frames, classes, **options), rel=1e-3)


def test_counts_on_a_swin_agree_with_the_closed_form() -> None:
    name = "swin:swin_tiny_patch4_window7_224@none"
    widths = [96] * 2 + [192] * 2 + [384] * 6 + [768] * 2
    grids = [56] * 2 + [28] * 2 + [14] * 6 + [7] * 2
    image = swin_parts(side=224, patch=4, width=96, depths=(2, 2, 6, 2), window=7, frames=4, classes=10)
    head = 769 * 10
    tokens = [4 * grid * grid for grid in grids]
    linear = sum(4 * (2 * d * (d // 4) + d // 4 + d) for d in widths)
    for strategy, trained, added in (
        ("zeroi2v", linear + 4 * 96 + 2 * 768, 0),
        ("lora", sum(4 * 16 * d for d in widths), 0),
        ("adaptformer", sum(2 * d * 64 + 64 + d for d in widths),
         sum(n * 2 * d * 64 for n, d in zip(tokens, widths, strict=True))),
        ("st-adapter", sum(2 * d * 384 + 5 * 384 + d for d in widths),
         sum(n * (2 * d * 384 + 3 * 384) for n, d in zip(tokens, widths, strict=True))),
    ):  # fmt: skip
        adapted = without_numbers(name, strategy, 4, 10)
        assert count(adapted)[1] == trained + head
        assert sum(macs_by_part(adapted.deployed()).values()) == pytest.approx(sum(image.values()) + added, rel=1e-3)


def test_the_published_counts_are_found() -> None:
    """Trained parameters of the official classes; GMACs that the papers tell, some of three views."""
    b, large = LARGE[1], LARGE[2]

    def trained(size: str, name: str, classes: int = 400, **options: Any) -> int:
        return count(without_numbers(size, name, 8, classes, **options))[1]

    def gmacs(name: str) -> float:
        return sum(macs_by_part(without_numbers(b, name, 8, 400).deployed()).values()) / 1e9

    assert trained(LARGE[0], "lora", 101) == 667_493
    assert (trained(b, "st-adapter"), trained(large, "st-adapter")) == (7_417_744, 19_355_024)
    assert (trained(b, "st-adapter", per_block=2), trained(large, "st-adapter", per_block=2)) == (
        14_527_888,
        38_300_048,
    )
    # the released AdaptFormer trains the final norm too, 2 D
    assert (trained(b, "adaptformer"), trained(large, "adaptformer")) == (1_498_768 - 1536, 3_583_888 - 2048)
    assert (trained(b, "vpt", tokens=10), trained(large, "vpt", tokens=10)) == (399_760, 655_760)
    assert (trained(b, "lora", rank=8), trained(large, "lora", rank=8)) == (602_512, 1_196_432)
    assert (trained(b, "bitfit"), trained(large, "bitfit")) == (410_512, 682_384)
    assert (trained(b, "zeroi2v"), trained(large, "zeroi2v")) == (14_517_136, 50_874_768)
    assert (trained(b, "evl"), trained(large, "evl")) == (33_183_376, 58_727_824)
    assert gmacs("st-adapter") == pytest.approx(151.7, rel=1e-3) and 3 * gmacs("st-adapter") == pytest.approx(
        455, abs=0.5
    )
    assert 3 * gmacs("zeroi2v") == pytest.approx(422, abs=0.5)


@pytest.mark.parametrize(
    ("width", "depth", "expected"),
    [(768, 1, 6_805_648), (768, 4, 28_069_264), (1024, 1, 11_957_648), (1024, 4, 49_746_320)],
)
def test_the_probe_has_the_published_parameters(width: int, depth: int, expected: int) -> None:
    with torch.device("meta"):
        probe = AttentiveProbe(width, 400, 8, depth=depth)
    assert sum(parameter.numel() for parameter in probe.parameters()) == expected


@pytest.mark.parametrize(("family", "name"), DEFINED)
def test_every_parameter_is_in_a_part(family: str, name: str) -> None:
    adapted = model(family, name)
    parts = count_by_part(adapted)
    assert tuple(map(sum, zip(*parts.values(), strict=True))) == count(adapted)
    unused = sum(parameter.numel() for parameter in adapted.backbone.final_norm.parameters()) if name == "evl" else 0
    assert parts["elsewhere"] == (unused, 0)
