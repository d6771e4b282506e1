"""Models that transformers saves, opened here: its features to 1e-5, its settings, and mistakes told in a sentence."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backbones import timm_models
from backbones.base import Backbone
from backbones.families import build, resolve
from backbones.names import BackboneName, BadBackboneName, WeightsError
from backbones.weights import digest
from tests.architectures import randomised
from tests.bench.command import quoting
from tests.hub_models import FRAMES, KINDS, VIT


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Tensor]]:
    """A function that saves a kind of model, every weight random, and gives the folder and the model's own features."""
    import transformers

    transformers.logging.disable_progress_bar()
    place = tmp_path_factory.mktemp("hub")

    @cache
    def save(kind: str, as_computed: bool = False, **how: Any) -> tuple[Path, Tensor]:
        asked = KINDS[kind]
        cls = getattr(transformers, asked.model)
        torch.manual_seed(0)
        model = randomised(cls(cls.config_class(**asked.config))).eval()
        folder = place / f"{kind}-{as_computed}-{len(how)}"
        model.save_pretrained(folder, save_original_format=not as_computed, **how)
        with torch.no_grad():
            return folder, asked.features(model)

    return save


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], Backbone]:
    """A function that builds the backbone of a kind by its name, with the weights of a file or folder."""

    def build_it(kind: str, weights: Path) -> Backbone:
        asked = KINDS[kind]
        if asked.built is not None:
            monkeypatch.setitem(timm_models.TINY, asked.name.partition(":")[0], asked.built)
        return build(resolve(f"{asked.name}@{weights}", "tiny")).eval()

    return build_it


@pytest.fixture
def copied(saved: Any, tmp_path: Path) -> Callable[..., Path]:
    """A function that saves a kind of model into a folder of the test's own; its config.json is changed by keywords."""

    def copy(kind: str, **config: Any) -> Path:
        folder = shutil.copytree(saved(kind)[0], tmp_path / "model", dirs_exist_ok=True)
        told = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps({name: value for name, value in told.items() if value != ""}))
        return folder

    return copy


def _changed(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    file = folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in change(load_file(file)).items()}, file)
    return folder


