"""`bench eval` and `bench export` as a user meets them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backbones.weights import digest
from bench.cli.app import app
from bench.data.cache import FrameCache
from bench.data.clips import TestClips
from bench.data.dataset import DATASETS
from bench.data.decode_pool import Reading
from bench.data.transforms import FOOTNOTES, TestTransform, ValTransform
from bench.errors import UserError
from bench.plugins import load as load_plugins
from bench.run.build import classifier
from bench.run.cell import execute
from bench.run.context import WorkerContext
from bench.run.evaluation import _dataset, _differing_classes, plan
from bench.run.model_files.adapter_file import pack
from bench.run.result import Result
from bench.run.store import ADAPTER, Run
from bench.spec import Cell, EvaluationRequest, Matrix
from bench.spec.source import DataSource
from bench.train.evaluate import Predictor
from tests.adapters import released as official
from tests.bench import make
from tests.bench.command import Command, Said, Wording, quotes, quoting
from tests.bench.conftest import nothing_stays_registered
from tests.bench.data.cache.conftest import make_store
from tests.bench.test_checkpoint import JOINT
from tests.reference import macs as closed

OWN = FOOTNOTES["own"]
PLUGIN = str(Path(__file__).parents[1] / "plugins" / "small.py")
MORE = """
from bench.data.dataset import DATASETS, register_dataset

@register_dataset("dense")
class Dense(DATASETS.get("small")):
    name = "dense"
    sampling = "dense"
    clips = 2
    span = 16


