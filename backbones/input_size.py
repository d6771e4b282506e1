"""Another input size than a timm model's own.

Position embeddings are interpolated by timm's own filter; rotary tables, grids and the masks of shifted windows are
made anew. A Swin keeps its windows, and with them its tables of position biases: a larger frame has more windows.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2


@torch.no_grad()
def resize(model: Any, size: int) -> None:
    """Make a built model of timm's take frames of `size` x `size` pixels, a multiple of its `Backbone.size_unit`."""
    if not isinstance(model, SwinTransformer | SwinTransformerV2):
        model.set_input_size(img_size=(size, size))
        return
    # their own method would enlarge the windows with the frame
    model.patch_embed.set_input_size(img_size=(size, size))
    grid = model.patch_embed.grid_size
    for index, stage in enumerate(model.layers):
        before = 2 ** max(index - 1, 0)  # a stage is told the grid before its merging
        stage.set_input_size(tuple(side // before for side in grid), stage.blocks[0].attn.window_size)
