"""open_clip's text towers: from prompts to vectors of the space that a CLIP shares between pictures and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import open_clip
import torch
from torch import Tensor

from backbones.names import BackboneName, WeightsError
from backbones.stored_weights import converted, load, part, read
from backbones.weights import from_hub

# of clip:tiny, whose bundled weights are those of the image tower alone
TINY_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2}
_AT_ONCE = 256  # prompts


@dataclass(frozen=True)
class CLIPTextModel:
    """`backbones.base.TextModel` of open_clip.

    Attributes:
        model: the whole one, of which the text's part counts.
        tokenise: prompts -> (n, context) token numbers.
        scale: see `TextModel`.
    """

    model: Any
    tokenise: Callable[[list[str]], Tensor]
    scale: float

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        device = "cuda" if torch.cuda.is_initialized() else "cpu"  # not on one that this process does not use
        model = self.model.to(device).eval()
        parts = [list(prompts[start : start + _AT_ONCE]) for start in range(0, len(prompts), _AT_ONCE)]
        return torch.cat([model.encode_text(self.tokenise(some).to(device), normalize=True).cpu() for some in parts])


@dataclass(frozen=True)
class CLIPTextTower:
    """`backbones.base.TextTower` of open_clip; random weights follow from torch's seed.

    Attributes:
        projection: see `TextTower`.
        name: of the backbone.
    """

    projection: Tensor
    name: BackboneName

    def load(self) -> CLIPTextModel:
        name = self.name
        if name.random or name.file is not None:
            with torch.random.fork_rng(devices=[]):  # so that what is random elsewhere does not depend on it
                torch.default_generator.manual_seed(torch.initial_seed())
                model = _built(name)
        else:
            quick = bool(open_clip.get_pretrained_cfg(name.model, name.weights).get("quick_gelu", False))
            model = from_hub(
                name, lambda: open_clip.create_model(name.model, pretrained=name.weights, force_quick_gelu=quick)
            )
        length = model.context_length
        tiny = name.model == "tiny"
        tokenise = open_clip.SimpleTokenizer(context_length=length) if tiny else open_clip.get_tokenizer(name.model)
        return CLIPTextModel(model, tokenise, float(model.logit_scale.detach().exp()))


def why_no_text(name: BackboneName) -> str | None:
    """Return the reason why a named model's text tower cannot be had; None where it can, as far as the name tells."""
    if name.model == "tiny":
        bundled = not name.random and name.file is None
        return "its bundled weights are those of the image tower alone; with @none they are random" if bundled else None
    text = (open_clip.get_model_config(name.model) or {}).get("text_cfg", {})
    if "hf_model_name" in text or "hf_tokenizer_name" in text:
        return "its text tower or tokeniser is another library's, not open_clip's own"
    return None


def _config(name: BackboneName) -> dict[str, Any]:
    """open_clip's arguments of a whole model, its image tower of one block, as it is not used."""
    if name.model == "tiny":
        vision: dict[str, Any] = {"image_size": 32, "patch_size": 8, "width": 96, "head_width": 24, "layers": 1}
        return {"embed_dim": 96, "vision_cfg": vision, "text_cfg": dict(TINY_TEXT)}
    config = dict(open_clip.get_model_config(name.model) or {})
    vision = dict(config["vision_cfg"])
    return {**config, "vision_cfg": {**vision, "layers": 1} if isinstance(vision.get("layers"), int) else vision}


def _built(name: BackboneName) -> Any:
    """The whole model with random weights, or with the text's weights of a file. Raises WeightsError."""
    config = _config(name)
    custom = config.pop("custom_text", False)
    checkpoint = None if name.file is None else read(name.file)
    if checkpoint is not None and checkpoint.settings.activation == "quick_gelu":
        config["quick_gelu"] = True
    kind: Any = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = kind(**config)
    if checkpoint is None:
        return model
    marker = "text.token_embedding.weight" if custom or "multimodal_cfg" in config else "token_embedding.weight"
    if not any(key == marker or key.endswith(f".{marker}") for key in checkpoint.state):
        raise WeightsError(f"{name.file} holds no text tower by open_clip's names, which the head text needs")
    found = part(checkpoint, marker)
    own = model.state_dict()
    # the image tower's weights stay as they are: it is not used
    state = {key: value for key, value in own.items() if key.startswith(("visual.", "text_decoder."))}
    state |= {key: value for key, value in found.state.items() if not key.startswith(("visual.", "text_decoder."))}
    load(model, converted(replace(found, state=state), dict))
    return model
