"""Classifier of the names of classes: a CLIP's text tower writes its weights, once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backbones.base import TextModel, TextTower

# CLIP, data/prompts.md, of Kinetics-700
_PEOPLE = ("", " a person", *(f" a person {verb}" for verb in ("using", "doing", "during", "performing", "practicing")))
_KINETICS = tuple(
    f"a {medium} of{who} {{}}." for medium in ("photo", "video", "example", "demonstration") for who in _PEOPLE
)


def templates_of(text: str) -> tuple[str, ...]:
    """The prompts of the option `templates`, each with {} for the class."""
    if text == "kinetics":
        return _KINETICS
    if text == "openai":
        from open_clip import OPENAI_IMAGENET_TEMPLATES

        return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
    return tuple(text.split("|"))


def as_words(name: str) -> str:
    """A class's name in words where it is written as one: brush_hair, ApplyEyeMakeup; any other as it is."""
    if " " in name:
        return name
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("_", " ")).strip()
    return spaced.lower() if spaced != name else name


def class_vectors(text: TextModel, prompts: Sequence[Sequence[str]]) -> Tensor:
    """The zero-shot classifier (Radford et al., 2021, section 3.1.4): mean of a class's prompts, of length 1 again.

    Args:
        text: the loaded tower.
        prompts: of each class, as many of one as of another.

    Returns:
        (C, E).
    """
    vectors = text.encode([prompt for each in prompts for prompt in each])
    return F.normalize(vectors.unflatten(0, (len(prompts), -1)).mean(dim=1), dim=-1)


class TextClassifier(nn.Module):
    """Logits: cosine of a clip's vector with each class's, times CLIP's scale.

    The vector of a clip is the mean of its frames' unit vectors in the space shared with text. At the start the Linear
    holds the classes' unit vectors times the scale, so that its outputs are the zero-shot logits (Radford et al., 2021,
    section 3.1.2); it trains, and the image's projection stays frozen.

    Args:
        text: the text's side of the backbone.
        classes: C, their number.
        names: theirs, by label; empty builds the shapes alone, for counts and for weights from a file.
        options: of the head `text`.

    Attributes:
        templates, words: of the prompts; words are the names as the prompts have them.
    """

    def __init__(self, text: TextTower | None, classes: int, names: tuple[str, ...], options: Any) -> None:
        super().__init__()
        assert text is not None  # the head refuses such a backbone
        width, shared = text.projection.shape
        self.projection = nn.Linear(width, shared, bias=False)
        self.linear = nn.Linear(shared, classes, bias=False)
        with torch.no_grad():
            self.projection.weight.copy_(text.projection.T)
        self.templates: tuple[str, ...] = ()
        self.words: tuple[str, ...] = ()
        if not names:
            return
        self.templates = templates_of(options.templates)
        self.words = tuple(as_words(name) if options.words else name for name in names)
        prompts = [[template.format(word) for template in self.templates] for word in self.words]
        loaded = text.load()
        with torch.no_grad():
            self.linear.weight.copy_(loaded.scale * class_vectors(loaded, prompts))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, D) -> (B, classes)."""
        vectors = F.normalize(self.projection(frames), dim=-1)
        return self.linear(F.normalize(vectors.mean(dim=1), dim=-1))
