"""The layouts in which weights are published and saved, each made here from a model and read back into another."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor, nn

from backbones.base import Backbone
from backbones.families import build, resolve
from backbones.names import BackboneName, WeightsError
from backbones.stored_weights import StoredWeights
from backbones.timm_models import load_file, load_weights
from backbones.vit import TINY
from backbones.weights import digest
from tests.architectures import BUILDERS, opened, randomised
from tests.bench.command import quotes, quoting
from tests.models import FAMILIES, backbone

State = dict[str, Tensor]


def _prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def _other(state: State) -> State:
    return {name: torch.full_like(value, 7) for name, value in state.items()}


# what a training, a library or a paper's authors save around the same weights
LAYOUTS: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {}}},
    "MAE's": lambda s: {"model": s, "args": argparse.Namespace(lr=0.1), "scaler": None},
    "the averaged weights": lambda s: {"state_dict": _other(s), "state_dict_ema": s},
    "a teacher's": lambda s: {
        "student": _prefixed("module.", _other(s)),
        "teacher": {**_prefixed("backbone.", s), "head.mlp.0.weight": torch.zeros(3)},
    },
    "of several processes": lambda s: {"model": _prefixed("module.", s)},
    "compiled, of several processes": lambda s: _prefixed("module._orig_mod.", s),
    "compiled": lambda s: _prefixed("_orig_mod.", s),
    "momentum contrast": lambda s: {
        "state_dict": {
            **_prefixed("module.base_encoder.", s),
            **_prefixed("module.momentum_encoder.", _other(s)),
            "module.predictor.0.weight": torch.zeros(3),
        }
    },
    "with a text tower": lambda s: {
        **_prefixed("visual.", s),
        "visual.head.proj.weight": torch.zeros(3, 3),
        "logit_scale": torch.zeros(()),
        "text.transformer.resblocks.0.ln_1.weight": torch.zeros(3),
    },
    "two levels": lambda s: {"state": 1, "model": {"state_dict": s}},
}
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def _saved(content: Any, file: Path) -> Path:
    torch.save(content, file)
    return file


def _tiny(family: str, file: Path) -> Backbone:
    return build(resolve(f"{family}:tiny@{file}", "tiny"))


@pytest.mark.parametrize("family", FAMILIES)
@each_layout
def test_every_layout_gives_the_model_it_was_made_from(tmp_path: Path, family: str, layout: str) -> None:
    source = backbone(family, seed=3)
    content = LAYOUTS[layout](source.model.state_dict())
    if family == "clip" and layout == "with a text tower":
        del content["visual.head.proj.weight"]  # it has visual.proj
        content["visual.proj"] = torch.zeros(96, 96)
        # a text transformer has the same names, one level up
        content["transformer.resblocks.0.ln_1.weight"] = content["positional_embedding"] = torch.zeros(3)
    assert digest(_tiny(family, _saved(content, tmp_path / "w.pt"))) == digest(source)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_loaded_as_single(tmp_path: Path, family: str, precision: torch.dtype) -> None:
    source = backbone(family, seed=3)
    state = {name: value.to(precision).contiguous() for name, value in source.model.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    loaded = _tiny(family, tmp_path / "w.safetensors")
    for name, parameter in loaded.model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, state[name].float())


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    state = backbone("vit").model.state_dict()
    state["norm.bias"] = torch.zeros(96, dtype=torch.int8)
    with pytest.raises(WeightsError, match=quoting("misshapen", "norm.bias (96,)", "int8", "(96,)")):
        _tiny("vit", _saved(state, tmp_path / "w.pt"))


def test_the_decoder_of_masked_pretraining_is_passed_over(tmp_path: Path) -> None:
    source = backbone("vit", seed=3)
    more = {"mask_token": torch.zeros(1, 1, 96), "decoder_blocks.0.norm1.weight": torch.zeros(5)}
    file = _saved({"model": {**source.model.state_dict(), **more}}, tmp_path / "mae.pth")
    assert digest(_tiny("vit", file)) == digest(source)


def test_of_two_models_in_a_file_none_is_guessed(tmp_path: Path) -> None:
    state = backbone("vit").model.state_dict()
    file = _saved({**_prefixed("first.", state), **_prefixed("second.", state)}, tmp_path / "two.pt")
    with pytest.raises(WeightsError, match=quoting("two.pt", "first., second")):
        _tiny("vit", file)


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ([1, 2], ("list",)),
        ({"epoch": 3}, ("epoch",)),
        ({"state_dict": {}}, ("missing: cls_token, pos_embed",)),
        (torch.zeros(3), ("Tensor",)),
    ],
    ids=str,
)
def test_files_without_a_model_are_a_clear_line(tmp_path: Path, content: Any, values: tuple[str, ...]) -> None:
    with pytest.raises(WeightsError, match=quoting("w.pt", *values)):
        _tiny("vit", _saved(content, tmp_path / "w.pt"))


def test_blocks_that_the_model_lacks_are_named(tmp_path: Path) -> None:
    for family, extra in (("swin", "layers.1.blocks.7.attn.relative_position_bias_table"), ("clip", "transformer.x")):
        state = {**backbone(family).model.state_dict(), extra: torch.zeros(49, 4)}
        with pytest.raises(WeightsError, match=f"surplus: {extra}"):
            _tiny(family, _saved(state, tmp_path / f"{family}.pt"))


# --- sizes ---


def _vit(side: int) -> nn.Module:
    torch.manual_seed(side)
    return timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, img_size=side, patch_size=8, embed_dim=96, depth=4, num_heads=4
    )


def _bicubic(grid: Tensor, side: int) -> Tensor:
    """(H, W, D) -> (side, side, D), smaller: Keys' cubic (a = -0.5) widened to the step, row by row, then column."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x < 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    def weights(old: int) -> Tensor:
        step = old / side
        rows = []
        for at in range(side):
            centre = (at + 0.5) * step
            row = torch.tensor([kernel((j + 0.5 - centre) / step) for j in range(old)], dtype=torch.float64)
            rows.append(row / row.sum())
        return torch.stack(rows)

    tall, wide = weights(grid.shape[0]), weights(grid.shape[1])
    return torch.einsum("ih,jw,hwd->ijd", tall, wide, grid.double()).float()


