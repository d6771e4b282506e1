"""AIM in batches, operation by operation as the released code computes it: what a faster step is compared with.

Tokens of CLIP travel as (N, B*T, D) and are rearranged, with copies, to (T, B*N, D) and back around attention over
time; norms run in float32 whatever the precision; Swin's windows are cut and put back by reshapes. Weights are read
from a `VideoClassifier`, so that both have the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapters.block import AdaptedBlock
from adapters.classifier import VideoClassifier


def norm(x: Tensor, of: nn.LayerNorm) -> Tensor:
    """In float32 at least, given back in the precision of `x`."""
    wide = x if x.dtype == torch.float64 else x.float()
    return F.layer_norm(wide, of.normalized_shape, of.weight, of.bias, of.eps).type(x.dtype)


def bottleneck(x: Tensor, of: nn.Module) -> Tensor:
    out = of.up(F.gelu(of.down(x)))
    return x + out if of.skip else out


class Rates(NamedTuple):
    """Of drop path: of the branches that were added, and of the image model's own."""

    added: float
    own: float


def rates(block: AdaptedBlock, training: bool) -> Rates:
    return Rates(block.drop_path.rate, block.own_drop_path.rate) if training else Rates(0.0, 0.0)


def dropped(x: Tensor, rate: float, frames: int, axis: int) -> Tensor:
    """Drop path: whole clips of the B*T frames along `axis`."""
    if rate == 0:
        return x
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    keep = x.new_empty(x.shape[axis] // frames).bernoulli_(1 - rate).repeat_interleave(frames)
    return x * keep.view(shape) / (1 - rate)


# --- CLIP: tokens lie as (N, B*T, D) ---


def clip_attention(x: Tensor, of: nn.Module) -> Tensor:
    """nn.MultiheadAttention of (length, groups, D) with itself."""
    attention = of.attn
    return F.multi_head_attention_forward(
        x, x, x, attention.embed_dim, attention.num_heads, attention.in_proj_weight, attention.in_proj_bias,
        None, None, False, 0.0, attention.out_proj.weight, attention.out_proj.bias, need_weights=False,
    )[0]  # fmt: skip


def clip_block(x: Tensor, of: AdaptedBlock, frames: int, rate: Rates) -> Tensor:
    image = of.block.module
    tokens, both, width = x.shape
    if of.time is not None:
        over = x.view(tokens, -1, frames, width).permute(2, 1, 0, 3).reshape(frames, -1, width)
        owner = image if of.time.copied is None else of.time.copied
        over = norm(over, owner.ln_1)
        if of.time.before is not None:
            over = bottleneck(over, of.time.before)
        over = clip_attention(over, owner)
        over = bottleneck(over, of.time.after) if of.time.copied is None else of.time.after(over)
        over = over.view(frames, -1, tokens, width).permute(2, 1, 0, 3).reshape(tokens, both, width)
        x = x + dropped(over, rate.added, frames, 1)
    attended = clip_attention(norm(x, image.ln_1), image)
    attended = attended if of.spatial is None else bottleneck(attended, of.spatial)
    x = x + dropped(attended, rate.own, frames, 1)
    normed = norm(x, image.ln_2)
    hidden = image.mlp.c_fc(normed)
    quick = type(image.mlp.gelu).__name__ == "QuickGELU"
    hidden = image.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden) if quick else F.gelu(hidden))
    out = x + dropped(hidden, rate.own, frames, 1)
    if of.joint is not None:
        out = out + dropped(of.scale * bottleneck(normed, of.joint), rate.added, frames, 1)
    return out