def _close(backbone: Backbone, features: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(backbone(FRAMES), features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_transformers(kind: str, saved: Any, opened: Any) -> None:
    folder, features = saved(kind)
    _close(opened(kind, folder), features)


@pytest.mark.parametrize("kind", ["ViT", "MAE", "DINOv2, gated", "DINOv2 with registers", "Swin"])
def test_names_since_version_5_are_the_same_model(kind: str, saved: Any, opened: Any) -> None:
    folder, features = saved(kind, as_computed=True)
    assert load_file(folder / "model.safetensors").keys() != load_file(saved(kind)[0] / "model.safetensors").keys()
    _close(opened(kind, folder), features)


@pytest.mark.parametrize("kind", ["CLIP with GELU", "SigLIP, image tower"])
def test_image_towers_have_their_name_before_their_parts_on_the_hub(kind: str, saved: Any, copied: Any, opened: Any):
    ids = {"embeddings.position_ids": torch.arange(17)[None]}  # which older files have too
    folder = _changed(copied(kind), lambda state: {f"vision_model.{name}": v for name, v in (state | ids).items()})
    _close(opened(kind, folder), saved(kind)[1])


def test_parts_and_pickles_are_the_same_model(saved: Any, copied: Any, opened: Any) -> None:
    whole, features = saved("CLIP")
    parts, _ = saved("CLIP", max_shard_size="500KB")
    assert (parts / "model.safetensors.index.json").is_file() and not (parts / "model.safetensors").exists()
    expected = digest(opened("CLIP", whole))
    assert digest(opened("CLIP", parts)) == digest(opened("CLIP", parts / "model.safetensors.index.json")) == expected
    folder = copied("CLIP")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    _close(opened("CLIP", folder), features)
    _close(opened("CLIP", folder / "pytorch_model.bin"), features)
    names = sorted(state)
    (folder / "pytorch_model.bin").unlink()
    held = {"a.bin": names[::2], "b.bin": names[1::2]}
    for file, some in held.items():
        torch.save({name: state[name] for name in some}, folder / file)
    index = {"weight_map": {name: file for file, some in held.items() for name in some}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert digest(opened("CLIP", folder)) == expected


def test_of_two_files_the_one_without_pickles_is_read(saved: Any, copied: Any, opened: Any) -> None:
    folder = copied("ViT")
    torch.save({"anything": torch.zeros(2)}, folder / "pytorch_model.bin")
    _close(opened("ViT", folder), saved("ViT")[1])


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_is_loaded_as_single(precision: torch.dtype, copied: Any, opened: Any) -> None:
    folder = _changed(copied("DINOv2"), lambda state: {name: value.to(precision) for name, value in state.items()})
    found = opened("DINOv2", folder).model.state_dict()
    lowered = load_file(folder / "model.safetensors")
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert torch.equal(found["norm.weight"], lowered["layernorm.weight"].float())
    key = lowered["encoder.layer.1.attention.attention.key.bias"]
    assert torch.equal(found["blocks.1.attn.qkv.bias"][96:192], key.float())


# --- settings ---


def _activation(backbone: Backbone) -> str:
    mlp = backbone.blocks[-1].module.mlp
    found = mlp.gelu if hasattr(mlp, "gelu") else mlp.act
    return f"{type(found).__name__} {getattr(found, 'approximate', '')}".strip()


@pytest.mark.parametrize(
    ("kind", "told", "computed"),
    [
        ("CLIP with GELU", "", "QuickGELU"),
        ("CLIP with GELU", "quick_gelu", "QuickGELU"),
        ("SigLIP, image tower", "", "GELU tanh"),
        ("SigLIP, image tower", "gelu", "GELU none"),
        ("ViT", "", "GELU none"),
        ("ViT", "gelu_fast", "GELU tanh"),
        ("Swin", "quick_gelu", "QuickGELU"),
    ],
)
def test_config_tells_the_activation(kind: str, told: str, computed: str, copied: Any, opened: Any) -> None:
    """A silent one means transformers' own default."""
    assert _activation(opened(kind, copied(kind, hidden_act=told))) == computed


def test_an_activation_of_the_file_goes_before_that_of_the_name(copied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    small = {"layers": 4, "width": 96, "head_width": 24, "image_size": 32, "patch_size": 8}
    config = {"embed_dim": 96, "vision_cfg": small, "quick_gelu": True}
    monkeypatch.setattr(open_clip, "get_model_config", lambda model: config)
    name = BackboneName("clip", "ViT-B-16-quickgelu", str(copied("CLIP with GELU")))
    assert _activation(build(name)) == "GELU none"


@pytest.mark.parametrize(
    ("kind", "computed", "notes"),
    [("CLIP with GELU", "QuickGELU", 1), ("SigLIP, image tower", "GELU tanh", 1), ("ViT", "GELU none", 0)],
)
def test_without_a_config_the_likely_activation_is_taken_and_told(
    kind: str, computed: str, notes: int, copied: Any, opened: Any
) -> None:
    folder = copied(kind)
    (folder / "config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}))
    found = opened(kind, folder)
    assert _activation(found) == computed
    assert len(found.notes) == notes


def test_gated_mlps_keep_their_activation(copied: Any, opened: Any) -> None:
    """config.json says gelu of them, which they do not compute in transformers either."""
    assert _activation(opened("DINOv2, gated", copied("DINOv2, gated", hidden_act="gelu"))) == "SiLU"


_STATISTICS = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}


@pytest.mark.parametrize("kind", ["ViT", "CLIP", "SigLIP", "Swin"])
@pytest.mark.parametrize(
    ("file", "content", "normalises"),
    [
        ("preprocessor_config.json", _STATISTICS, True),
        ("processor_config.json", {"image_processor": _STATISTICS}, True),
        ("preprocessor_config.json", {**_STATISTICS, "do_normalize": False}, False),
    ],
)
def test_pixels_are_normalised_as_the_file_beside_the_weights_says(
    kind: str, file: str, content: Any, normalises: bool, copied: Any, opened: Any
) -> None:
    folder = copied(kind)
    (folder / file).write_text(json.dumps(content))
    expected = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)) if normalises else ((0, 0, 0), (1, 1, 1))
    for weights in (folder, folder / "model.safetensors"):
        found = opened(kind, weights)
        assert (found.mean, found.std) == expected and found.notes == ()


def test_pixels_are_normalised_for_the_architecture_where_no_file_says_how_and_that_is_told(
    copied: Any, opened: Any
) -> None:
    folder = copied("ViT")
    for content in (None, {}, {"image_mean": [0.1, 0.2, 0.3]}, {"image_std": [0.1, 0.2, 0.3]}):
        if content is not None:
            (folder / "preprocessor_config.json").write_text(json.dumps(content))
        found = opened("ViT", folder)
        assert (found.mean, found.std, len(found.notes)) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1)


def test_a_tag_that_the_user_names_goes_before_the_file(copied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(timm_models.TINY, "vit", ("vit_base_patch16_224", VIT))
    create = timm_models.timm.create_model
    monkeypatch.setattr(timm_models.timm, "create_model", lambda name, **more: create(name, **VIT, **more))
    folder = copied("ViT")
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}))
    plain, tagged = (resolve(f"vit:vit_base_patch16_224{tag}@{folder}", "base") for tag in ("", ".mae"))
    assert build(plain).mean == (0.1, 0.1, 0.1)
    found = build(tagged)
    assert (found.mean, found.notes) == ((0.485, 0.456, 0.406), ())
    (folder / "preprocessor_config.json").unlink()
    assert build(tagged).notes == ()


