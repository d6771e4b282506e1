"""Recipe: optimiser, schedule, augmentation and sampling of a cell."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from bench.spec.fields import RECIPE, Flag, FrozenModel
from bench.spec.tuning import Search


class Recipe(FrozenModel):
    """Optimiser, schedule, augmentation and sampling of a cell. Defaults are AIM's on Kinetics-400 (released code)."""

    epochs: Annotated[int, Flag(RECIPE, help="Epochs; 0 trains nothing", default="")] = Field(30, ge=0)
    batch_size: Annotated[int, Flag(RECIPE, help="Clips a step", default="")] = Field(
        64, ge=1, description="clips a step; the learning rate is not scaled with it"
    )
    lr: Annotated[
        float,
        Flag(RECIPE, help="Peak learning rate, the same for every strategy; the head keeps its ratio", default=""),
        Search(factor=10),
    ] = Field(3e-4, gt=0, le=10, description="peak learning rate of everything but the head")
    head_lr: Annotated[float, Search(factor=10)] = Field(
        3e-4, gt=0, le=10, description="peak learning rate of the head"
    )
    time_lr: float | None = Field(
        None, gt=0, le=10, description="peak learning rate of the temporal embedding; as lr if not set"
    )
    time_init: float = Field(
        0.0,
        ge=0,
        le=10,
        description="start of the temporal embedding: sinusoids of this share of the tokens' root mean square; 0: zero",
    )
    weight_decay: Annotated[float, Search(factor=10)] = Field(
        0.05, ge=0, le=10, description="none on norms, CLS tokens, position embeddings"
    )
    betas: tuple[float, float] = Field((0.9, 0.999), description="of AdamW, each in 0..1")
    warmup_epochs: float = Field(2.5, ge=0)
    warmup_start: float = Field(
        0.1, gt=0, le=1, description="first learning rate of the linear warm-up / peak learning rate"
    )
    schedule: Literal["epoch", "step"] = Field("epoch", description="how often the cosine to 0 is stepped")
    drop_path: Annotated[float, Search(upto=2, most=0.6)] = Field(
        0.2, ge=0, lt=1, description="of the last block, linear from 0 at the first"
    )
    drop_path_mode: Literal["clip", "released"] = Field(
        "clip",
        description="what loses a branch at once: a clip; released: as in AIM's code, of CLIP a token position in the "
        "whole batch, of ViT a frame, of Swin a frame, over time a token position of a clip",
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="before the head")
    adapter_init: Literal["released", "torch"] = Field(
        "released",
        description="start of an adapter's first layer: normal, 0.02, no bias, as in AIM's code; torch: torch's own",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    crop_area: tuple[float, float] = Field((0.08, 1.0), description="range of the random crop's area / frame's area")
    flip: bool = Field(True, description="horizontal flips in training")
    colour: float = Field(
        0.0, ge=0, le=1, description="jitter of brightness, contrast, saturation; the hue's is a fifth"
    )
    pca_noise: float = Field(
        0.0, ge=0, le=10, description="AlexNet's lighting noise: standard deviation of the alphas, one draw a clip"
    )
    rand_augment: tuple[Annotated[int, Field(ge=1, le=20)], Annotated[int, Field(ge=0, le=30)]] | None = Field(
        None, description="operations a clip, their magnitude of 0 to 30; none if not set"
    )
    erase: float = Field(0.0, ge=0, le=1, description="share of clips of which a box is erased")
    mixup: float = Field(0.0, ge=0, le=10, description="alpha; 0: off. Beside cutmix, each batch gets one of the two")
    cutmix: float = Field(0.0, ge=0, le=10, description="alpha; 0: off")
    augment_on: Literal["cpu", "device"] = Field(
        "cpu",
        description="where colour, pca_noise, rand_augment and erase are computed: beside decoding, or on the device",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        values = value if isinstance(value, list | tuple) else (value,)
        if info.field_name != "flip" and any(isinstance(item, bool) for item in values):
            raise ValueError("expected no true or false")  # pydantic alone takes True for 1
        return value

    @model_validator(mode="after")
    def _ranges(self) -> Recipe:
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_area is {[low, high]}: expected 0 < low <= high <= 1")
        for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if alpha and self.batch_size == 1:
                raise ValueError(f"{name} is {alpha:g}: expected 0 beside a batch_size of 1, which has nothing to mix")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {list(self.betas)}: expected two numbers from 0 to below 1")
        return self

    def augmented(self) -> dict[str, Any]:
        """Return the values of all parts that draw a video's pixels anew in every epoch; none where nothing does."""
        off: dict[str, Any] = {
            "colour": 0.0,
            "pca_noise": 0.0,
            "rand_augment": None,
            "erase": 0.0,
            "mixup": 0.0,
            "cutmix": 0.0,
        }
        off |= {"flip": False, "crop_area": (1.0, 1.0)}
        return {name: getattr(self, name) for name, value in off.items() if getattr(self, name) != value}
