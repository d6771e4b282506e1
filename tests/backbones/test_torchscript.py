"""OpenAI's archives of CLIP: TorchScript, of which the tensors are read and no code is run."""

from __future__ import annotations

import copy
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, convert_weights_to_fp16
from torch import Tensor, nn

from backbones.clip import TINY
from backbones.families import build, resolve
from backbones.names import BackboneName, WeightsError
from backbones.torchscript import is_torchscript, read_torchscript
from tests.bench.command import Wording, quoting

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


def _openai(seed: int = 0) -> CLIP:
    """CLIP as OpenAI's archives hold it, with the tiny tower: QuickGELU, half precision, three numbers beside it."""
    torch.manual_seed(seed)
    vision = CLIPVisionCfg(
        layers=TINY["layers"], width=96, head_width=24, patch_size=TINY["patch_size"], image_size=TINY["image_size"]
    )
    text = CLIPTextCfg(context_length=6, vocab_size=50, width=16, heads=2, layers=1)
    model = CLIP(96, vision_cfg=vision, text_cfg=text, quick_gelu=True).eval()
    convert_weights_to_fp16(model)
    for name, value in (("input_resolution", 32), ("context_length", 6), ("vocab_size", 50)):
        model.__dict__.pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    return model


def _archive(model: CLIP, file: Path) -> None:
    """Saved as OpenAI did: traced, then in half precision."""
    whole = copy.deepcopy(model).float()
    with torch.no_grad():
        traced = torch.jit.trace_module(
            whole, {"encode_image": torch.randn(1, 3, 32, 32), "encode_text": torch.zeros(1, 6, dtype=torch.long)}
        )
    for name, parameter in traced.named_parameters():
        parameter.data = parameter.data.to(model.state_dict()[name].dtype)
    torch.jit.save(traced, file)


@pytest.fixture
def no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("TorchScript was loaded as code")

    monkeypatch.setattr(torch.jit, "load", refuse)
    monkeypatch.setattr(torch._C, "import_ir_module", refuse)


def test_an_archive_of_openais_gives_its_image_tower_with_its_activation(tmp_path: Path, no_code: None) -> None:
    model = _openai()
    _archive(model, tmp_path / "ViT.pt")
    assert is_torchscript(tmp_path / "ViT.pt")
    backbone = build(resolve(f"clip:tiny@{tmp_path / 'ViT.pt'}", "tiny")).eval()
    visual = copy.deepcopy(model).float().visual
    visual.proj = None
    frames = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone(frames), visual(frames), atol=1e-5, rtol=1e-4)
    assert {type(block.module.mlp.gelu).__name__ for block in backbone.blocks} == {"QuickGELU"}
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}


def test_every_tensor_of_the_archive_is_read_as_it_was_saved(tmp_path: Path, no_code: None) -> None:
    model = _openai()
    _archive(model, tmp_path / "ViT.pt")
    read, saved = read_torchscript(tmp_path / "ViT.pt"), model.state_dict()
    assert set(saved) <= set(read)
    for name, value in saved.items():
        assert read[name].dtype == value.dtype and torch.equal(read[name], value), name


