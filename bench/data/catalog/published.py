"""Common part of AIM's released configurations of several data sets (Yang et al., ICLR 2023, arXiv 2302.03024)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backbones.names import BackboneName

# AlexNet's lighting noise, all that is on of mmaction2's ColorJitter as the released configuration names it
PCA_NOISE = 0.1
# of the strategies that finetune, as TimeSformer's configurations (Bertasius et al., 2021)
FINETUNED: Mapping[str, Any] = {"drop_path": 0.1}
# where labels name directions: no flip, and stronger changes in its place
UNFLIPPED: Mapping[str, Any] = {"flip": False, "label_smoothing": 0.1, "rand_augment": (4, 7), "erase": 0.25}

_LARGE = re.compile(r"(?i)(^|[-_])(l|large|h|huge|g|giant|bigg|gigantic|so\d+m|e)(?=$|[-_\d])")


def is_large(backbone: BackboneName) -> bool:
    """Return whether a model is of the size of ViT-L or above, as its name says."""
    return _LARGE.search(backbone.model) is not None