@register_dataset("fewer")
class Fewer(DATASETS.get("small")):
    name = "fewer"
    classes = ("hop", "skip", "jump", "fall")
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with one cell that was trained on the small data set: its folder, and the cell's result.

    The small data set stays known meanwhile, and the two of MORE.
    """
    with nothing_stays_registered():
        plugin = tmp_path_factory.mktemp("plugins") / "more.py"
        plugin.write_text(MORE)
        load_plugins([PLUGIN, str(plugin)])
        DATASETS.get("small")(None).prepare()
        run = Run(tmp_path_factory.mktemp("results") / "run")
        from bench.run.matrix import expand

        matrix = Matrix(backbones=("vit:tiny",), strategies=("joint",), datasets=("small",), device="cpu")
        cell = expand(matrix).cells[0]
        run.open(matrix, [cell], "bench run", {})
        cache = FrameCache(make_store(tmp_path_factory.mktemp("cache")))
        context = WorkerContext(torch.device("cpu"), Reading(), "bench run", cache)
        measured = make.measured(batch_size=8, micro_batch=8)
        result = execute(cell, context, measured=measured, folder=run.cell_folder(cell))
        yield run.folder, result


def _said(bench: Command, *arguments: object) -> dict[str, Any]:
    said = bench("eval", *arguments, "--format", "json", "--device", "cpu", "--plugin", PLUGIN)
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def _refused(bench: Command, *arguments: object) -> list[str]:
    said: Said = bench("eval", *arguments, "--device", "cpu", "--plugin", PLUGIN)
    assert (said.code, said.out) == (2, "")
    return said.problems


def _numbers(found: Any) -> dict[str, Any]:
    return {
        name: found[name]
        for name in ("top1", "top5", "mean_class", "top1_reversed", "top1_shuffled", "evaluated", "listed")
    }


def test_a_cells_checkpoint_gives_the_numbers_of_its_training(bench: Command, trained: tuple[Path, Result]) -> None:
    folder, result = trained
    cell: Cell = result.cell
    file = Run(folder).cell_folder(cell) / ADAPTER
    found = _said(bench, "--checkpoint", file)
    assert _numbers(found) == pytest.approx(_numbers(result.metrics.model_dump()))
    assert (found["protocol"], found["frames"], found["clips"], found["crops"]) == ("8x1x1", 8, 1, 1)
    assert (found["backbone"], found["weights"], found["strategy"]) == ("vit:tiny", "bundled", "joint")
    assert found["options"] == cell.options
    shape = {"side": 32, "patch": 8, "width": 96, "depth": 4, "frames": 8}
    counted = closed.vit_parts(
        **shape, classes=len(DATASETS.get("small")(None).classes), spatial=True, time="shared", joint=True
    )
    assert found["macs_view"] == pytest.approx(sum(counted.values()), rel=1e-3)
    assert found["layout"] == "aim-bench"
    shown = bench("eval", "--checkpoint", file, "--device", "cpu", "--plugin", PLUGIN).out
    assert f"{found['top5']:.2f}" in shown.split()
    where = found["provenance"]
    assert where["dataset_fingerprint"] == result.provenance.dataset_fingerprint
    assert where["command"].startswith("bench eval --checkpoint")
    assert where["decoders"] == ["decord"]
    assert where["weights_sha256"] == result.provenance.weights_sha256
    assert found["model_file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    val = _said(bench, "--checkpoint", f"{folder}/{cell.key}", "--split", "val", "--no-order-test", "--decoder", "pyav")
    assert val["provenance"]["decoders"] == ["pyav"] and any(quotes(note, "pyav") for note in val["footnotes"])
    assert val["top1"] == pytest.approx(result.metrics.val_top1)
    assert (val["evaluated"], val["split"], val["top1_reversed"]) == (10, "val", None)


def test_an_evaluation_tells_where_its_frames_came_from(
    bench: Command, trained: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = trained
    asked = ("--checkpoint", f"{folder}/{result.cell.key}", "--split", "val", "--no-order-test")
    assert _said(bench, *asked)["footnotes"] == [OWN]
    kept = _said(bench, *asked, "--cache", "disk", "--cache-limit", "2KB")
    assert kept["top1"] == pytest.approx(result.metrics.val_top1)
    _, first, second = kept["footnotes"]
    assert quotes(first, 10, "2.0 KB") and quotes(second, "2.0 KB")
    jpeg = _said(bench, *asked, "--cache", "ram", "--cache-format", "jpeg")
    assert quotes(jpeg["footnotes"][1], "JPEG", 95)


def test_what_was_assumed_of_the_weights_is_told(bench: Command, trained: tuple[Path, Result], assumption: str) -> None:
    folder, result = trained
    asked = ("--checkpoint", f"{folder}/{result.cell.key}", "--split", "val", "--no-order-test")
    assert assumption in _said(bench, *asked)["footnotes"]


def test_plain_kernels_give_them_too_and_are_told(bench: Command, trained: tuple[Path, Result]) -> None:
    folder, result = trained
    asked = ("--checkpoint", f"{folder}/{result.cell.key}", "--split", "val", "--no-order-test")
    found = _said(bench, *asked, "--kernels", "plain")
    assert found["top1"] == pytest.approx(result.metrics.val_top1)
    assert [note for note in found["footnotes"] if quotes(note, "plain")]


def test_an_exported_cell_gives_them_too(bench: Command, trained: tuple[Path, Result], tmp_path: Path) -> None:
    folder, result = trained
    out = tmp_path / "model.pth"
    said = bench("export", f"{folder}/{result.cell.key}", "--out", out)
    assert (said.code, said.out.strip(), said.err) == (0, str(out), "")
    found = _said(bench, "--checkpoint", out)
    assert _numbers(found) == pytest.approx(_numbers(result.metrics.model_dump()))
    assert (found["layout"], found["backbone"], found["weights"]) == ("released", "vit:tiny", "model.pth")
    assert found["footnotes"] == [OWN]


def test_a_released_file_on_a_data_set_with_several_views(
    bench: Command, trained: tuple[Path, Result], tmp_path: Path
) -> None:
    torch.save({"state_dict": official.vit(JOINT, frames=4)}, tmp_path / "one.pth")
    asked = ("--checkpoint", tmp_path / "one.pth", "--dataset", "dense")
    found = _said(bench, *asked, "--crops", "3")
    assert (found["protocol"], found["frames"], found["clips"], found["crops"]) == ("4x2x3", 4, 2, 3)
    assert (found["evaluated"], found["listed"]) == (20, 20)
    scale, own = found["footnotes"]
    assert quotes(scale, "scale is 0.5", "--scale") and own == OWN
    # views and frames do something, and so does the scale
    probabilities = {json.dumps(_numbers(found))}
    for more in (("--clips", "1"), ("--scale", "9"), ("--crops", "1")):
        probabilities.add(json.dumps(_numbers(_said(bench, *asked, *more))))
    assert len(probabilities) > 1

    said = bench("eval", *asked, "--device", "cpu", "--plugin", PLUGIN)
    assert said.code == 0
    for mark in (
        "4x2x1 (frames x clips x crops), own pixels",
        "a view, ",
        "dense test, 20 of 20 videos",
        "top-1 %",
        "mean class %",
        "shuffled %",
    ):
        assert mark in said.out
    assert quotes(said.out, "note: scale is 0.5")


def test_every_mistake_at_once(bench: Command, tmp_path: Path) -> None:
    problems = _refused(
        bench,
        *("--checkpoint", tmp_path / "nosuch.pth"),
        *("--dataset", "moton"),
        *("--data-root", tmp_path / "nosuch"),
        *("--split", "tset"),
        *("--format", "yaml"),
        *("--precision", "fp8"),
        *("--cache", "dsk", "--cache-format", "jpg", "--cache-limit", "20GBB"),
        *("--plugin", "nosuch.py"),
    )
    marks = ["split is 'tset'", "format is 'yaml'", "precision is 'fp8'", "plugin 'nosuch.py'", "data_root is"]
    marks += ["cache is 'dsk'", "cache_format is 'jpg'", "cache_limit is '20GBB'"]
    marks += [f"'{tmp_path}/nosuch.pth'", "'moton'"]
    for mark in marks:
        assert len([sentence for sentence in problems if mark in sentence]) == 1, mark
    assert len(problems) == len(marks)
    assert os.listdir(tmp_path) == []


def test_what_does_not_go_together_is_told(
    bench: Command, trained: tuple[Path, Result], tmp_path: Path, wording: Wording
) -> None:
    folder, result = trained
    cell = f"{folder}/{result.cell.key}"
    problems = _refused(
        bench,
        *("--checkpoint", cell, "--dataset", "fewer"),
        *("--frames", "4", "--clips", "3", "--crops", "2"),
    )
    names = ", ".join(DATASETS.get("small")(None).classes[:3])
    classes, frames, clips, crops = problems
    assert quotes(classes, 10, names, "fewer", 4, "hop, skip, jump") and quotes(frames, "frames is 4", "joint", 8, 8)
    assert quotes(clips, "clips is 3", "fewer", 1) and quotes(crops, "crops is 2", 1, 3)
    (validation,) = _refused(bench, "--checkpoint", cell, "--split", "val", "--crops", "3")
    assert quotes(validation, "clips", "crops", "views", 1, 1, "test")
    file = tmp_path / "one.pth"
    torch.save(official.vit(JOINT, frames=4, classes=400), file)
    nowhere = _refused(bench, "--checkpoint", file)[0]
    assert quotes(nowhere, "--dataset")
    (other,) = _refused(bench, "--checkpoint", file, "--dataset", "small")
    assert quotes(other, 400, "small", 10, names)
    wording([*problems, validation, nowhere, other])
    (problem,) = bench("eval", "--checkpoint", file, "--dataset", "motion", "--device", "gpu").problems[:1]
    assert quotes(problem, "device is 'gpu'", "auto, cpu, cuda")


def test_more_processes_than_cores_or_videos_are_refused(
    bench: Command, trained: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = trained
    file = Run(folder).cell_folder(result.cell) / ADAPTER
    monkeypatch.setattr("bench.run.engines.local.cores", lambda: 64)
    asked = ("--checkpoint", file, "--processes-per-cell")
    assert [problem.split(":")[0] for problem in _refused(bench, *asked, 65)] == ["processes_per_cell is 65"]
    (problem,) = _refused(bench, *asked, 21)  # of 20 videos
    assert problem.startswith("processes_per_cell is 21: ") and problem.endswith("at most 20")
    both = [problem.split(" ")[0] for problem in _refused(bench, *asked, 65, "--frames", 500)]
    assert both == ["frames", "processes_per_cell"]
    assert len(_refused(bench, *asked, 0)) == len(_refused(bench, *asked, 257)) == 1


def test_precision_and_split_reach_what_computes_and_what_crops(
    bench: Command, trained: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = trained
    made: list[Any] = []

    def seen(kind: type) -> Any:
        def make(*arguments: Any, **named: Any) -> Any:
            made.append(kind(*arguments, **named))
            return made[-1]

        return make

    for kind, module in ((Predictor, "cell"), (TestClips, "loaders")):
        monkeypatch.setattr(f"bench.run.{module}.{kind.__name__}", seen(kind))
    asked = ("--checkpoint", f"{folder}/{result.cell.key}", "--no-order-test")
    _said(bench, *asked, "--split", "val", "--precision", "bf16")
    _said(bench, *asked)
    clips, predictors = made[::2], made[1::2]
    assert [type(one.transform) for one in clips] == [ValTransform, TestTransform]
    assert [one.computation.precision for one in predictors] == ["bf16", "fp32"]


def test_classes_of_other_names_are_other_classes() -> None:
    trained_on = SimpleNamespace(classes=2, class_names=("hop", "skip"))
    small = SimpleNamespace(name="small", classes=("hop", "jump"))
    (problem,) = _differing_classes(trained_on, small)  # type: ignore[arg-type]
    assert quotes(problem, 2, "hop, skip", "small", 2, "hop, jump")
    for known in (("hop", "jump"), None):  # a released file does not tell names
        assert not _differing_classes(SimpleNamespace(classes=2, class_names=known), small)  # type: ignore[arg-type]


def test_frames_views_and_folder_are_the_trainings_where_they_have_to_be(
    trained: tuple[Path, Result], tmp_path: Path
) -> None:
    cell = trained[1].cell.model_copy(
        update={
            "strategy": "spatial",
            "options": {},
            "weights": "none",
            "data": DataSource(root=tmp_path),
            "crops": 3,
            "view_side": 40,
        }
    )
    model = classifier(cell, 10)
    file = tmp_path / "one.safetensors"
    file.write_bytes(pack(model, cell, DATASETS.get("small")(None).classes, digest(model.backbone)))

    def planned(**asked: Any) -> Cell:
        (found,) = plan(EvaluationRequest(checkpoint=str(file), device="cpu", **asked)).cells
        return found

    assert planned().data.root == tmp_path
    assert planned(data_root=tmp_path.parent).data.root == tmp_path.parent
    assert planned(dataset="dense").data.root is None
    # views too, on the data set of the training, as far as they are not asked for
    assert planned().views == (1, 3, 40) and planned(crops=1).views == (1, 1, 40)
    assert planned(views="1x1").views == (1, 1, None) and planned(dataset="dense").views == (2, 1, None)
    # frames that do not see each other may be of any number
    assert (planned().frames, planned(frames=5).frames) == (8, 5)
    with pytest.raises(UserError, match=quoting("frames is 1025", 1024)):
        planned(frames=1025)


def test_what_is_said_of_labels_alone_is_said_of_the_lists_of_the_training(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.mp4 1\nb.mp4 2\n")
    lists = DataSource(train_list=tmp_path / "list.txt", val_list=tmp_path / "list.txt")
    counted = lists.model_copy(update={"labels_from": 1})
    for labels_from, data in ((1, lists), (0, counted)):
        request = EvaluationRequest(checkpoint="x", labels_from=labels_from)
        found = _dataset(request, SimpleNamespace(dataset="list", data=data))  # type: ignore[arg-type]
        assert found is not None and (found.source, found.classes) == (counted, ("1", "2"))


def test_a_file_that_would_run_code_ends_with_a_sentence(bench: Command, tmp_path: Path, wording: Wording) -> None:
    class Bad:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": Bad()}, tmp_path / "bad.pth")
    (problem,) = _refused(bench, "--checkpoint", tmp_path / "bad.pth")
    assert quotes(problem, f"{tmp_path}/bad.pth")
    wording([problem])
    assert not (tmp_path / "ran").exists()


def test_predictions_that_are_no_numbers_end_with_exit_code_1(
    bench: Command, trained: tuple[Path, Result], tmp_path: Path, wording: Wording
) -> None:
    state = official.vit(JOINT, frames=4)
    state["cls_head.fc_cls.bias"][0] = float("nan")
    torch.save(state, tmp_path / "one.pth")
    said = bench(
        "eval", "--checkpoint", tmp_path / "one.pth", "--dataset", "small", "--device", "cpu", "--plugin", PLUGIN
    )
    assert (said.code, said.out) == (1, "")
    wording(said.err.splitlines()[-1:])


def test_an_export_that_cannot_be_is_refused_and_leaves_nothing(
    bench: Command, trained: tuple[Path, Result], tmp_path: Path, wording: Wording
) -> None:
    folder, result = trained
    cell = f"{folder}/{result.cell.key}"

    def refused(*arguments: object) -> list[str]:
        said = bench("export", *arguments)
        assert (said.code, said.out) == (2, "")
        return said.problems

    problems = refused("nosuch/cell", "--out", tmp_path / "nosuch" / "one.txt")
    out = f"out is '{tmp_path}/nosuch/one.txt'"
    for problem, values in zip(
        problems, ((out, f"'{tmp_path}/nosuch'"), (out, ".pth", ".pt"), ("'nosuch/cell'", "RUN/CELL")), strict=True
    ):
        assert quotes(problem, *values)
    problems += refused(cell, "--out", tmp_path)[:1]
    assert quotes(problems[3], f"out is '{tmp_path}'")
    assert quotes(
        refused(cell, "--out", tmp_path / "a.pth", "--backbone", "clip:tiny")[0], "vit:tiny", "clip:tiny@bundled"
    )
    torch.save(official.vit(JOINT), tmp_path / "one.pth")
    problems += refused(tmp_path / "one.pth", "--out", tmp_path / "two.pth")[:1]
    assert quotes(problems[4], f"{tmp_path}/one.pth")
    wording(problems)
    assert os.listdir(tmp_path) == ["one.pth"]


def test_the_help_lists_both() -> None:
    assert {"eval", "export"} <= {command.name for command in app.registered_commands}