class Tower(nn.Module):
    """Shares a tensor, has a view of another, numbers and lists among its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.input_resolution = 224
        self.sizes = [1, 2]
        self.names = {"a": 1.5}
        self.inner = nn.Linear(3, 4)
        self.shared = self.inner.weight
        self.register_buffer("view", torch.arange(12.0).view(3, 4).t()[1:])
        self.register_buffer("truth", torch.tensor([True, False]))
        self.register_buffer("brain", torch.randn(2).bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.sizes[0] + self.names["a"]


def test_a_scripted_module_of_another_kind_is_read_too(tmp_path: Path, no_code: None) -> None:
    tower = Tower()
    torch.jit.save(torch.jit.script(tower), tmp_path / "tower.pt")
    read = read_torchscript(tmp_path / "tower.pt")
    for name, value in tower.state_dict().items():
        assert torch.equal(read[name], value), name
    assert read["input_resolution"] == 224


def _zip(file: Path, pickled: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/constants.pkl", pickle.dumps(()))
        archive.writestr("archive/code/__torch__.py", "raise SystemExit")
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return file


def _calls(module: str, name: str, argument: str) -> bytes:
    """A pickle whose loading calls module.name(argument), by hand, so that the module need not be imported."""
    return (
        b"\x80\x02c"
        + f"{module}\n{name}\n".encode()
        + b"X"
        + len(argument).to_bytes(4, "little")
        + (argument.encode() + b"\x85R.")
    )


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.jit", "load"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("torch.jit._pickle", "restore_type_tag.__globals__"),
        ("torch.storage", "_load_from_bytes"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("backbones.torchscript", "read_torchscript"),
    ],
)
def test_an_archive_that_names_anything_else_is_refused_before_it_runs(
    tmp_path: Path, module: str, name: str, no_code: None, wording: Wording
) -> None:
    ran = tmp_path / "ran"
    file = _zip(tmp_path / "evil.pt", _calls(module, name, f"touch {ran}"))
    with pytest.raises(WeightsError, match=quoting("evil.pt")) as refused:
        build(BackboneName("clip", "tiny", str(file)))
    wording([refused.value])
    assert not ran.exists()


def test_the_hostile_archives_would_run_if_they_were_unpickled(tmp_path: Path) -> None:
    """Or the test above could not fail."""
    ran = tmp_path / "ran"
    file = _zip(tmp_path / "evil.pt", _calls("os", "system", f"touch {ran}"))
    with zipfile.ZipFile(file) as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert ran.exists()


def _tensor(count: int, size: str, key: str = "0") -> bytes:
    """A module with one tensor: storage `key` of `count` floats, of that size, contiguous, from the start."""
    return (
        b"\x80\x02c__torch__\nA\n)\x81}X\x01\x00\x00\x00w"
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00"
        + key.encode()
        + b"X\x03\x00\x00\x00cpuK"
        + bytes([count])
        + b"tQK\x00K"
        + bytes([int(size)])
        + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRsb."
    )


def test_the_tensor_of_the_next_test_can_be_read(tmp_path: Path) -> None:
    file = _zip(tmp_path / "t.pt", _tensor(2, "2"), **{"0": torch.tensor([1.5, 2.5]).numpy().tobytes()})
    assert read_torchscript(file)["w"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("pickled", "storages"),
    [
        (_tensor(2, "2"), {}),  # no such storage
        (_tensor(2, "9"), {"0": b"\0" * 8}),  # a tensor larger than its storage
        (_tensor(9, "2"), {"0": b"\0" * 8}),  # fewer numbers than announced
        (_tensor(2, "2"), {"0": b"\0" * 7}),  # not a whole number of numbers
        (_tensor(2, "2")[:40], {"0": b"\0" * 8}),  # cut
        (b"", {}),
        (b"garbage", {}),
        (pickle.dumps({"a": 1}), {}),  # no module
    ],
)
def test_a_damaged_archive_is_one_clear_line(tmp_path: Path, pickled: bytes, storages: dict[str, bytes]) -> None:
    file = _zip(tmp_path / "broken.pt", pickled, **storages)
    with pytest.raises(WeightsError, match=r"broken.pt: \w+") as caught:
        build(BackboneName("clip", "tiny", str(file)))
    assert "\n" not in str(caught.value)


def test_a_cut_archive_is_one_clear_line(tmp_path: Path) -> None:
    _archive(_openai(), tmp_path / "ViT.pt")
    content = (tmp_path / "ViT.pt").read_bytes()
    for share in (0.2, 0.9):
        (tmp_path / "cut.pt").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(WeightsError, match=r"cut.pt"):
            build(BackboneName("clip", "tiny", str(tmp_path / "cut.pt")))