def clip_features(model: VideoClassifier, frames: Tensor, offset: Tensor | None) -> Tensor:
    tower = model.backbone.model
    patches = tower.conv1(frames)
    patches = patches.reshape(*patches.shape[:2], -1).permute(0, 2, 1)
    cls = tower.class_embedding.to(patches.dtype) + patches.new_zeros(len(patches), 1, patches.shape[-1])
    x = torch.cat([cls, patches], dim=1) + tower.positional_embedding.to(patches.dtype)
    x = norm(x if offset is None else x + offset[:, None], tower.ln_pre).permute(1, 0, 2)
    for block in model.body.blocks:
        x = clip_block(x, block, model.frames, rates(block, model.training))
    return norm(x.permute(1, 0, 2), tower.ln_post)[:, 0]


# --- ViT: tokens lie as (B*T, N, D) ---


def vit_attention(x: Tensor, of: nn.Module) -> Tensor:
    """(groups, length, D), the products written out."""
    groups, length, width = x.shape
    heads = of.attn.num_heads
    q, k, v = of.attn.qkv(x).reshape(groups, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    weights = ((q @ k.transpose(-2, -1)) * (width // heads) ** -0.5).softmax(dim=-1)
    return of.attn.proj((weights @ v).transpose(1, 2).reshape(groups, length, width))


def vit_block(x: Tensor, of: AdaptedBlock, frames: int, rate: Rates) -> Tensor:
    image = of.block.module
    both, tokens, width = x.shape
    if of.time is not None:
        over = x.view(-1, frames, tokens, width).permute(0, 2, 1, 3).reshape(-1, frames, width)
        owner = image if of.time.copied is None else of.time.copied
        over = norm(over, owner.norm1)
        if of.time.before is not None:
            over = bottleneck(over, of.time.before)
        over = vit_attention(over, owner)
        over = bottleneck(over, of.time.after) if of.time.copied is None else of.time.after(over)
        over = over.view(-1, tokens, frames, width).permute(0, 2, 1, 3).reshape(both, tokens, width)
        x = x + dropped(over, rate.added, frames, 0)
    attended = vit_attention(norm(x, image.norm1), image)
    attended = attended if of.spatial is None else bottleneck(attended, of.spatial)
    x = x + dropped(attended, rate.own, frames, 0)
    normed = norm(x, image.norm2)
    out = x + dropped(image.mlp.fc2(F.gelu(image.mlp.fc1(normed))), rate.own, frames, 0)
    if of.joint is not None:
        out = out + dropped(of.scale * bottleneck(normed, of.joint), rate.added, frames, 0)
    return out


def vit_features(model: VideoClassifier, frames: Tensor, offset: Tensor | None) -> Tensor:
    image = model.backbone.model
    patches = image.patch_embed.proj(frames).flatten(2).transpose(1, 2)
    x = torch.cat([image.cls_token.expand(len(patches), -1, -1), patches], dim=1) + image.pos_embed
    if offset is not None:
        x = x + offset[:, None]
    for block in model.body.blocks:
        x = vit_block(x, block, model.frames, rates(block, model.training))
    return norm(x, image.norm)[:, 0]


# --- Swin: tokens lie as (B*T, H, W, D) ---


def swin_attention(x: Tensor, of: nn.Module, bias: Tensor | None, mask: Tensor | None = None) -> Tensor:
    """(groups, length, D), the products written out; the bias (heads, length, length), a mask for every window."""
    groups, length, width = x.shape
    heads = of.attn.num_heads
    q, k, v = of.attn.qkv(x).reshape(groups, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    logits = (q * (width // heads) ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = (logits.view(-1, len(mask), heads, length, length) + mask[:, None]).view(-1, heads, length, length)
    return of.attn.proj((logits.softmax(dim=-1) @ v).transpose(1, 2).reshape(groups, length, width))


def in_windows(x: Tensor, of: nn.Module) -> Tensor:
    """(B*T, H, W, D) normed -> attention within the windows, shifted or not; H and W are multiples of a window's."""
    _, height, width, depth = x.shape
    (rows, columns), shift = of.window_size, of.shift_size
    if any(shift):
        x = torch.roll(x, (-shift[0], -shift[1]), (1, 2))
    cut = x.view(-1, height // rows, rows, width // columns, columns, depth).permute(0, 1, 3, 2, 4, 5)
    table, index = of.attn.relative_position_bias_table, of.attn.relative_position_index
    bias = table[index.view(-1)].view(rows * columns, rows * columns, -1).permute(2, 0, 1)
    attended = swin_attention(cut.reshape(-1, rows * columns, depth), of, bias, of.attn_mask)
    back = attended.view(-1, height // rows, width // columns, rows, columns, depth).permute(0, 1, 3, 2, 4, 5)
    back = back.reshape(-1, height, width, depth)
    return torch.roll(back, tuple(shift), (1, 2)) if any(shift) else back


def swin_block(x: Tensor, of: AdaptedBlock, steps: int, rate: Rates) -> Tensor:
    image = of.block.module
    if of.block.merge is not None:
        x = of.block.merge(x)
    _, height, width, depth = x.shape
    if of.time is not None:
        over = x.view(-1, steps, height * width, depth).permute(0, 2, 1, 3).reshape(-1, steps, depth)
        owner = image if of.time.copied is None else of.time.copied
        over = norm(over, owner.norm1)
        if of.time.before is not None:
            over = bottleneck(over, of.time.before)
        over = swin_attention(over, owner, of.time.bias.table[of.time.bias.index].permute(2, 0, 1))
        over = bottleneck(over, of.time.after) if of.time.copied is None else of.time.after(over)
        over = over.view(-1, height * width, steps, depth).permute(0, 2, 1, 3).reshape(x.shape)
        x = x + dropped(over, rate.added, steps, 0)
    attended = in_windows(norm(x, image.norm1), image)
    attended = attended if of.spatial is None else bottleneck(attended, of.spatial)
    x = x + dropped(attended, rate.own, steps, 0)
    normed = norm(x, image.norm2)
    out = x + dropped(image.mlp.fc2(F.gelu(image.mlp.fc1(normed))), rate.own, steps, 0)
    if of.joint is not None:
        out = out + dropped(of.scale * bottleneck(normed, of.joint), rate.added, steps, 0)
    return out


def swin_features(model: VideoClassifier, frames: Tensor, offset: Tensor | None) -> Tensor:
    image = model.backbone.model
    projection = image.patch_embed.proj
    if model.body.tubelet == 1:
        x = projection(frames).permute(0, 2, 3, 1)
    else:
        # the released video patch: a convolution over space and time
        weight = (projection.weight / model.body.tubelet)[:, :, None].repeat(1, 1, model.body.tubelet, 1, 1)
        clips = frames.unflatten(0, (-1, model.frames)).transpose(1, 2)
        x = F.conv3d(clips, weight, projection.bias, stride=(model.body.tubelet, *projection.stride))
        x = x.permute(0, 2, 3, 4, 1).flatten(0, 1)
    x = norm(x, image.patch_embed.norm)
    if offset is not None:
        x = x + offset[:, None, None]
    steps = model.frames // model.body.tubelet
    for block in model.body.blocks:
        x = swin_block(x, block, steps, rates(block, model.training))
    return norm(x, image.norm).mean(dim=(1, 2))


FEATURES = {"CLIP": clip_features, "ViT": vit_features, "Swin": swin_features}


def logits(model: VideoClassifier, clips: Tensor) -> Tensor:
    """(B, T, 3, H, W), normalised -> (B, classes), by the weights of the model and none of its code."""
    batch = len(clips)
    offset = None
    if model.body.temporal_embedding is not None:
        offset = model.body.temporal_embedding.expand(batch, -1, -1).flatten(0, 1)
    features = FEATURES[type(model.backbone).__name__](model, clips.flatten(0, 1), offset)
    mean = features.view(batch, -1, features.shape[-1]).mean(dim=1)
    return model.head.linear(F.dropout(mean, model.head.dropout.p, model.training))