@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
@pytest.mark.parametrize("family", ["vit", "clip"])
def test_positions_of_larger_frames_are_interpolated(tmp_path: Path, family: str, precision: torch.dtype) -> None:
    """From 8x8 patches and CLS to the tiny models' 4x4 patches and CLS."""
    source = backbone(family, seed=3)
    state, key = source.model.state_dict(), "pos_embed" if family == "vit" else "positional_embedding"
    large = torch.randn(65, 96, generator=torch.Generator().manual_seed(1)).to(precision)
    state[key] = large[None] if family == "vit" else large
    large = large.float()
    found = _tiny(family, _saved(state, tmp_path / "w.pt")).model.state_dict()[key].reshape(17, 96)
    assert torch.equal(found[0], large[0])
    torch.testing.assert_close(found[1:].view(4, 4, 96), _bicubic(large[1:].view(8, 8, 96), 4), atol=1e-5, rtol=1e-4)
    assert digest(_tiny(family, _saved({**source.model.state_dict()}, tmp_path / "same.pt"))) == digest(source)


def test_positions_are_interpolated_as_timm_does(tmp_path: Path) -> None:
    source, target = _vit(32), _vit(48)
    load_file(target, _saved(source.state_dict(), tmp_path / "w.pt"))
    expected = resample_abs_pos_embed(source.pos_embed.detach(), new_size=(6, 6), num_prefix_tokens=1)
    torch.testing.assert_close(target.pos_embed.detach(), expected)
    assert torch.equal(target.blocks[3].mlp.fc2.weight, source.blocks[3].mlp.fc2.weight)


def test_tables_of_another_window_are_interpolated(tmp_path: Path) -> None:
    state = backbone("swin", seed=3).model.state_dict()
    name = "layers.1.blocks.1.attn.relative_position_bias_table"
    state[name] = torch.randn(13 * 13, 4, generator=torch.Generator().manual_seed(1))
    found = _tiny("swin", _saved(state, tmp_path / "w.pt")).model.state_dict()[name]
    expected = resize_rel_pos_bias_table(state[name], new_window_size=(4, 4), new_bias_shape=(49, 4))
    torch.testing.assert_close(found, expected)
    assert found.shape == (49, 4)


# --- other people's names ---


