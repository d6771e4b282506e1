"""Files of models that somebody made up to do harm: one sentence at once, no memory filled, nothing run."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adapters.base import STRATEGIES
from backbones import stored_weights
from backbones.families import build
from backbones.names import BackboneName, WeightsError
from bench.errors import UserError
from bench.run.matrix import expand
from bench.run.model_files.open import open_model_file
from bench.spec import Matrix
from tests.adapters import released as official
from tests.bench.command import Wording, quotes, quoting
from tests.bench.test_checkpoint import JOINT

ABOUT = {
    "version": 1,
    "backbone": "vit:tiny",
    "weights": "none",
    "weights_sha256": "0",
    "strategy": "joint",
    "options": {"scale": 0.5},
    "frames": 3,
    "classes": [f"class {index}" for index in range(10)],
    "dataset": "motion",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}


def _nested(depth: int) -> Any:
    """A list in a list, `depth` times."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _doubled(times: int) -> Any:
    """2 ** times texts, of a few bytes in a file: every list holds the one before it twice."""
    value: Any = "x"
    for _ in range(times):
        value = [value, value]
    return value


def _told(file: Path) -> str:
    with pytest.raises(UserError) as refused:
        open_model_file(file)
    (sentence,) = refused.value.problems
    assert len(sentence) <= 2000 and sentence.isprintable()
    return sentence


def _saved(file: Path, about: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exported file that says other things of itself; what is too deep to be pickled is read as if it had been."""
    torch.save({"state_dict": official.vit(JOINT)}, file)
    content = {"state_dict": official.vit(JOINT), "meta": {"aim_bench": {**ABOUT, **about}}}
    monkeypatch.setattr(torch, "load", lambda *_, **__: content)
    return file


@pytest.mark.parametrize(
    ("about", "value"),
    [
        ({"version": _nested(5000)}, "meta.aim_bench.version is [[[["),
        ({"version": _doubled(40)}, "meta.aim_bench.version is [[[["),
        ({"options": {"scale": _nested(5000)}}, "option.scale is [[[["),
        ({"options": {"scale": _doubled(40)}}, "option.scale is [[[["),
        ({"backbone": "v" * 10**6}, "'vvvv"),
        ({"backbone": "vit:tiny@/dev/zero"}, "'vit:tiny@/dev/zero'"),
        ({"backbone": "clip:\x1b[31m\n"}, "'clip:\\x1b[31m\\n'"),
    ],
    ids=["deep", "doubled", "deep option", "doubled option", "long", "a file", "for the terminal"],
)
def test_what_a_file_says_of_itself_is_shown_in_short(
    about: dict[str, Any], value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert value in _told(_saved(tmp_path / "one.pth", about, monkeypatch))


def test_names_out_of_a_file_are_text_of_bounded_length() -> None:
    (message,) = UserError([f"a\x1b[2J\rb\u202e{'n' * 10**6}: expected c"]).problems
    assert message.startswith("a\\x1b[2J\\rb\\u202ennn") and message.endswith("nnn: expected c")
    assert " (shortened) " in message and len(message) <= 2000
    assert len(UserError(["\x1b" * 10**6]).problems[0]) <= 2000


def test_a_name_of_a_million_letters_is_cut(tmp_path: Path) -> None:
    torch.save({"n" * 10**6: torch.zeros(1)}, tmp_path / "one.pth")
    assert quotes(_told(tmp_path / "one.pth"), "AIM")


def _zipped(file: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return file


BOMBS: dict[str, Callable[[Path], Any]] = {
    "one.pth": lambda file: _zipped(file, **{"data.pkl": b"\x80\x02X" + (2**21).to_bytes(4, "little") + b"a" * 2**21}),
    "script.pt": lambda file: _zipped(file, **{"data.pkl": pickle.dumps({}), "constants.pkl": b"", "x": b"0" * 2**21}),
    "arrays.npz": lambda file: np.savez_compressed(file, cls=np.zeros(2**19, np.float32)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_archives_that_unpack_to_much_more_than_their_size_are_not_unpacked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / name
    BOMBS[name](file)
    monkeypatch.setattr(stored_weights, "_LARGE", 2**20)
    assert re.search(r"\b2 MB\b.*\b0\.0", _told(file))
    with pytest.raises(WeightsError, match=rf"{name}.*\b2 MB\b.*\b0\.0"):
        build(BackboneName("vit", "tiny", str(file)))


def test_weights_are_no_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are they where they were packed as tightly as zip can, or are small."""
    state = {name: value.numpy() for name, value in official.vit(JOINT).items()}
    np.savez_compressed(tmp_path / "packed.npz", **state)
    np.savez_compressed(tmp_path / "zeros.npz", zeros=np.zeros(2**20))
    stored_weights.check_inflation(tmp_path / "zeros.npz")
    monkeypatch.setattr(stored_weights, "_LARGE", 2**10)
    stored_weights.check_inflation(tmp_path / "packed.npz")
    with pytest.raises(ValueError, match=r"\b8 MB\b.*\b0\.0"):
        stored_weights.check_inflation(tmp_path / "zeros.npz")


def test_names_that_are_no_text_are_told(tmp_path: Path, wording: Wording) -> None:
    torch.save({1: torch.zeros(1)}, tmp_path / "one.pt")
    with pytest.raises(WeightsError, match=quoting("one.pt", 1)) as refused:
        build(BackboneName("vit", "tiny", str(tmp_path / "one.pt")))
    told = _told(tmp_path / "one.pt")
    assert quotes(told, "dict")
    wording([refused.value, told])


def test_a_torchscript_archive_is_told_without_torchs_advice_to_load_it_all_the_same(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "one.pt")
    told = _told(tmp_path / "one.pt")
    assert quotes(told, "TorchScript") and "weights_only" not in told


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02."], ids=["empty", "text", "pickle"])
def test_what_torch_has_not_saved_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "one.pth").write_bytes(content)
    assert quotes(_told(tmp_path / "one.pth"), "torch.save")


def test_the_file_of_these_tests_is_taken_where_it_tells_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the tests above could not fail."""
    found = open_model_file(_saved(tmp_path / "one.pth", {}, monkeypatch))
    assert found.options["scale"] == 0.5 and found.strategy in STRATEGIES


@pytest.mark.parametrize(
    ("cell", "values"),
    [
        ({"weights": "/dev/zero"}, ("backbone 'vit:tiny@/dev/zero'", "/dev/zero")),
        ({"backbone": "vit:nosuch"}, ("backbone 'vit:nosuch@none'", "'nosuch'")),
        ({"backbone": "nosuch:x"}, ("backbone", "'nosuch'")),
        ({"frames": 10**12}, ("frames is 1000000000000", 1024)),
    ],
    ids=str,
)
def test_a_backbone_that_is_none_is_not_built(cell: dict[str, Any], values: tuple[object, ...], tmp_path: Path) -> None:
    asked = Matrix(backbones=("vit:tiny@none",), strategies=("joint",), device="cpu")
    changed = expand(asked).cells[0].model_copy(update=cell)
    about = {"format_version": "1", "weights_sha256": "0", "classes": '["a"]', "cell": changed.canonical()}
    save_file({"head.bias": torch.zeros(1)}, tmp_path / "one.safetensors", metadata=about)
    with pytest.raises(UserError, match=quoting(*values)):
        open_model_file(tmp_path / "one.safetensors").build(8)