def test_timms_own_config_tells_how_pixels_are_normalised(tmp_path: Path, opened: Any) -> None:
    source = build(resolve("vit:tiny@none", "tiny"))
    save_file(
        {name: value.contiguous() for name, value in source.model.state_dict().items()}, tmp_path / "model.safetensors"
    )
    for config, mean in (
        ({"architecture": "vit", "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}, (0.1, 0.1, 0.1)),
        ({"pretrained_cfg": {}}, (0.5, 0.5, 0.5)),
        ({"model_type": "vit"}, (0.5, 0.5, 0.5)),
        ({"of": "another program"}, (0.5, 0.5, 0.5)),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = opened("ViT", tmp_path)
        assert (found.mean, digest(found), found.notes) == (mean, digest(source), ())
    (tmp_path / "config.json").write_text("broken")
    assert digest(opened("ViT", tmp_path)) == digest(source)


# --- what is wrong ---


@pytest.mark.parametrize(
    ("kind", "config", "values"),
    [
        ("ViT", {"num_hidden_layers": 12}, ("12 blocks", 96, "4 heads", "4 blocks", 96, "4 heads")),
        ("ViT", {"num_attention_heads": 8}, ("4 blocks", 96, "8 heads", "4 blocks", 96, "4 heads")),
        ("CLIP with GELU", {"hidden_size": 768}, ("4 blocks", 768, "4 blocks", 96)),
        ("Swin", {"depths": [2, 6]}, ("2 blocks", 64, "2 heads", "6 blocks", 128)),
        ("Swin", {"depths": [2]}, ("config.json", "swin")),
        ("ViT", {"num_hidden_layers": "many"}, ("config.json", "vit")),
        ("ViT", {"num_hidden_layers": 10**15}, (f"{10**15} blocks",)),
        ("ViT", {"layer_norm_eps": 10**400}, ("config.json", "vit")),
        ("ViT", {"hidden_act": "relu"}, ("hidden_act 'relu'", "gelu, gelu_pytorch_tanh, quick_gelu")),
        ("ViT", {"hidden_act": ["gelu"]}, ("hidden_act ['gelu']",)),
        ("ViT", {"model_type": "bert"}, ("model_type 'bert'", "vit, deit, vit_mae, vit_msn")),
        ("ViT", {"model_type": "beit"}, ("model_type 'beit'",)),
        ("ViT", {"model_type": "clip"}, ("model_type 'clip'", "vit")),
        ("ViT", {"model_type": ["vit"]}, ("model_type ['vit']",)),
        ("CLIP", {"vision_config": None}, ("vision_config None",)),
    ],
)
def test_a_config_that_contradicts_the_name_is_told_in_a_sentence(
    kind: str, config: dict[str, Any], values: tuple[str | int, ...], copied: Any, opened: Any
) -> None:
    folder = copied(kind, **config)
    with pytest.raises(WeightsError, match=quoting(folder, *values)) as caught:
        opened(kind, folder)
    assert "\n" not in str(caught.value)


def test_patches_of_another_size_are_not_resampled(copied: Any, opened: Any) -> None:
    marker = "embeddings.patch_embeddings.projection.weight"
    folder = _changed(copied("ViT"), lambda state: state | {marker: torch.zeros(96, 3, 16, 16)})
    for _ in range(2):
        with pytest.raises(WeightsError, match=quoting(16, 8)):
            opened("ViT", folder)
        (folder / "config.json").unlink(missing_ok=True)


def test_weights_of_a_language_model_are_called_so(tmp_path: Path, opened: Any) -> None:
    save_file({"bert.embeddings.word_embeddings.weight": torch.zeros(5, 3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for kind in ("ViT", "CLIP", "Swin"):
        with pytest.raises(WeightsError, match=quoting("bert", "config.json", "clip")):
            opened(kind, tmp_path)


@pytest.mark.parametrize(
    ("kind", "lost", "says"),
    [
        ("ViT", "encoder.layer.2.attention.attention.key.weight", None),
        ("CLIP with GELU", "encoder.layers.0.self_attn.v_proj.bias", None),
        ("Swin", "encoder.layers.1.blocks.1.attention.self.query.weight", None),
        ("ViT", "layernorm.weight", "missing: norm.weight"),
        ("ViT", "embeddings.position_embeddings", "missing: pos_embed"),
        ("DINOv2 with registers", "dinov2_with_registers.embeddings.cls_token", "missing: cls_token"),
        ("DINOv2", "encoder.layer.3.layer_scale1.lambda1", "missing: blocks.3.ls1.gamma"),
        ("SigLIP", "vision_model.head.attention.in_proj_bias", "missing: attn_pool.q.bias, attn_pool.kv.bias"),
        ("SigLIP", "vision_model.embeddings.position_embedding.weight", "missing: pos_embed"),
        ("Swin", "encoder.layers.0.blocks.1.attention.self.relative_position_bias_table", "missing: .*bias_table"),
    ],
)
def test_missing_tensors_are_named(kind: str, lost: str, says: str | None, copied: Any, opened: Any) -> None:
    folder = _changed(copied(kind), lambda state: {name: v for name, v in state.items() if name != lost})
    assert len(load_file(folder / "model.safetensors"))
    with pytest.raises(WeightsError, match=says or f"missing: {re.escape(lost)}"):
        opened(kind, folder)


@pytest.mark.parametrize(
    ("kind", "more", "named"),
    [
        ("ViT", "head.weight", None),  # timm's own name of what a file may hold beside the model
        ("ViT", "decoded.weight", None),
        ("ViT", "encoder.layer.4.layernorm_before.weight", "blocks.4.norm1.weight"),
        ("ViT", "encoder.layer.0.layernorm_before.running_mean", None),
        ("ViT", "layers.0.blocks.0.norm1.weight", None),
        ("CLIP", "vision_model.stranger", None),
        ("CLIP", "second.logit_bias", None),
        ("Swin", "embeddings.position_embeddings", "pos_embed"),
        ("Swin", "encoder.layers.0.norm1.weight", None),
        # a second name of one that is there; the later in the file is told
        ("ViT", "encoder.layer.0.mlp.fc1.weight", None),
        ("ViT", "encoder.layer.0.attention.q_proj.weight", None),
        ("DINOv2, gated", "encoder.layer.0.mlp.fc1.weight", "encoder.layer.0.mlp.weights_in.weight"),
        ("DINOv2, gated", "encoder.layer.0.mlp.up_proj.weight", "encoder.layer.0.mlp.weights_in.weight"),
    ],
)
def test_surplus_tensors_are_named(kind: str, more: str, named: str | None, copied: Any, opened: Any) -> None:
    folder = _changed(copied(kind), lambda state: state | {more: torch.ones(96)})
    with pytest.raises(WeightsError, match=f"surplus: {re.escape(named or more)}"):
        opened(kind, folder)


def test_tensors_of_another_shape_are_named(copied: Any, opened: Any) -> None:
    key = "encoder.layer.0.attention.attention.key.weight"
    patches = "embeddings.patch_embeddings.projection.weight"
    for bad in (torch.zeros(()), torch.zeros(96, 192)):
        folder = _changed(copied("ViT"), lambda state, bad=bad: state | {patches: bad})
        with pytest.raises(WeightsError, match=f"surplus: .*{re.escape(patches)}"):
            opened("ViT", folder)
    for bad, says in (
        (torch.zeros(96, 5), "Sizes of tensors must match"),
        (torch.zeros(5, 96), "misshapen: blocks.0.attn.qkv.weight"),
    ):
        folder = _changed(copied("ViT"), lambda state, bad=bad: state | {key: bad})
        with pytest.raises(WeightsError, match=says):
            opened("ViT", folder)


def test_of_two_image_models_none_is_guessed(copied: Any, opened: Any) -> None:
    folder = _changed(copied("ViT"), lambda s: {f"{p}.{name}": v.clone() for p in ("a", "b") for name, v in s.items()})
    with pytest.raises(WeightsError, match=quoting("a., b")):
        opened("ViT", folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["{", "[1, 2]", "\xff", "[" * 100_000])
def test_broken_settings_are_a_clear_line(name: str, content: str, copied: Any, opened: Any) -> None:
    folder = copied("ViT")
    (folder / name).write_text(content, encoding="latin-1")
    with pytest.raises(WeightsError, match=quoting(f"model/{name}", "list" if content == "[1, 2]" else "JSON")):
        opened("ViT", folder)


@pytest.mark.parametrize(
    "content",
    [
        {"image_mean": [0.1, 0.2], "image_std": [1, 1, 1]},
        {"image_mean": [0.5] * 3, "image_std": [0, 1, 1]},
        {"image_mean": "0.5", "image_std": [1, 1, 1]},
        {"image_mean": [float("nan")] * 3, "image_std": [1, 1, 1]},
        {"image_mean": [10**400] * 3, "image_std": [1, 1, 1]},
    ],
)
def test_statistics_that_are_no_numbers_are_a_clear_line(content: Any, copied: Any, opened: Any) -> None:
    folder = copied("ViT")
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    wrong = "image_std" if 0 in content["image_std"] else "image_mean"
    with pytest.raises(WeightsError, match=quoting("model/preprocessor_config.json", wrong)):
        opened("ViT", folder)


def test_a_folder_in_the_hubs_cache_opens(saved: Any, copied: Any, tmp_path: Path, opened: Any) -> None:
    """Its files are links to blobs whose names say nothing."""
    folder = copied("CLIP")
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(tmp_path / f"blob{number}")
        (snapshot / file.name).symlink_to(tmp_path / f"blob{number}")
    for weights in (snapshot, snapshot / "model.safetensors"):
        _close(opened("CLIP", weights), saved("CLIP")[1])


def test_a_folder_is_looked_into_as_its_name_is_read(tmp_path: Path) -> None:
    with pytest.raises(BadBackboneName, match=quoting(tmp_path, "model.safetensors")):
        resolve(f"vit:tiny@{tmp_path}", "tiny")