def _openai_names(model: nn.Module) -> State:
    """A timm ViT's weights as OpenAI's CLIP has them."""
    found: State = {}
    for name, value in model.state_dict().items():
        for ours, theirs in (
            ("patch_embed.proj", "conv1"),
            ("norm_pre", "ln_pre"),
            ("blocks.", "transformer.resblocks."),
            ("norm1", "ln_1"),
            ("norm2", "ln_2"),
            ("attn.qkv.", "attn.in_proj_"),
            ("attn.proj", "attn.out_proj"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ):
            name = name.replace(ours, theirs)
        name = {"norm.weight": "ln_post.weight", "norm.bias": "ln_post.bias"}.get(name, name)
        name = {"pos_embed": "positional_embedding", "cls_token": "class_embedding"}.get(name, name)
        found[name] = value[0, 0] if name == "class_embedding" else value[0] if name.startswith("posit") else value
    return found


@pytest.mark.parametrize("prefix", ["", "visual.", "_orig_mod.visual."])
def test_timms_clip_takes_openais_names(tmp_path: Path, prefix: str) -> None:
    source, target = (randomised(BUILDERS["timm's CLIP"](), seed) for seed in (1, 2))
    state = {**_prefixed(prefix, _openai_names(source)), f"{prefix}proj": torch.zeros(48, 40)}
    load_file(target, _saved(state, tmp_path / "w.pt"))
    assert digest(target) == digest(source)


def test_openais_weights_get_the_activation_they_were_trained_with(tmp_path: Path) -> None:
    numbers = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    quick = randomised(BUILDERS["timm's CLIP"]()).eval()
    file = _saved({**_prefixed("visual.", _openai_names(quick)), **numbers}, tmp_path / "w.pt")
    plain = timm.create_model(
        "vit_base_patch16_clip_224", num_classes=0, img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3
    )
    found = load_file(plain, file).apply(opened(plain))
    frames = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(found(frames), quick(frames), atol=1e-5, rtol=1e-5)
    assert found.notes == ()


@pytest.mark.parametrize(("numbers", "activation"), [(3, "QuickGELU"), (2, "GELU"), (0, "GELU")])
def test_openais_numbers_beside_the_weights_tell_the_activation(tmp_path: Path, numbers: int, activation: str) -> None:
    source = backbone("clip", seed=3)
    state: dict[str, Any] = _prefixed("visual.", source.model.state_dict())
    for name in ("input_resolution", "context_length", "vocab_size")[:numbers]:
        state[name] = 32  # as numbers, or as tensors in TorchScript archives
    found = _tiny("clip", _saved(state, tmp_path / "w.pt"))
    assert digest(found) == digest(source)
    assert type(found.blocks[0].module.mlp.gelu).__name__ == activation


def test_a_trunk_in_an_open_clip_checkpoint_opens(tmp_path: Path) -> None:
    source, target = (randomised(BUILDERS["attention pooling"](), seed) for seed in (1, 2))
    state = {**_prefixed("visual.trunk.", source.state_dict()), "logit_bias": torch.zeros(1), "text.x": torch.zeros(2)}
    load_file(target, _saved({"state_dict": _prefixed("module.", state)}, tmp_path / "w.pt"))
    assert digest(target) == digest(source)


def test_dino_with_registers_takes_metas_names(tmp_path: Path) -> None:
    """Meta's position embedding has a place for CLS, which timm adds to the token itself."""
    source, target = (randomised(BUILDERS["registers and layer scale"](), seed) for seed in (1, 2))
    state = source.state_dict()
    place = torch.randn(1, 1, 48)
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([place, state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - place
    state["mask_token"] = torch.zeros(1, 48)
    load_file(target, _saved(state, tmp_path / "w.pth"))
    for name, value in source.state_dict().items():
        torch.testing.assert_close(target.state_dict()[name], value)


OF_OPEN_CLIP = ("mean-pooled CLIP", "CoCa", "custom CLIP blocks", "patch dropout")


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind not in OF_OPEN_CLIP])
def test_every_kind_of_timm_model_reads_what_it_saved(kind: str) -> None:
    source, target = (randomised(BUILDERS[kind](), seed) for seed in (1, 2))
    assert digest(source) != digest(target)
    load_weights(target, StoredWeights(Path("w.pt"), _prefixed("backbone.", source.state_dict())))
    assert digest(source) == digest(target)


# --- Google's .npz ---


def _google(model: nn.Module, heads: int) -> dict[str, np.ndarray]:
    """A timm ViT's weights as the ViT paper's authors release them."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    width = state["norm.weight"].shape[0]
    found = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": np.zeros((width, 5), np.float32),
        "head/bias": np.zeros(5, np.float32),
    }
    for index in range(len(model.blocks)):
        ours, theirs = f"blocks.{index}.", f"Transformer/encoderblock_{index}/"
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        for norm, place in (("norm1", 0), ("norm2", 2)):
            found[f"{theirs}LayerNorm_{place}/scale"] = state[f"{ours}{norm}.weight"]
            found[f"{theirs}LayerNorm_{place}/bias"] = state[f"{ours}{norm}.bias"]
        for place, name in enumerate(("query", "key", "value")):
            rows = slice(place * width, (place + 1) * width)
            found[f"{attention}{name}/kernel"] = state[f"{ours}attn.qkv.weight"][rows].T.reshape(width, heads, -1)
            found[f"{attention}{name}/bias"] = state[f"{ours}attn.qkv.bias"][rows].reshape(heads, -1)
        found[f"{attention}out/kernel"] = state[f"{ours}attn.proj.weight"].T.reshape(heads, -1, width)
        found[f"{attention}out/bias"] = state[f"{ours}attn.proj.bias"]
        for place in (0, 1):
            found[f"{theirs}MlpBlock_3/Dense_{place}/kernel"] = state[f"{ours}mlp.fc{place + 1}.weight"].T
            found[f"{theirs}MlpBlock_3/Dense_{place}/bias"] = state[f"{ours}mlp.fc{place + 1}.bias"]
    return found


def test_googles_npz_gives_the_model_it_was_made_from(tmp_path: Path) -> None:
    source = randomised(_vit(32))
    np.savez(tmp_path / "w.npz", **_google(source, heads=4))
    loaded = _tiny("vit", tmp_path / "w.npz").eval()
    frames = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(frames), source.eval()(frames))
    assert digest(loaded.model) == digest(source)


def test_googles_npz_of_larger_frames_is_interpolated(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **_google(source := randomised(_vit(64)), heads=4))
    found = _tiny("vit", tmp_path / "w.npz").model.pos_embed.detach()
    assert torch.equal(found[:, 0], source.pos_embed[:, 0])
    # timm interpolates these linearly, as Google's own code does; halving a grid averages the middle of each square
    squares = source.pos_embed.detach()[0, 1:].view(4, 2, 4, 2, 96).mean((1, 3))
    torch.testing.assert_close(found[0, 1:].view(4, 4, 96), squares)


class _Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


def test_what_is_no_such_npz_is_a_clear_line_and_runs_nothing(tmp_path: Path) -> None:
    weights = _google(_vit(32), heads=4)
    (tmp_path / "text.npz").write_text("no weights")
    np.savez(tmp_path / "strange.npz", a=np.zeros(3))
    np.savez(tmp_path / "deep.npz", **weights, **{"Transformer/encoderblock_4/LayerNorm_0/scale": np.ones(96)})
    np.savez(tmp_path / "narrow.npz", **{**weights, "cls": np.zeros((1, 1, 5), np.float32)})
    lacking = {name: value for name, value in weights.items() if "encoderblock_3/MlpBlock_3/Dense_1" not in name}
    np.savez(tmp_path / "lacking.npz", **lacking)
    np.savez(tmp_path / "evil.npz", **{**weights, "cls": np.array([_Evil(tmp_path / "ran")], dtype=object)})
    np.savez(tmp_path / "evil2.npz", **weights, more=np.array([_Evil(tmp_path / "ran")], dtype=object))
    np.savez(tmp_path / "evil3.npz", **{"encoderblock/LayerNorm_0/scale": np.array([_Evil(tmp_path / "ran")], object)})
    np.savez(tmp_path / "nan.npz", **{**weights, "cls": np.full((1, 1, 96), np.nan, np.float32)})
    with (tmp_path / "one.npz").open("wb") as stream:
        np.save(stream, np.zeros(3))
    for file in sorted(tmp_path.glob("*.npz")):
        if file.name == "evil2.npz":  # what nobody asks for is never read
            _tiny("vit", file)
            continue
        with pytest.raises(WeightsError, match=quoting(file)) as caught:
            _tiny("vit", file)
        assert "\n" not in str(caught.value)
        if file.name == "deep.npz":
            assert quotes(caught.value, "5 blocks", 4)
    assert not (tmp_path / "ran").exists()


def test_what_an_npz_lacks_stays_not_random(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **_google(_vit(32), heads=4))
    target = timm.create_model("vit_tiny_patch16_224", num_classes=0, init_values=0.1, **TINY)
    with pytest.raises(WeightsError, match=quoting("blocks.0.ls1.gamma, blocks.0.ls2.gamma")):
        load_file(target, tmp_path / "w.npz")


@pytest.mark.parametrize("name", ["swin:tiny", "clip:tiny", "vit:eva02_tiny_patch14_224"])
def test_npz_files_are_for_vits_alone(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "w.npz", **_google(_vit(32), heads=4))
    family, model = name.split(":")
    with pytest.raises(WeightsError, match=quoting("w.npz", "Google")):
        build(BackboneName(family, model, str(tmp_path / "w.npz")))
