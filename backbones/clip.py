"""open_clip's image towers behind the Backbone contract."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from math import lcm
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import _build_vision_tower, resize_pos_embed
from open_clip.timm_model import TimmModel
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from backbones.base import Backbone, check_size, only_single, over_time
from backbones.clip_text import CLIPTextTower, why_no_text
from backbones.input_size import resize
from backbones.kernels.attention import among_frames, multi_head, projected
from backbones.kernels.mlp import quick_gelu_mlp
from backbones.kernels.norm import normed
from backbones.kernels.switch import is_plain_module
from backbones.names import BackboneName, UnsupportedModel, WeightsError
from backbones.projections import InProjection, Projection, Role, whole
from backbones.settings import Settings
from backbones.stored_weights import StoredWeights, converted, load, part, read
from backbones.timm_models import load_file, open_trunk
from backbones.weights import from_hub

# about 0.47 M parameters on 32x32 frames: 16 patches of 8x8 and CLS
TINY = {
    "image_size": 32,
    "patch_size": 8,
    "width": 96,
    "layers": 4,
    "heads": 4,
    "mlp_ratio": 4.0,
    "output_dim": 96,
}


class CLIPBlock:
    """open_clip's residual attention block: x + ls_1(attn(ln_1(x))), then x + ls_2(mlp(ln_2(x)))."""

    attends_time = True
    time_bias = False
    # what attention needs of the module
    parts: tuple[str, ...] = ("ln_1", "attn", "ls_1")

    def __init__(self, module: Any) -> None:
        self.module: Any = module
        self.heads: int = module.attn.num_heads
        self.width: int = module.ln_1.normalized_shape[0]
        self.in_projection = InProjection(module.attn) if isinstance(module.attn, nn.MultiheadAttention) else None

    def enter(self, x: Tensor) -> Tensor:
        return x

    def norm1(self, x: Tensor) -> Tensor:
        return normed(x, self.module.ln_1)

    # nn.MultiheadAttention computes differently in training, in evaluation and under autocast (its "fast path"); its
    # weights are used directly so that what is trained is what is evaluated and counted
    def _project(self, x: Tensor) -> Tensor:
        assert self.in_projection is not None
        return self.in_projection(x)

    def _out(self, attended: Tensor) -> Tensor:
        return self.module.ls_1(projected(attended, self.module.attn.out_proj))

    def attend(self, x: Tensor) -> Tensor:
        return self._out(multi_head(self._project(x), self.heads))

    def attend_time(self, x: Tensor, frames: int, bias: Tensor | None = None) -> Tensor:
        return self._out(among_frames(self._project(x), frames, self.heads, bias))

    def norm2(self, x: Tensor) -> Tensor:
        return normed(x, self.module.ln_2)

    def mlp(self, x: Tensor) -> Tensor:
        mlp = self.module.mlp
        return self.module.ls_2(quick_gelu_mlp(x, mlp.c_fc, mlp.c_proj) if _is_quick(mlp) else mlp(x))

    def linear(self, role: Role) -> Projection | None:
        attention, mlp = self.module.attn, self.module.mlp
        if role == "output":
            return whole(attention.out_proj)
        if role in ("up", "down"):
            return whole(mlp.c_fc if role == "up" else mlp.c_proj)
        if self.in_projection is None:  # open_clip's own attention uses the matrix, no module that could be updated
            return None
        width = attention.embed_dim
        start = ("query", "key", "value").index(role) * width
        rows = slice(start, start + width)
        return Projection(self.in_projection, attention, rows, "in_proj_weight", "in_proj_bias")

    def copy_attention(self) -> CLIPBlock:
        owner = nn.Module()
        for name in self.parts:
            owner.add_module(name, copy.deepcopy(getattr(self.module, name)))
        return type(self)(owner)


def _is_quick(mlp: Any) -> bool:
    """Test for an MLP of OpenAI's CLIP, none of its parts replaced by a strategy."""
    parts = dict(mlp.named_children())
    return (
        list(parts) == ["c_fc", "gelu", "c_proj"]
        and is_plain_module(mlp, nn.Sequential)
        and is_plain_module(parts["gelu"], QuickGELU)
        and is_plain_module(parts["c_fc"], nn.Linear)
        and is_plain_module(parts["c_proj"], nn.Linear)
    )


