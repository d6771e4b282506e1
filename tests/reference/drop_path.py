"""Entries of a branch that share a draw of drop path, told entry by entry.

`released`: of AIM's code, whose ViTs call timm's DropPath, which draws along the first axis, on tokens that lie as
(N, B*T, D) in its CLIP and as (B*T, N, D) in its ViT; its Swin's branch over time lies as (B*N, T, D), the joint one as
(B*T, N, D).
"""

from __future__ import annotations


def draw_of(mode: str, family: str, branch: str, clip: int, frame: int, position: int) -> tuple[int, ...]:
    """The draw that an entry takes part in: entries with equal results are dropped or kept together.

    Args:
        mode: "clip" or "released".
        family: "clip", "vit" or "swin".
        branch: "time" or another one.
        clip, frame, position: of the entry.
    """
    if mode == "clip":
        return (clip,)
    if family == "clip":
        return (position,)
    if family == "swin" and branch == "time":
        return (clip, position)
    return (clip, frame)
