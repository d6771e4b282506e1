"""AIM's training and testing on Kinetics-400, for the data sets of which that holds or is the nearest there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from backbones.names import BackboneName
from bench.data.catalog.annotated import AnnotatedDataset
from bench.data.catalog.published import PCA_NOISE, is_large
from bench.data.dataset import Sampling


class AsKinetics(AnnotatedDataset):
    """Dense clips over 128 frames of the video, of a Swin over 64."""

    frames = 8
    sampling: Sampling = "dense"
    clips = 3
    crops: Literal[1, 3] = 1

    def stride_for(self, backbone: BackboneName, frames: int) -> int:
        return max(1, 64 // frames) if backbone.family == "swin" else self.stride(frames)

    def frames_for(self, backbone: BackboneName) -> int:
        return 32 if backbone.family == "swin" else self.frames

    def views_for(self, backbone: BackboneName) -> tuple[int, Literal[1, 3]]:
        return (4, 3) if backbone.family == "swin" else (self.clips, self.crops)

    def recipe(self, backbone: BackboneName, strategy: str) -> Mapping[str, Any]:
        """AIM's, for every strategy; that of CLIP's ViT-L goes for other large models too."""
        if backbone.family == "swin":
            return {"lr": 1e-4, "head_lr": 1e-3}
        return {"lr": 3e-5, "pca_noise": PCA_NOISE} if is_large(backbone) else {}