class CustomCLIPBlock(CLIPBlock):
    """open_clip's block with norms and scales inside the attention: x + ls_1(ln_attn(attn(ln_1(x)))), then the MLP."""

    parts = ("ln_1", "attn", "ln_attn", "ls_1")

    def attend(self, x: Tensor) -> Tensor:
        return self._attention(x)

    def attend_time(self, x: Tensor, frames: int, bias: Tensor | None = None) -> Tensor:
        return over_time(lambda grouped: self._attention(grouped, bias), x, frames)

    def _attention(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.module.ls_1(self.module.ln_attn(self.module.attn(x, attn_mask=bias)))


BLOCKS = {"ResidualAttentionBlock": CLIPBlock, "CustomResidualAttentionBlock": CustomCLIPBlock}


class CLIP(Backbone):
    """An open_clip VisionTransformer up to its last norm, without the projection into the space shared with text.

    Args:
        visual: open_clip's tower.
        label: its name, for messages.
        pretrained: tag of its weights.

    Raises:
        UnsupportedModel: a part of the tower does not fit the Block contract.
    """

    # the released CLIP's tokens lie as (N, B*T, D), and drop path draws along the first axis
    drop_axes = time_drop_axes = ("position",)

    def __init__(self, visual: VisionTransformer, label: str, pretrained: str) -> None:
        super().__init__()
        self.model: Any = visual
        _check_tower(visual, label)
        # AIM classifies ln_post's CLS token; a projection that nothing reads would be counted and never get a gradient
        self.projection = None if visual.proj is None else visual.proj.detach()  # not a part: of the head `text` alone
        visual.proj = None
        self.blocks = tuple(BLOCKS[type(block).__name__](block) for block in visual.transformer.resblocks)
        self.width = visual.ln_post.normalized_shape[0]
        self.input_size = min(visual.image_size)
        self.size_unit = lcm(*visual.patch_size)
        self.prefix_tokens, self.takes_tokens = 1, True
        self.mean, self.std = OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
        self.pretrained = pretrained

    def resize(self, size: int) -> None:
        _resize(self.model, size)
        self.input_size = size

    def tokens(self, frames: Tensor, tubelet: int = 1) -> Tensor:
        only_single(tubelet)
        check_size(frames, self.model.image_size)
        patches = self.model.conv1(frames).flatten(2).transpose(1, 2)
        cls = self.model.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return torch.cat([cls, patches], dim=1) + self.model.positional_embedding.to(patches.dtype)

    def settle(self, tokens: Tensor) -> Tensor:
        # patches are never dropped: a position must be there in every frame for attention over time
        return self.model.ln_pre(tokens)

    @property
    def grid(self) -> tuple[int, int]:
        rows, columns = self.model.grid_size
        return rows, columns

    @property
    def _norms_first(self) -> bool:
        """Test that the norm comes before the pooling, as in CLIP, and not behind it."""
        return self.model.attn_pool is None and not self.model.final_ln_after_pool

    def sequence(self, tokens: Tensor) -> Tensor:
        return self.model.ln_post(tokens) if self._norms_first else tokens

    def pool(self, sequence: Tensor) -> Tensor:
        return (self.model._global_pool if self._norms_first else self.model._pool)(sequence)[0]

    @property
    def final_norm(self) -> nn.Module:
        return self.model.ln_post

    def embeddings(self) -> Iterator[nn.Parameter]:
        yield self.model.class_embedding
        yield self.model.positional_embedding
        if self.model.attn_pool is not None:
            yield self.model.attn_pool.query


def _check_tower(visual: VisionTransformer, label: str) -> None:
    for block in visual.transformer.resblocks:
        if (kind := type(block).__name__) not in BLOCKS:
            raise UnsupportedModel(f"the image tower of {label} is built of {kind}, expected {' or '.join(BLOCKS)}")
        if getattr(block.attn, "logit_scale", None) is not None:
            raise UnsupportedModel(f"the image tower of {label} has cosine attention, which open_clip cannot run")
    if visual.pool_type == "none":
        # pooled twice ("parallel", "cascade"), which open_clip calls unfinished, or not at all
        raise UnsupportedModel(f"the image tower of {label} gives one vector a token: expected one that pools them")


def architectures() -> tuple[str, ...]:
    """open_clip's models by name, those whose image tower is a convolutional network included."""
    return tuple(open_clip.list_models())


def tags(model: str) -> tuple[str, ...]:
    """open_clip's pretrained tags of a model, OpenAI's first where there is one."""
    return tuple(sorted(open_clip.list_pretrained_tags_by_model(model), key=lambda tag: tag != "openai"))


def _tower(model: str, *, shallow: bool = False) -> Any:
    """The image tower alone of a named open_clip model, with random weights: text towers may ask a hub for more.

    Args:
        model: open_clip's name.
        shallow: of one block.
    """
    config = open_clip.get_model_config(model)
    vision = dict(config["vision_cfg"])
    if shallow and isinstance(vision.get("layers"), int):
        vision["layers"] = 1
    return _build_vision_tower(config["embed_dim"], vision, quick_gelu=config.get("quick_gelu", False))


def _create(name: BackboneName, size: int | None) -> tuple[Any, Settings]:
    """The image tower of a named open_clip model, at its own input size or `size`, and what its weights were trained
    with.

    Raises WeightsError.
    """
    if name.model != "tiny" and not name.random and name.file is None:
        # open_clip only warns where a tag was trained with QuickGELU and the model's configuration says GELU
        quick = bool(open_clip.get_pretrained_cfg(name.model, name.weights).get("quick_gelu", False))
        visual: Any = from_hub(
            name,
            lambda: open_clip.create_model(name.model, pretrained=name.weights, force_quick_gelu=quick).visual,
        )
        return _at_size(visual, size), Settings()
    visual = VisionTransformer(**TINY) if name.model == "tiny" else _tower(name.model)
    _at_size(visual, size)  # before a file is read, whose positions may have been made for this very size
    if (file := name.stored) is None:
        return visual, Settings()
    if isinstance(visual, TimmModel):
        return visual, load_file(visual.trunk, file)
    if not isinstance(visual, VisionTransformer):
        return visual, Settings()
    if file.suffix == ".npz":
        raise WeightsError(f"{file} is a .npz file, as Google releases ViTs: {name.architecture} is none of them")
    return visual, _load(visual, read(file))


def _at_size(visual: Any, size: int | None) -> Any:
    """The tower itself, which takes frames of `size` x `size` pixels from now on where that is not None."""
    if size is not None:
        if isinstance(visual, TimmModel):
            resize(visual.trunk, size)
        elif isinstance(visual, VisionTransformer):  # others are refused where they are opened
            _resize(visual, size)
    return visual


@torch.no_grad()
def _resize(visual: Any, size: int) -> None:
    """Interpolate a tower's positions for frames of `size` x `size` pixels."""
    visual.image_size = (size, size)
    visual.grid_size = tuple(size // side for side in visual.patch_size)
    positions = visual.positional_embedding
    state = _resized(visual, {"positional_embedding": positions.detach()})
    visual.positional_embedding = nn.Parameter(state["positional_embedding"], requires_grad=positions.requires_grad)


def _load(visual: VisionTransformer, checkpoint: StoredWeights) -> Settings:
    """Load a tower, which the file holds alone or as `visual.` beside the text's; open_clip interpolates positions."""
    visual.proj = None
    checkpoint.settings.check(CLIP(visual, "the model", ""), checkpoint.file)
    found = converted(part(checkpoint, "conv1.weight"), partial(_resized, visual))
    load(visual, found, ("proj",))
    if (projection := found.state.get("proj")) is not None:
        visual.proj = nn.Parameter(projection)
    return checkpoint.settings


def _resized(visual: VisionTransformer, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with its positions interpolated to the tower's grid, by open_clip's own filter."""
    key = "positional_embedding"
    if key not in state:
        return state
    whole = {f"visual.{key}": state[key]}
    resize_pos_embed(whole, SimpleNamespace(visual=visual))
    return {**state, key: whole[f"visual.{key}"]}


def _open(visual: Any, name: BackboneName) -> Backbone:
    if isinstance(visual, TimmModel):
        # the projection into the space shared with text; see CLIP
        visual.trunk.reset_classifier(0)
        return open_trunk(visual.trunk, f"the image tower of {name}", name.weights)
    if type(visual) is not VisionTransformer:
        raise UnsupportedModel(f"the image tower of {name} is a {type(visual).__name__}, expected a vision transformer")
    return CLIP(visual, str(name), name.weights)


def build(name: BackboneName, size: int | None = None) -> Backbone:
    """Build the named tower; those which are timm models inside (SigLIP, EVA) open as these.

    Args:
        name: in full.
        size: of the input, in pixels, where it is not the name's own.

    Raises UnsupportedModel and WeightsError.
    """
    visual, settings = _create(name, size)
    opened = _open(visual, name)
    reason = why_no_text(name)
    if reason is None and isinstance(opened, CLIP) and opened.projection is not None:
        opened.text = CLIPTextTower(opened.projection, name)
    else:
        opened.no_text = reason or "its features have no projection into the space shared with text"
    opened.mean, opened.std = _mean_std(visual, name)
    return settings.apply(opened)


def examine(name: BackboneName) -> Backbone:
    """Open the named tower with one block, as all are of one kind. Raises UnsupportedModel where it does not open."""
    return _open(_tower(name.model, shallow=True), name)


def _mean_std(visual: nn.Module, name: BackboneName) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Statistics of the pixels that the tower was pretrained on; those of the default tag where it names none."""
    config = getattr(visual, "preprocess_cfg", None)
    if not config:
        known = tags(name.model)
        config = open_clip.get_pretrained_cfg(name.model, known[0]) if known else {}
    return tuple(config.get("mean") or OPENAI_DATASET_MEAN), tuple(config.get("std") or OPENAI_DATASET_STD)
