"""The grammar that names a backbone: `family[:model][@weights]`.

`weights` is a tag of the family's library, a file, a folder (as a mirror of the Hugging Face hub has it), `bundled`
(the tiny models' own, part of this package), `none` (random, only when asked for) or nothing (the default tag).
A timm tag may also follow the model after a dot, as timm itself writes it; before a file it says whose pixel statistics
the file's weights share (`vit:vit_base_patch16_224.mae@mae.pth`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

BUNDLED = "bundled"
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".npz")
# how the names of the files begin in which models lie on the Hugging Face hub
HUB_NAMES = ("model.safetensors", "pytorch_model.bin")


class UnsupportedModel(ValueError):
    """A model that exists but does not fit the Backbone contract; the message says which part."""


class BadInputSize(UnsupportedModel):
    """An input size that a model does not take; the message names the nearest that it does."""


class WeightsError(Exception):
    """Weights that cannot be had: an unreachable hub, a missing or unfitting file."""


class BadBackboneName(ValueError):
    """A backbone's name that does not follow the grammar or names nothing."""


@dataclass(frozen=True, slots=True)
class BackboneName:
    """A backbone, fully named: nothing is left to a default.

    Attributes:
        family: "vit", "clip", "swin" or another registered one.
        model: the library's name of the architecture, or "tiny"; for weights in a file it may have a tag after a dot.
        weights: a tag, the path of a file or folder, "bundled" or "none".
    """

    family: str
    model: str
    weights: str

    @property
    def random(self) -> bool:
        return self.weights == "none"

    @property
    def file(self) -> Path | None:
        """The weights' file, or the folder that holds it, where they are one."""
        return Path(os.path.expanduser(self.weights)) if is_file(self.weights) else None

    @property
    def stored(self) -> Path | None:
        """The file or folder that holds the weights: the user's, or the one of that family in this package."""
        if self.weights == BUNDLED:
            return Path(__file__).parent / "bundled" / f"{self.family}_tiny.safetensors"
        return self.file

    @property
    def architecture(self) -> str:
        """`family:model`, without the weights."""
        return f"{self.family}:{self.model}"

    @property
    def weights_label(self) -> str:
        """The weights as tables show them: a tag, or a file's name without its folders.

        A name that every model on the hub has tells nothing: the folder's name comes before it.
        """
        if (file := self.file) is None:
            return self.weights
        return f"{file.parent.name}/{file.name}" if file.name.startswith(HUB_NAMES) and file.parent.name else file.name

    def __str__(self) -> str:
        return f"{self.architecture}@{self.weights}"


def is_file(weights: str) -> bool:
    """Return whether the text after `@` means a file or folder rather than a tag."""
    return "/" in weights or weights.startswith("~") or weights.endswith(WEIGHT_SUFFIXES)


def split(text: str) -> tuple[str, str | None, str | None]:
    """Family, model and weights as written; what is not written is None. Raises BadBackboneName."""
    name, at, weights = text.strip().partition("@")
    family, colon, model = name.partition(":")
    if not family or (colon and not model) or (at and not weights):
        raise BadBackboneName(
            f"backbone {text!r} does not follow family[:model][@weights], such as clip, vit:tiny@none "
            "or clip:ViT-L-14@openai"
        )
    return family, model or None, weights or None
