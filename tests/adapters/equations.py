"""Logits of a whole video model from the equations, and the comparison with the model's own.

Weights are read from the model as it is, so that gradients reach them; none of its modules is called. The blocks are
those of tests/reference/aim_block.py and windows.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from adapters.adapter import Adapter
from adapters.base import STRATEGIES
from adapters.block import AdaptedBlock
from adapters.classifier import VideoClassifier
from backbones.base import Backbone
from tests.models import CLASSES
from tests.reference import aim_block as plain
from tests.reference.windows import Pair, merged, windowed

CASES = [
    ("joint", {"temporal_adapters": 1, "scale": 0.7, "ratio": 0.3}),
    ("joint", {"temporal_adapters": 2, "scale": 1.3}),
    ("temporal", {"temporal_adapters": 1}),
    ("temporal", {"temporal_adapters": 2, "ratio": 0.1}),
    ("spatial", {"ratio": 0.5}),
    ("timesformer", {}),
    ("full", {}),
]
# of every clip, for the branch that is dropped next
Draw = Callable[[], Tensor]
# window and shift of a stage's second block, (rows, columns) each, in tokens
Windows = tuple[Pair, Pair]
# 32 x 32 pixels: 8 x 8 tokens, then one window
TINY_WINDOWS: Sequence[Windows] = (((4, 4), (2, 2)), ((4, 4), (0, 0)))


def video_model(backbone: Backbone, strategy: str, options: dict[str, object], frames: int) -> VideoClassifier:
    """In float64, all of its parameters random, with drop path and without dropout.

    Patches cover single frames where the number of frames is odd.
    """
    chosen = STRATEGIES.get(strategy)
    if backbone.tubelet == 2 and frames % 2 and strategy in ("temporal", "joint"):
        options = {**options, "tubelet": 1}
    found = VideoClassifier(
        backbone, chosen, chosen.options(**options), classes=CLASSES, frames=frames, drop_path=0.3, dropout=0.0
    ).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return found


def _linears(adapter: nn.Module | None) -> tuple[plain.Affine, plain.Affine] | None:
    if adapter is None:
        return None
    assert isinstance(adapter, Adapter)
    return plain.affine(adapter.down), plain.affine(adapter.up)


def _added(block: AdaptedBlock, strategy: str, weights: Callable[..., plain.Weights], *, time: bool) -> plain.Added:
    """The added weights of a block; its parts must be those that the strategy's name promises.

    Args:
        weights: reads norm and attention of the family's modules.
        time: whether a block of this kind attends over time where the strategy wants it.
    """
    time = time and strategy in ("temporal", "joint", "timesformer")
    assert (block.time is not None) == time
    assert (block.spatial is not None) == (strategy in ("spatial", "temporal", "joint"))
    assert (block.joint is not None) == (strategy == "joint")
    parts: dict[str, Any] = {
        "spatial": _linears(block.spatial),
        "joint": _linears(block.joint),
        "scale": block.scale,
    }
    if block.time is not None:
        parts["table"] = None if block.time.bias is None else block.time.bias.table
        if strategy == "timesformer":
            copies, originals = (set(module.parameters()) for module in (block.time.block.module, block.block.module))
            assert copies and not copies & originals
            parts["own"] = weights(block.time.block.module, attention_alone=True)
            parts["linear"] = plain.affine(block.time.after)
        else:
            parts |= {"before": _linears(block.time.before), "after": _linears(block.time.after)}
    return plain.Added(**parts)


def _every_time() -> Tensor:
    return torch.ones(99, dtype=torch.float64)


def _kept(added: plain.Added, strategy: str, draw: Draw, clips: int) -> list[plain.Keep]:
    """Return what is kept of the branches of each clip, drawn in the order in which they are computed.

    A block that is frozen keeps its own branches, a finetuned one drops them. The first block keeps all.
    """
    finetuned = strategy in ("full", "timesformer")
    dropped = {"time": added.over_time, "space": finetuned, "mlp": finetuned, "joint": added.joint is not None}
    draws = {branch: draw() for branch, there in dropped.items() if there}
    return [plain.Keep(**{branch: float(kept[i]) for branch, kept in draws.items()}) for i in range(clips)]


def logits_vit_or_clip(adapted: VideoClassifier, x: Tensor, draw: Draw = _every_time) -> Tensor:
    """(B, T, 3, H, W) -> (B, classes); timm's ViT or open_clip's tower."""
    model, name = adapted.backbone.model, adapted.strategy.name
    embedding = None if adapted.body.temporal_embedding is None else adapted.body.temporal_embedding[0]
    if hasattr(model, "patch_embed"):
        weights, final = plain.of_vit, model.norm
        positions = model.pos_embed
        if model.dynamic_img_size:  # the library's own interpolation, which is in single precision
            grid = [side // model.patch_embed.patch_size[0] for side in x.shape[-2:]]
            positions = resample_abs_pos_embed(positions, new_size=grid, old_size=model.patch_embed.grid_size)
        tokens = [
            plain.embedded(clip, model.patch_embed.proj, model.cls_token[0, 0], positions[0], embedding) for clip in x
        ]
    else:
        weights, final = plain.of_clip, model.ln_post
        tokens = [
            plain.norm(
                plain.embedded(clip, model.conv1, model.class_embedding, model.positional_embedding, embedding),
                plain.affine(model.ln_pre),
            )
            for clip in x
        ]
    for index, block in enumerate(adapted.body.blocks):
        own, added = weights(block.block.module), _added(block, name, weights, time=True)
        kept = _kept(added, name, draw if index else _every_time, len(x))
        tokens = [plain.block(clip, own, added, keep) for clip, keep in zip(tokens, kept, strict=True)]
    head = plain.affine(adapted.head.linear)
    return torch.stack([plain.classified(clip, plain.affine(final), head) for clip in tokens])


def logits_swin(
    adapted: VideoClassifier, x: Tensor, draw: Draw = _every_time, windows: Sequence[Windows] = TINY_WINDOWS
) -> Tensor:
    """(B, T, 3, H, W) -> (B, classes); timm's Swin of two blocks a stage.

    Args:
        windows: of each stage. Its first block's are not shifted.
    """
    model, name = adapted.backbone.model, adapted.strategy.name
    embed = model.patch_embed
    tokens = [
        plain.norm(plain.tubelets(clip, embed.proj, adapted.body.tubelet), plain.affine(embed.norm)) for clip in x
    ]
    if adapted.body.temporal_embedding is not None:
        tokens = [clip + adapted.body.temporal_embedding[0][:, None, None] for clip in tokens]
    for index, block in enumerate(adapted.body.blocks):
        stage, unshifted = model.layers[index // 2], index % 2 == 0
        window, shift = windows[index // 2]
        if unshifted and index:
            merge, reduction = plain.affine(stage.downsample.norm), stage.downsample.reduction.weight
            tokens = [torch.stack([merged(frame, merge, reduction) for frame in clip]) for clip in tokens]
        module = stage.blocks[index % 2]
        own = plain.of_vit(module)
        added = _added(block, name, plain.of_vit, time=unshifted or name == "timesformer")
        after = []
        kept = _kept(added, name, draw if index else _every_time, len(x))
        for clip, keep in zip(tokens, kept, strict=True):
            if added.over_time:
                branch = plain.time_branch(clip.flatten(1, 2), own, added)
                clip = clip + keep.time * branch.view(clip.shape)
            attended = windowed(
                plain.norm(clip, own.norm1),
                own,
                module.attn.relative_position_bias_table,
                window,
                (0, 0) if unshifted else shift,
            )
            clip = clip + keep.space * plain.spatial_branch(attended, added)
            normed = plain.norm(clip, own.norm2)
            clip = clip + keep.mlp * plain.mlp(normed, own)
            if added.joint is not None:
                clip = clip + keep.joint * plain.joint_branch(normed, added)
            after.append(clip)
        tokens = after
    head, final = plain.affine(adapted.head.linear), plain.affine(model.norm)
    return torch.stack([plain.linear(plain.norm(clip, final).mean(dim=(0, 1, 2)), head) for clip in tokens])


def assert_alike(adapted: VideoClassifier, found: Tensor, expected: Tensor) -> None:
    """Logits within 1e-10 and the gradient of every trained parameter within 1e-8."""
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(4)).double()
    names, trained = zip(*adapted.trained(), strict=True)
    ours, theirs = (
        torch.autograd.grad((logits * weights).sum(), trained, allow_unused=True) for logits in (found, expected)
    )
    for name, our, their in zip(names, ours, theirs, strict=True):
        assert our is not None, name
        assert their is not None, name
        torch.testing.assert_close(our, their, atol=1e-8, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
