"""Parameter counts to the digit, from the paper's closed form."""

from __future__ import annotations

import pytest
import torch

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from backbones.families import build, resolve

ONE_ADAPTER = 295_872  # ViT-B, ratio 0.25: 2 * 768 * 192 + 192 + 768
FINAL_NORM = 2 * 768


def _trained(name: str, strategy: str, frames: int, classes: int, **options: object) -> int:
    with torch.device("meta"):
        chosen = STRATEGIES.get(strategy)
        adapted = VideoClassifier(
            build(resolve(name, "base")), chosen, chosen.options(**options), classes=classes, frames=frames
        )
    return sum(parameter.numel() for _, parameter in adapted.trained())


@pytest.mark.parametrize(
    ("strategy", "options", "adapters", "embedding"),
    [
        ("frozen", {}, 0, 0),
        ("spatial", {}, 12, 0),
        ("temporal", {"temporal_adapters": 2}, 36, 8 * 768),
        ("joint", {"temporal_adapters": 2}, 48, 8 * 768),
        ("joint", {"temporal_adapters": 2, "blocks": "top"}, 24, 8 * 768),
    ],
)
def test_vit_b_on_174_classes_as_in_table_1(
    strategy: str, options: dict[str, object], adapters: int, embedding: int
) -> None:
    norm = 0 if strategy == "frozen" else FINAL_NORM
    expected = adapters * ONE_ADAPTER + embedding + norm + 174 * 768 + 174
    assert _trained("vit:vit_base_patch16_224@none", strategy, 8, 174, **options) == expected


def test_aim_on_clip_b_with_32_frames_and_400_classes_trains_10_985_104() -> None:
    assert _trained("clip:ViT-B-16@none", "joint", 32, 400) == 10_985_104


def test_aim_on_clip_l_with_32_frames_and_400_classes_trains_38_285_712() -> None:
    assert _trained("clip:ViT-L-14@none", "joint", 32, 400) == 38_285_712


def test_aim_on_swin_b_trains_the_released_parameters_and_three_things_more() -> None:
    """Joint, on 32 frames in 16 tubelets and 400 classes. An adapter of width D has D D / 2 + D / 4 + D parameters."""
    widths = {128: 2, 256: 2, 512: 18, 1024: 2}  # blocks of each; two adapters each, a third in every second one
    adapters = sum(blocks * 5 // 2 * (width * width // 2 + width // 4 + width) for width, blocks in widths.items())
    released = adapters + 400 * 1024 + 400
    tables = sum(blocks // 2 * 31 * (width // 32) for width, blocks in widths.items())
    more = tables + 16 * 128 + 2 * 1024  # bias over time, temporal embedding, final norm
    name = "swin:swin_base_patch4_window7_224@none"
    assert _trained(name, "joint", 32, 400, released_freezing=True) == released == 9_172_080
    assert _trained(name, "joint", 32, 400) == released + more == 9_182_004


def test_timesformer_on_vit_b_has_121_m_parameters_as_in_table_1() -> None:
    width, tokens = 768, 14 * 14 + 1
    linear = width * width + width
    norm = 2 * width
    attention = 4 * linear  # queries, keys, values and the output
    mlp = width * 4 * width + 4 * width + 4 * width * width + width
    block = (norm + attention + norm + mlp) + (norm + attention + linear)  # the image model's, and over time
    patches = 3 * 16 * 16 * width + width
    embeddings = width + tokens * width + 8 * width  # CLS, positions, time
    expected = patches + embeddings + 12 * block + norm + 174 * width + 174
    assert round(expected / 1e6, 1) == 121.4
    assert _trained("vit:vit_base_patch16_224@none", "timesformer", 8, 174) == expected


@pytest.mark.parametrize("blocks", ["bottom", "top", "second"])
def test_aim_in_half_of_the_blocks_of_clip_b_trains_5_6_m_as_in_table_7(blocks: str) -> None:
    expected = 6 * 3 * ONE_ADAPTER + 8 * 768 + FINAL_NORM + 400 * 768 + 400
    assert round(expected / 1e6, 1) == 5.6
    assert _trained("clip:ViT-B-16@none", "joint", 8, 400, blocks=blocks) == expected
