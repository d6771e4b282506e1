"""The grammar `family[:model][@weights]`, and what is said of a name that follows it and names nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backbones.families import FAMILIES, build, resolve
from backbones.names import BackboneName, BadBackboneName, is_file, split
from backbones.weight_files import find
from tests.bench.command import Wording, quoting


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("clip", ("clip", None, None)),
        (" clip ", ("clip", None, None)),
        ("clip:ViT-L-14@openai", ("clip", "ViT-L-14", "openai")),
        ("vit:vit_base_patch16_224.augreg_in21k", ("vit", "vit_base_patch16_224.augreg_in21k", None)),
        ("swin:m@/a/b:c@d.pt", ("swin", "m", "/a/b:c@d.pt")),
        ("swin@./w.pt", ("swin", None, "./w.pt")),
        ("vit:tiny@none", ("vit", "tiny", "none")),
    ],
)
def test_a_name_splits_into_its_parts(text: str, parts: tuple[str | None, ...]) -> None:
    assert split(text) == parts


@pytest.mark.parametrize("text", ["", ":", "@", "clip:", "clip@", "clip:@openai", ":tiny", "@none", "clip:tiny@"])
def test_a_name_that_lacks_a_part_it_announces_is_refused(text: str) -> None:
    with pytest.raises(BadBackboneName, match=quoting(f"backbone {text!r}", "clip:ViT-L-14@openai")):
        split(text)


@pytest.mark.parametrize(
    "weights",
    ["/w", "./w", "../w", "~/w", "w.safetensors", "w.pt", "w.pth", "a/w.bin", "w.npz", "mirror/clip", "clip/"],
)
def test_files_are_told_from_tags(weights: str) -> None:
    assert is_file(weights)
    assert BackboneName("vit", "m", weights).file == Path(weights).expanduser()


@pytest.mark.parametrize("weights", ["openai", "augreg_in21k", "none", "laion400m_e32"])
def test_tags_are_no_files(weights: str) -> None:
    assert not is_file(weights)
    assert BackboneName("vit", "m", weights).file is None
    assert BackboneName("vit", "m", weights).random == (weights == "none")


@pytest.mark.parametrize("family", FAMILIES.names())
def test_a_bare_family_is_tiny_where_the_data_are(family: str) -> None:
    weights = FAMILIES.get(family).tiny_weights
    assert resolve(family, "tiny") == resolve(f"{family}:tiny", "base") == BackboneName(family, "tiny", weights)
    assert resolve(f"{family}@none", "tiny") == BackboneName(family, "tiny", "none")


def test_a_file_of_weights_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    with pytest.raises(BadBackboneName, match=quoting(f"backbone 'vit:tiny@{file}'", file)):
        resolve(f"vit:tiny@{file}", "tiny")
    file.touch()
    assert resolve(f"vit:tiny@{file}", "tiny") == BackboneName("vit", "tiny", str(file))


@pytest.mark.parametrize(
    ("weights", "label"),
    [
        ("augreg_in21k", "augreg_in21k"),
        ("/w/mae.pth", "mae.pth"),
        ("/mirror/clip-vit-base-patch16/", "clip-vit-base-patch16"),
        ("/mirror/vit-base/model.safetensors", "vit-base/model.safetensors"),
        ("/mirror/vit-base/pytorch_model.bin", "vit-base/pytorch_model.bin"),
        ("model.safetensors", "model.safetensors"),
    ],
)
def test_tables_show_the_part_of_a_path_that_tells_the_weights(weights: str, label: str) -> None:
    assert BackboneName("vit", "m", weights).weights_label == label


# --- folders ---


@pytest.mark.parametrize(
    ("held", "read"),
    [
        (("model.safetensors", "pytorch_model.bin"), ("model.safetensors",)),
        (("model.safetensors.index.json", "a", "b", "pytorch_model.bin"), ("a", "b")),
        (("pytorch_model.bin", "other.pth"), ("pytorch_model.bin",)),
        (("pytorch_model.bin.index.json", "b", "a", "c"), ("a", "b")),
    ],
)
def test_a_folder_stands_for_the_files_that_hold_its_weights(
    tmp_path: Path, held: tuple[str, ...], read: tuple[str, ...]
) -> None:
    for name in held:
        (tmp_path / name).write_text(json.dumps({"weight_map": {"x": "b", "y": "a", "z": "b"}}))
    assert resolve(f"vit:tiny@{tmp_path}", "tiny").file == tmp_path
    assert find(tmp_path).all == tuple(tmp_path / name for name in read)


def test_settings_beside_weights_are_those_of_the_libraries_alone(tmp_path: Path) -> None:
    file, config, pixels = (tmp_path / name for name in ("w.pt", "config.json", "preprocessor_config.json"))
    file.touch()
    assert find(file).all == (file,)
    config.write_text('{"program": "another"}')
    assert find(file).all == (file,)
    for text in ('{"model_type": "vit"}', '{"pretrained_cfg": {}}', "broken"):
        config.write_text(text)
        assert find(file).all == (file, config)
    pixels.touch()
    (tmp_path / "processor_config.json").touch()
    assert find(file).all == (file, config, pixels)


@pytest.mark.parametrize(
    ("index", "values"),
    [
        (None, ("model.safetensors", "pytorch_model.bin")),
        ("{", ("model.safetensors.index.json", "JSON", "line 1")),
        ("[]", ("list", "JSON")),
        ("{}", ()),
        ('{"weight_map": ["a"]}', ()),
        ('{"weight_map": {"x": 1}}', ()),
        ('{"weight_map": {"x": "../w.safetensors"}}', ()),
        ('{"weight_map": {"x": "/w.safetensors"}}', ()),
        ('{"weight_map": {"x": "here", "y": "gone", "z": "lost"}}', ("gone, lost",)),
        ('{"weight_map": {"x": ".."}}', (": ..",)),
    ],
)
def test_a_folder_without_weights_is_refused_in_a_sentence(
    tmp_path: Path, index: str | None, values: tuple[str, ...], wording: Wording
) -> None:
    (tmp_path / "here").touch()
    (tmp_path.parent / "w.safetensors").touch()
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    if index is not None:
        (tmp_path / "model.safetensors.index.json").write_text(index)
    for weights in (tmp_path, f"{tmp_path}/"):
        with pytest.raises(BadBackboneName, match=quoting(tmp_path, *values)) as caught:
            resolve(f"vit:tiny@{weights}", "tiny")
        assert "\n" not in str(caught.value)
    wording([caught.value])


# --- with the libraries' own lists ---


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("vit", "vit:vit_base_patch16_224@augreg_in21k"),
        ("clip", "clip:ViT-B-16@openai"),
        ("swin", "swin:swin_base_patch4_window7_224@ms_in22k"),
        ("clip:ViT-L-14@openai", "clip:ViT-L-14@openai"),
        ("vit:vit_base_patch16_224.augreg_in21k", "vit:vit_base_patch16_224@augreg_in21k"),
        ("vit:vit_base_patch16_224@augreg_in21k", "vit:vit_base_patch16_224@augreg_in21k"),
        ("vit:vit_base_patch16_224@none", "vit:vit_base_patch16_224@none"),
    ],
)
def test_a_name_on_real_data(text: str, full: str) -> None:
    name = resolve(text, "base")
    assert str(name) == full
    assert resolve(full, "tiny") == name  # fully named, it means the same everywhere


def test_a_model_without_a_tag_has_the_librarys_default() -> None:
    for text in ("vit:vit_base_patch16_224", "clip:ViT-B-32", "swin:swin_tiny_patch4_window7_224"):
        name = resolve(text, "base")
        assert name.weights == FAMILIES.get(name.family).tags(name.model)[0]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("vitt", ("backbone", "'vitt'", "'vit'")),
        ("VIT", ("'VIT'", "'vit'")),
        ("clip:ViT-B-99", ("clip", "'ViT-B-99'", "'ViT-B-")),
        ("vit:vit_base_patch16_223", ("vit", "'vit_base_patch16_223'", "'vit_base_patch16_224'")),
        ("vit:swin_base_patch4_window7_224", ("vit", "'swin_base_patch4_window7_224'")),
        (
            "vit:vit_base_patch16_224@augreg_in21",
            ("'augreg_in21'", "'augreg_in21k'"),
        ),
        ("clip:ViT-B-16@opnai", ("'opnai'", "'openai'")),
        ("vit:vit_base_patch16_224.dino@mae", ("'dino'", "'mae'")),
        ("vit:tiny@openai", ("vit:tiny", "'openai'", "bundled, none")),
        ("vit:vit_base_patch16_224@/no/such.pt", ("/no/such.pt", "/no/such.pt")),
        (
            "clip:ViT-B-16@openai/clip-vit-base-patch16",
            ("openai/clip-vit-base-patch16", "openai/clip-vit-base-patch16"),
        ),
    ],
)
def test_a_name_that_names_nothing_comes_with_what_is_near(text: str, values: tuple[str, ...]) -> None:
    with pytest.raises(BadBackboneName, match=quoting(*values)):
        resolve(text, "base")


@pytest.mark.parametrize("family", ["vit", "clip", "swin"])
def test_weights_that_are_named_take_the_place_of_the_default_models_own(family: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.touch()
    assert resolve(f"{family}@none", "base").weights == "none"
    assert resolve(f"{family}@{file}", "base").weights == str(file)
    assert resolve(family, "base").weights not in ("none", str(file))


def test_a_tag_before_a_file_tells_how_pixels_are_normalised(tmp_path: Path) -> None:
    """MAE was pretrained on ImageNet's statistics, the default tag of that architecture on 0.5."""
    import timm
    import torch

    file = tmp_path / "mae.pth"
    torch.save(timm.create_model("vit_base_patch16_224", num_classes=0).state_dict(), file)
    name = resolve(f"vit:vit_base_patch16_224.mae@{file}", "base")
    assert str(name) == f"vit:vit_base_patch16_224.mae@{file}"
    assert resolve(str(name), "tiny") == name
    assert build(name).mean == (0.485, 0.456, 0.406)
    assert build(resolve(f"vit:vit_base_patch16_224@{file}", "base")).mean == (0.5, 0.5, 0.5)
    with pytest.raises(BadBackboneName, match=quoting("'mea'", "'mae'")):
        resolve(f"vit:vit_base_patch16_224.mea@{file}", "base")
    family = FAMILIES.get("vit")
    assert family.moved(resolve("vit:vit_base_patch16_224.mae", "base"), str(file)) == name
    assert family.moved(name, "other.pth").model == "vit_base_patch16_224.mae"
    assert family.moved(BackboneName("vit", "tiny", "bundled"), "w.pt") == BackboneName("vit", "tiny", "w.pt")


def test_weights_of_a_user_that_does_not_exist_are_a_missing_file() -> None:
    with pytest.raises(BadBackboneName, match=quoting("'vit:tiny@~nosuchuserhere/x.pt'")):
        resolve("vit:tiny@~nosuchuserhere/x.pt", "tiny")
    with pytest.raises(BadBackboneName, match="vit:tiny@/xxx"):
        resolve(f"vit:tiny@/{'x' * 5000}.pt", "tiny")


def test_a_broken_entry_point_of_another_package_hides_no_other_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    import backbones.registry as registry

    broken = EntryPoint("theirs", "no_such_module_of_theirs:thing", "some.group")
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    names = registry.Registry[str]("thing", "some.group")
    names.add("ours", "entry")
    assert names.names() == ("ours",)
    with pytest.raises(registry.UnknownName, match=quoting("'theirs'", "no_such_module_of_theirs")):
        names.get("theirs")
