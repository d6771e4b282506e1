"""`--input-size`: counts that follow, cells that are told apart, trainings and evaluations at that size, refusals."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from adapters.aim_checkpoint import save
from adapters.classifier import VideoClassifier
from backbones.families import build
from backbones.weights import digest
from bench.data.cache import FrameCache
from bench.data.catalog.folder import Folder
from bench.data.dataset import DATASETS, register_dataset
from bench.data.decode_pool import Reading
from bench.errors import UserError
from bench.plugins import load as load_plugins
from bench.report.table import make_table
from bench.run.build import classifier
from bench.run.cell import execute
from bench.run.columns import row
from bench.run.context import WorkerContext
from bench.run.matrix import expand
from bench.run.model_files.adapter_file import pack
from bench.run.model_files.open import open_model_file
from bench.run.model_files.released import export
from bench.run.result import Result
from bench.run.start import videos_of
from bench.run.store import ADAPTER, Run
from bench.spec import Cell, Matrix
from tests.adapters import released as official
from tests.bench import make
from tests.bench.command import Command, field_of, quotes, quoting
from tests.bench.conftest import nothing_stays_registered
from tests.bench.data.cache.conftest import make_store
from tests.bench.test_checkpoint import JOINT
from tests.models import awaken
from tests.reference import macs as closed

PLUGIN = str(Path(__file__).parent / "plugins" / "small.py")
CLASSES = tuple(f"class {index}" for index in range(10))


def _cell(backbone: str, strategy: str = "joint", **asked: Any) -> Cell:
    matrix = Matrix(backbones=(backbone,), strategies=(strategy,), frames=(4,), device="cpu", **asked)
    return expand(matrix).cells[0]


# --- counts ---

_BASE = {"width": 768, "depth": 12}


@pytest.mark.parametrize(
    ("backbone", "own", "size", "parts"),
    [
        ("clip:ViT-B-16@none", 224, 336, lambda side: closed.vit_parts(side=side, patch=16, **_BASE, **_JOINT)),
        (
            "vit:vit_base_patch32_224@none",
            224,
            256,
            lambda side: closed.vit_parts(side=side, patch=32, **_BASE, **_JOINT),
        ),
        (
            "swin:swin_tiny_patch4_window7_224@none",
            224,
            448,
            lambda side: closed.swin_parts(
                side=side, patch=4, width=96, depths=(2, 2, 6, 2), window=7, tubelet=2, **_JOINT
            ),
        ),
    ],
)
def test_profile_agrees_with_the_closed_form(bench: Command, backbone: str, own: int, size: int, parts: Any) -> None:
    """To the digit, part by part; beyond the backbone's own size only position embeddings are more parameters."""
    counts = ("profile", backbone, "joint", "--no-timing", "--format", "json", "--input-size")
    found, before = (json.loads(bench(*counts, side).out)[0] for side in (size, own))
    assert {part: numbers["macs_view"] for part, numbers in found["parts"].items()} == parts(size)
    assert found["macs_view"] > before["macs_view"] == sum(parts(own).values())
    assert (found["input_size"], before["input_size"]) == (size, None)
    patch = 0 if backbone.startswith("swin") else 16 if "16" in backbone else 32
    more = 768 * ((size // patch) ** 2 - (own // patch) ** 2) if patch else 0
    assert found["params"] - before["params"] == more
    assert found["trained_params"] == before["trained_params"]


_JOINT: dict[str, Any] = {"frames": 8, "classes": 400, "spatial": True, "joint": True, "time": "shared"}


def test_a_profile_of_another_size_is_another_row(bench: Command) -> None:
    command = ("profile", "vit:tiny@none", "frozen", "--no-timing", "--input-size", 64)
    (found,) = csv.DictReader(io.StringIO(bench(*command, "--format", "csv").out))
    assert (found["backbone"], found["input_size"]) == ("vit:tiny", "64")
    assert "vit:tiny@none 64px frozen" in bench(*command).out
    (own,) = csv.DictReader(io.StringIO(bench(*command[:-2], "--format", "csv").out))
    assert own["input_size"] == ""


def test_a_device_s_table_holds_both(tmp_path: Path) -> None:
    both = [
        _cell("vit:tiny@none").model_copy(update={"input_size": size, "stages": ("measure",)}) for size in (None, 64)
    ]
    run = Run(tmp_path / "one", tmp_path / "one.csv")
    run.open(make.matrix(), both, "bench profile", {})
    for cell in both:
        run.write(make.profiled(cell))
    with (tmp_path / "one.csv").open(newline="") as stream:
        assert [one["input_size"] for one in csv.DictReader(stream)] == ["", "64"]


def test_a_dry_run_counts_at_that_size(bench: Command) -> None:
    said = bench("run", "--backbones", "vit:tiny@none", "--strategies", "frozen", "--input-size", "64", "--dry-run")
    parts = closed.vit_parts(side=64, patch=8, width=96, depth=4, frames=8, classes=10)
    assert said.code == 0
    (line,) = [line for line in said.out.splitlines() if "vit:tiny@none 64px" in line]
    assert line.split()[-1] == f"{sum(parts.values()) / 1e9:.3f}"


# --- refusals ---


@pytest.mark.parametrize(
    "command",
    [
        ("run", "--backbones", "clip:ViT-B-16@none,swin:tiny@none", "--strategies", "jont", "--device", "cpu"),
        ("profile", "clip:ViT-B-16@none,swin:tiny@none", "jont"),
    ],
)
def test_a_size_that_does_not_divide_is_told_with_every_other_mistake(bench: Command, command: Any) -> None:
    said = bench(*command, "--input-size", "40")
    assert (said.code, said.out) == (2, "")
    clip, swin = [problem for problem in said.problems if field_of(problem) == "input_size"]
    assert quotes(clip, "input_size is 40", "clip:ViT-B-16", 16, 32, 48)
    assert quotes(swin, "input_size is 40", "swin:tiny", 32, 32, 64)
    assert any("jont" in problem for problem in said.problems)
    assert quotes(bench(*command, "--input-size", "wide").err, "input_size is 'wide'")


def test_a_refused_run_leaves_nothing(bench: Command, tmp_path: Path) -> None:
    said = bench("run", "--backbones", "vit:tiny@none", "--input-size", "33", "--out", tmp_path / "run")
    assert said.code == 2 and len(said.problems) == 1 and not (tmp_path / "run").exists()


def test_a_file_says_it_too(bench: Command, tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("backbones: vit:tiny@none\nstrategies: frozen\ninput_size: 33\n")
    run = ("run", "--config", tmp_path / "one.yaml", "--dry-run")
    assert bench(*run).code == 2
    assert "vit:tiny@none 48px" in bench(*run, "--input-size", "48").out  # flags win


# --- cells ---


def test_the_own_size_is_the_same_cell_and_another_one_another() -> None:
    own, same, other = (_cell("vit:tiny@none", input_size=size) for size in (None, 32, 64))
    assert own == same and own.key == same.key
    assert (own.input_size, other.input_size) == (None, 64)
    assert len({own.key, other.key}) == len({own.label, other.label}) == len({own.model_key(), other.model_key()}) == 2
    assert "64px" in other.folder and "64px" in other.label and "px" not in own.label
    assert Cell.model_validate_json(other.canonical()) == other


def test_a_table_tells_two_sizes_apart() -> None:
    results = [make.done(make.cell(input_size=size)) for size in (None, 64)]
    assert [one.labels["backbone"] for one in make_table(results).rows] == ["vit:tiny@none", "vit:tiny@none 64px"]
    assert [row(result)["input_size"] for result in results] == [None, 64]
    columns = list(row(results[0]))
    assert columns.index("options") < columns.index("input_size")


def test_each_backbone_has_its_own_size(tmp_path: Path) -> None:
    """One number for all of them: where it is a backbone's own, that cell is the one without it."""
    matrix = Matrix(
        backbones=("vit:vit_base_patch16_224@none", "vit:vit_base_patch16_384@none"),
        strategies=("frozen",),
        input_size=384,
        device="cpu",
    )
    assert [cell.input_size for cell in expand(matrix).cells] == [384, None]


def test_videos_are_decoded_as_large_as_the_largest_frames_need(tmp_path: Path) -> None:
    """256 pixels for 224, and the same ratio for others; rendered videos as they are."""

    @register_dataset("nothing")
    class Nothing(Folder):
        name = "nothing"
        size = "tiny"

        def videos(self, split: str) -> Any:
            return ()

    def side(*backbones: str, dataset: str = "nothing", size: int | None = None) -> int | None:
        cells = [make.cell(backbone=name, dataset=dataset, input_size=size) for name in backbones]
        return videos_of(cells)[1]

    assert side("clip:ViT-B-16") == 256
    assert side("clip:ViT-B-16", "vit:vit_base_patch16_384") == 439
    assert side("clip:ViT-B-16", size=336) == 384
    assert side("vit:tiny") == 37
    assert side("vit:tiny", dataset="motion", size=64) is None


# --- trained and evaluated ---


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Result]]:
    """A run with a ViT that was trained as a whole, on frames of 64 pixels."""
    with pytest.MonkeyPatch.context() as patch, nothing_stays_registered():
        patch.setenv("AIM_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        load_plugins([PLUGIN])
        DATASETS.get("small")(None).prepare()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        run = Run(tmp_path_factory.mktemp("results") / "run")
        matrix = Matrix(
            backbones=("vit:tiny",), strategies=("full",), datasets=("small",), frames=2, input_size=64, device="cpu"
        )
        cell = expand(matrix).cells[0]
        run.open(matrix, [cell], "bench run", {})
        context = WorkerContext(
            torch.device("cpu"), Reading(), "bench run", FrameCache(make_store(tmp_path_factory.mktemp("cache")))
        )
        measured = make.measured(batch_size=8, micro_batch=8)
        yield run.folder, execute(cell, context, measured=measured, folder=run.cell_folder(cell))
        torch.set_num_threads(threads)


def _evaluated(bench: Command, file: Path, *arguments: object) -> dict[str, Any]:
    said = bench("eval", "--checkpoint", file, *arguments, "--format", "json", "--device", "cpu", "--plugin", PLUGIN)
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_a_cell_trains_and_is_evaluated_at_its_size(bench: Command, trained: tuple[Path, Result]) -> None:
    folder, result = trained
    file = Run(folder).cell_folder(result.cell) / ADAPTER
    assert load_file(file)["backbone.model.pos_embed"].shape == (1, 65, 96)
    found = _evaluated(bench, file)
    assert found["input_size"] == result.cell.input_size == 64
    for name in ("top1", "top5", "mean_class", "top1_shuffled"):
        assert found[name] == pytest.approx(getattr(result.metrics, name))
    parts = closed.vit_parts(side=64, patch=8, width=96, depth=4, frames=2, classes=10)
    assert found["macs_view"] == sum(parts.values())
    assert not [note for note in found["footnotes"] if "64 pixels" in note]


def test_it_can_be_evaluated_at_another_size(bench: Command, trained: tuple[Path, Result]) -> None:
    folder, result = trained
    file = Run(folder).cell_folder(result.cell) / ADAPTER
    for size, shown in ((32, None), (48, 48)):
        found = _evaluated(bench, file, "--input-size", size)
        parts = closed.vit_parts(side=size, patch=8, width=96, depth=4, frames=2, classes=10)
        assert (found["input_size"], found["macs_view"]) == (shown, sum(parts.values()))
        assert any(quotes(note, f"{size} pixels", 64) for note in found["footnotes"])
    assert _evaluated(bench, file, "--input-size", 64)["input_size"] == 64


def test_an_evaluation_at_a_size_that_does_not_divide_is_refused(bench: Command, trained: tuple[Path, Result]) -> None:
    folder, result = trained
    file = Run(folder).cell_folder(result.cell) / ADAPTER
    common = ("eval", "--checkpoint", file, "--device", "cpu", "--plugin", PLUGIN)
    said = bench(*common, "--input-size", "60", "--crops", "2")
    assert (said.code, said.out) == (2, "")
    assert any(quotes(problem, "input_size is 60", "vit:tiny", 8, 56, 64) for problem in said.problems)
    assert any(quotes(problem, "crops is 2") for problem in said.problems)
    said = bench(*common, "--input-size", "wide")
    assert len(said.problems) == 1 and quotes(said.problems[0], "input_size is 'wide'")


# --- checkpoints ---


def _written(file: Path, cell: Cell) -> VideoClassifier:
    model = classifier(cell, len(CLASSES)).eval()
    before = digest(model.backbone)
    awaken(model)
    file.write_bytes(pack(model, cell, CLASSES, before))
    return model


def _clips(side: int) -> Tensor:
    return torch.randn(2, 4, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", ["vit", "clip", "swin"])
@pytest.mark.parametrize("strategy", ["joint", "full"])
def test_a_checkpoint_gives_its_model_back_at_its_size(family: str, strategy: str, tmp_path: Path) -> None:
    model = _written(tmp_path / "one.safetensors", _cell(f"{family}:tiny@bundled", strategy, input_size=64))
    found = open_model_file(tmp_path / "one.safetensors")
    assert found.input_size == 64
    again, notes = found.build(4)
    assert notes == [] and again.backbone.input_size == 64
    with torch.no_grad():
        assert torch.equal(again(_clips(64)), model(_clips(64)))


def test_trained_positions_are_interpolated_and_frozen_ones_are_the_weights_own(tmp_path: Path) -> None:
    positions = "backbone.model.pos_embed"
    own = build(_cell("vit:tiny@bundled").backbone_name).model.pos_embed
    for strategy in ("full", "joint"):
        file = tmp_path / f"{strategy}.safetensors"
        model = _written(file, _cell("vit:tiny@bundled", strategy, input_size=64))
        found = open_model_file(file)
        for size, side in ((None, 4), (96, 12)):
            again = found.resized(found.build(4)[0], size)
            assert not again.training and again.backbone.input_size == side * 8
            state, before = again.state_dict(), model.state_dict()
            expected = before[positions] if strategy == "full" else own
            assert torch.equal(state[positions], resample_abs_pos_embed(expected, [side, side]))
            for name in before.keys() - {positions}:
                assert torch.equal(state[name], before[name]), name
            assert again(_clips(side * 8)).shape == (2, 10)
            assert {name for name, _ in again.trained()} == {name for name, _ in model.trained()}


def test_a_file_that_tells_an_impossible_size_is_refused(tmp_path: Path) -> None:
    cell = _cell("swin:tiny@bundled", input_size=64)
    model = classifier(cell, len(CLASSES))
    wrong = cell.model_copy(update={"input_size": 48})
    (tmp_path / "one.safetensors").write_bytes(pack(model, wrong, CLASSES, digest(model.backbone)))
    with pytest.raises(UserError, match="input_size is 48: swin:tiny"):
        open_model_file(tmp_path / "one.safetensors").build(4)


@pytest.mark.parametrize(("make_state", "family"), [(official.clip, "clip"), (official.vit, "vit")])
def test_a_released_file_tells_its_size_by_its_positions(make_state: Any, family: str, tmp_path: Path) -> None:
    state = make_state(JOINT, size=48)
    torch.save({"state_dict": state}, tmp_path / "one.pth")
    for asked in (None, f"{family}:tiny"):
        found = open_model_file(tmp_path / "one.pth", backbone=asked)
        assert (found.backbone.architecture, found.input_size) == (f"{family}:tiny", 48)
        model, notes = found.build(3)
        assert model.backbone.input_size == 48 and any("48 pixels" in note for note in notes)
        positions = {"clip": "positional_embedding", "vit": "pos_embed"}[family]
        torch.testing.assert_close(
            model.state_dict()[f"backbone.model.{positions}"], state[f"backbone.{positions}"].float()
        )
        assert found.resized(model, None).backbone.input_size == 32


def test_a_released_vit_of_384_pixels_is_the_one_of_224_at_that_size(tmp_path: Path) -> None:
    state = official.vit([("S_Adapter", "T_Adapter", "MLP_Adapter")] * 12, width=768, patch=16, size=384, device="meta")
    from adapters.aim_checkpoint import describe
    from bench.run.model_files.released import _architecture, _size

    found = describe(state)
    name = _architecture(found, None, None, problems := [], [])
    assert problems == [] and name is not None
    assert (name.model, _size(name, found, None, problems)) == ("vit_base_patch16_224", 384)


@pytest.mark.parametrize("family", ["vit", "clip", "swin"])
def test_an_exported_cell_keeps_its_size(family: str, tmp_path: Path) -> None:
    """A Swin's tensors do not tell it."""
    model = _written(tmp_path / "one.safetensors", _cell(f"{family}:tiny@bundled", input_size=64))
    own = open_model_file(tmp_path / "one.safetensors")
    assert any("64 pixels" in note for note in export(own, tmp_path / "one.pth"))  # type: ignore[arg-type]
    found = open_model_file(tmp_path / "one.pth")
    assert (found.layout, found.input_size) == ("released", 64)
    again, _ = found.build(4)
    with torch.no_grad():
        torch.testing.assert_close(again(_clips(64)), model(_clips(64)), atol=1e-5, rtol=1e-4)
    assert save(again).keys() == save(model).keys()


def test_an_exported_swin_of_an_impossible_size_is_refused(tmp_path: Path) -> None:
    _written(tmp_path / "one.safetensors", _cell("swin:tiny@bundled", input_size=64))
    export(open_model_file(tmp_path / "one.safetensors"), tmp_path / "one.pth")  # type: ignore[arg-type]
    content = torch.load(tmp_path / "one.pth", weights_only=True)
    content["meta"]["aim_bench"]["input_size"] = 48
    torch.save(content, tmp_path / "one.pth")
    with pytest.raises(UserError, match=quoting("input_size is 48", "swin:tiny", 32)):
        open_model_file(tmp_path / "one.pth")
