"""A trained model as it is deployed: merged files, and LoRA's update in peft's format, loaded by peft itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from backbones.weights import digest
from bench.errors import UserError
from bench.files import write_atomically
from bench.run.build import classifier, image_model
from bench.run.matrix import expand
from bench.run.model_files.adapter_file import AdapterFile, pack, write_merged
from bench.run.model_files.base import find
from bench.run.model_files.open import open_model_file
from bench.run.model_files.peft import export
from bench.spec import Matrix
from tests.bench.command import Command
from tests.models import CLASSES, FAMILIES, FRAMES, awaken, clips

NAMES = [f"class {index}" for index in range(CLASSES)]
ALL = "query,key,value,output,up,down"


def _trained(folder: Path, family: str, strategy: str, head: str = "linear", **options: Any) -> tuple[Any, AdapterFile]:
    """A model that has trained, and its adapter file."""
    matrix = Matrix(
        backbones=(f"{family}:tiny",),
        strategies=(strategy,),
        heads=(head,),
        options=options,
        frames=(FRAMES,),
        device="cpu",
    )
    (cell,) = expand(matrix).cells
    image = image_model(cell)
    hashed = digest(image)
    model = classifier(cell, NAMES, image).eval()
    awaken(model)
    content = pack(model, cell, NAMES, hashed)
    file = folder / f"{family}.safetensors"
    write_atomically(file, lambda path: path.write_bytes(content))
    found = open_model_file(file)
    assert isinstance(found, AdapterFile)
    return model, found


@pytest.mark.parametrize(
    ("family", "strategy", "options"),
    [("vit", "lora", {}), ("clip", "lora", {"projections": ALL}), ("clip", "zeroi2v", {}), ("swin", "joint", {})],
)
def test_a_merged_file_holds_the_whole_model_and_predicts_the_same(
    family: str, strategy: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model, file = _trained(tmp_path, family, strategy, **options)
    out = tmp_path / "merged.safetensors"
    notes = write_merged(file, out)
    assert bool(notes) == (strategy == "joint")
    again = open_model_file(out)
    opened, _ = again.build(FRAMES)
    with torch.no_grad():
        torch.testing.assert_close(opened(clips()), model(clips()), rtol=1e-4, atol=1e-4)
    stored = load_file(out)
    assert set(stored) == {name for name, _ in opened.named_parameters()}
    assert not any("updates" in name or "behind" in name for name in stored)
    assert sum(tensor.numel() for tensor in stored.values()) > sum(t.numel() for t in load_file(file.file).values())


def _peft(family: str, base: torch.nn.Module, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(folder)).eval()


def _library_model(family: str, model: Any) -> torch.nn.Module:
    """The library's own model with the image model's weights, and a classifier where it has a place for one."""
    import copy

    net = copy.deepcopy(model.backbone.model)
    for module in net.modules():
        module._forward_hooks.clear()  # our updates
    if family != "clip":
        net.reset_classifier(CLASSES)
    return net


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("projections", ["query,value", "key,down", ALL])
def test_peft_computes_what_the_model_does(family: str, projections: str, tmp_path: Path) -> None:
    model, file = _trained(tmp_path, family, "lora", rank=3, alpha=5.0, projections=projections)
    if family == "clip" and projections == ALL:
        with pytest.raises(UserError, match="output twice"):
            export(file, tmp_path / "folder")
        return
    notes = export(file, tmp_path / "folder")
    assert bool(notes) == (family == "clip")
    loaded = _peft(family, _library_model(family, model), tmp_path / "folder")
    x = clips()
    with torch.no_grad():
        found = loaded(x.flatten(0, 1))
        if family == "clip":
            found = model.head(found)
        torch.testing.assert_close(found.unflatten(0, x.shape[:2]).mean(1), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("projections", ["query,value", "query,key,up"])
def test_peft_s_folder_is_a_checkpoint_again(family: str, projections: str, tmp_path: Path) -> None:
    model, file = _trained(tmp_path, family, "lora", rank=2, projections=projections)
    export(file, tmp_path / "folder")
    opened, _ = open_model_file(find(str(tmp_path / "folder"))).build(FRAMES)
    for (name, given), (_, again) in zip(model.stored(), opened.stored(), strict=True):
        assert torch.equal(given, again), name


def test_an_update_that_mixes_projections_is_told(tmp_path: Path) -> None:
    """As a further training by peft makes it: its B is not ours in blocks any more."""
    _, file = _trained(tmp_path, "vit", "lora", rank=2)
    export(file, tmp_path / "folder")
    found = open_model_file(find(str(tmp_path / "folder")))
    assert isinstance(found, AdapterFile)
    tensors = {name: tensor.clone() for name, tensor in found.tensors.items()}
    next(tensor for name, tensor in tensors.items() if "lora_B" in name)[0, -1] = 1.0
    from safetensors import safe_open

    with safe_open(found.file, "pt") as opened:
        about = opened.metadata()
    save_file(tensors, tmp_path / "folder" / "adapter_model.safetensors", metadata=about)
    with pytest.raises(UserError) as error:
        open_model_file(find(str(tmp_path / "folder"))).build(FRAMES)
    assert "mixes projections" in error.value.problems[0]


def test_the_command_writes_each_and_refuses_what_cannot_be(bench: Command, tmp_path: Path) -> None:
    _, lora = _trained(tmp_path, "vit", "lora")
    _, joint = _trained(tmp_path, "clip", "joint")
    for arguments, out in (
        (("--merged",), tmp_path / "merged.safetensors"),
        (("--format", "peft"), tmp_path / "folder"),
    ):
        said = bench("export", lora.file, *arguments, "--out", out)
        assert (said.code, said.out.strip(), said.err) == (0, str(out), "")
    config = json.loads((tmp_path / "folder" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], set(config["rank_pattern"].values())) == ("LORA", 16, {32})
    before = sorted(tmp_path.iterdir())

    def refused(*arguments: object) -> list[str]:
        said = bench("export", *arguments)
        assert (said.code, said.out) == (2, "")
        return said.problems

    assert "peft's format has lora alone" in refused(joint.file, "--format", "peft", "--out", tmp_path / "a")[0]
    assert len(refused("nosuch/cell", "--format", "peft", "--merged", "--out", tmp_path / "a.pth")) == 3
    assert "expected a folder" in refused(lora.file, "--format", "peft", "--out", lora.file)[0]
    merged = tmp_path / "merged.safetensors"
    assert "folded" in refused(merged, "--format", "peft", "--out", tmp_path / "a")[0]
    assert sorted(tmp_path.iterdir()) == before


def test_a_table_tells_the_deployed_model_s_counts_and_the_file_s_size(bench: Command, tmp_path: Path) -> None:
    small = Path(__file__).parent / "plugins" / "small.py"
    asked = ("--dataset", "small", "--plugin", small, "--backbones", "vit:tiny", "--no-order-test", "--epochs", "1")
    said = bench("run", *asked, "--strategies", "frozen,zeroi2v", "--out", tmp_path / "run")
    assert said.code == 0, said.err
    table = pd.read_csv(tmp_path / "run" / "results.csv").set_index("strategy")
    assert list(table["status"]) == ["done", "done"]
    assert table["gmacs_view"]["zeroi2v"] == pytest.approx(table["gmacs_view"]["frozen"], rel=1e-6)
    assert table["params_m"]["zeroi2v"] > table["params_m"]["frozen"]
    for name, size in table["adapter_mb"].items():
        (file,) = (tmp_path / "run" / "cells").glob(f"*-{name}-*/adapter.safetensors")
        assert size == pytest.approx(file.stat().st_size / 1e6, rel=1e-5)
        said = bench("export", file, "--merged", "--out", tmp_path / "merged.safetensors")
        assert said.code == 0, said.err
        said = bench("eval", "--checkpoint", tmp_path / "merged.safetensors", *asked[:4], "--format", "json")
        assert said.code == 0, said.err
        assert json.loads(said.out)["top1"] == pytest.approx(table["top1"][name])
