"""Videos that cannot be read, from the files to the tables: truncated, empty, no video, no file, a folder, vanished."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from bench.data.motion.dataset import write_h264
from bench.run.footnotes import of_skipped
from bench.run.result import SkippedVideo
from bench.run.store import write_skipped
from tests.bench.command import Command, Said, Wording, quotes

PLUGIN = Path(__file__).parents[1] / "plugins" / "torn.py"
HASTY = PLUGIN.parent / "hasty.py"
BROKEN = ("cut.mp4", "empty.mp4", "text.mp4", "torn.mp4", "bare.mp4", "folder.mp4", "vanished.mp4", "locked.mp4")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with lists of 6 good videos for training, 2 for validation, 4 for the test, and broken ones in each."""
    root = tmp_path_factory.mktemp("torn")
    rng = np.random.default_rng(0)
    for i in range(12):
        frames = rng.integers(0, 100, (17, 40, 40, 3), dtype=np.uint8) + np.uint8(150 * (i % 2))
        write_h264(root / f"{i}.mp4", frames, 8, 20)
    whole = (root / "0.mp4").read_bytes()
    for name in ("cut.mp4", "torn.mp4"):
        (root / name).write_bytes(whole[: len(whole) // 2])
    (root / "empty.mp4").touch()
    (root / "bare.mp4").touch()
    (root / "text.mp4").write_text("no video at all\n" * 100)
    (root / "folder.mp4").mkdir()
    (root / "locked.mp4").write_bytes(whole)
    (root / "locked.mp4").chmod(0)

    def listed(split: str, *names: str) -> None:
        (root / f"{split}.txt").write_text("".join(f"{name} {i % 2}\n" for i, name in enumerate(names)))

    locked = () if os.access(root / "locked.mp4", os.R_OK) else ("locked.mp4",)  # root may read everything
    listed("train", *(f"{i}.mp4" for i in range(6)), *BROKEN[:3])
    listed("val", "6.mp4", "7.mp4", "vanished.mp4")
    listed("test", "8.mp4", "9.mp4", "torn.mp4", "bare.mp4", "10.mp4", "folder.mp4", "11.mp4", "vanished.mp4", *locked)
    return root


def _run(bench: Command, videos: Path, out: Path, *arguments: object) -> Said:
    return bench(
        *("run", "--backbones", "vit:tiny@none", "--strategies", "frozen", "--dataset", "torn", "--plugin", PLUGIN),
        *("--data-root", videos, "--epochs", 2, "--batch-size", 4, "--device", "cpu", "--out", out),
        *("--recipe", "flip=false", "--no-order-test", "--workers", 1, "--plugin", HASTY, *arguments),
    )


def _skipped(out: Path) -> dict[tuple[str, str], dict[str, str]]:
    (file,) = out.glob("cells/*/skipped.csv")
    with file.open(newline="") as stream:
        return {(row["split"], row["name"]): row for row in csv.DictReader(stream)}


def _predictions(out: Path) -> dict[str, np.ndarray]:
    (file,) = out.glob("cells/*/predictions.npz")
    with np.load(file) as found:
        return dict(found)


def test_broken_files_are_skipped_counted_named_and_footnoted(bench: Command, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = _run(bench, videos, out)  # decoding processes: the data set is not the embedded one
    assert said.code == 0, said.out + said.err
    lost = [line.rpartition(" ")[0] for line in (videos / "test.txt").read_text().splitlines()]
    listed, lost = len(lost), [name for name in lost if name in BROKEN]
    assert f"4 / {listed}" in said.out and "evaluated" in said.out
    assert quotes(said.out, len(lost), "of", listed, "test", 4) and quotes(said.out, 1, "validation")

    skipped = _skipped(out)
    assert {name for split, name in skipped if split == "test"} == set(lost)
    assert ("val", "vanished.mp4") in skipped
    assert "0 bytes" in skipped["test", "bare.mp4"]["reason"]
    assert "No such file" in skipped["test", "vanished.mp4"]["reason"]
    assert "img_00001.jpg" in skipped["test", "folder.mp4"]["reason"]
    assert skipped["test", "torn.mp4"]["times"] == "1"
    train = {name: int(row["times"]) for (split, name), row in skipped.items() if split == "train"}
    assert train and set(train) <= set(BROKEN[:3])
    times = sum(train.values())
    assert quotes(said.out, len(train), "training", f"{times} time{'s' * (times > 1)}")

    row = next(csv.DictReader(io.StringIO((out / "results.csv").read_text())))
    assert (row["evaluated"], row["listed"]) == ("4", str(listed))
    found = _predictions(out)
    assert found["names"].tolist() == ["8.mp4", "9.mp4", "10.mp4", "11.mp4"]

    # the same numbers where the cell's own process decodes
    other = tmp_path / "other"
    assert _run(bench, videos, other, "--loader-workers", 0).code == 0
    assert np.array_equal(_predictions(other)["probabilities"], found["probabilities"])
    assert _skipped(other) == skipped

    # the evaluation of its checkpoint tells the same
    (cell,) = out.glob("cells/*")
    again = ("eval", "--checkpoint", cell, "--plugin", PLUGIN, "--no-order-test", "--device", "cpu")
    shown = json.loads(bench(*again, "--format", "json", "--loader-workers", 1).out)
    assert (shown["evaluated"], shown["listed"]) == (4, listed)
    assert shown["top1"] is not None and shown["top5"] is None  # of two classes
    assert [video["name"] for video in shown["skipped"]] == sorted(lost)
    assert {video["split"] for video in shown["skipped"]} == {"test"}
    for values in (("@none",), (len(lost), "of", listed, "test")):
        assert any(quotes(note, *values) for note in shown["footnotes"])
    strict = bench(*again, "--strict", "--loader-workers", 0)
    assert strict.code == 2 and quotes(strict.err, 8, "test", "vanished.mp4")
    hopeless = bench(*again, "--loader-workers", 1, "--decode-timeout", 1e-9)
    assert hopeless.code == 2 and quotes(hopeless.err, "test")


def test_strict_fails_the_cell_with_the_name_and_the_reason(bench: Command, videos: Path, tmp_path: Path) -> None:
    said = _run(bench, videos, tmp_path / "run", "--strict", "--loader-workers", 0)
    assert said.code == 2 and quotes(said.err, 1, 8, "test", "vanished.mp4")
    assert not (tmp_path / "run").exists()
    own = Path(shutil.copytree(videos, tmp_path / "videos"))  # the others' lists stay as they are
    for split in ("val", "test"):  # without those that are missing, which is known before anything runs
        (own / f"{split}.txt").write_text((own / f"{split}.txt").read_text().replace("vanished", f"{split}-more"))
        shutil.copy(own / "6.mp4", own / f"{split}-more.mp4")
    said = _run(bench, own, tmp_path / "run", "--strict", "--loader-workers", 0)
    assert said.code == 1
    (file,) = (tmp_path / "run").glob("cells/*/result.json")
    result = json.loads(file.read_text())
    assert result["status"] == "failed"
    assert any(quotes(result["error"], name, "--strict") for name in BROKEN[:3])
    assert result["error"] in said.out
    assert not list((tmp_path / "run").glob("cells/*/skipped.csv"))


def _video(name: str, split: str, times: int = 1) -> SkippedVideo:
    return SkippedVideo(name=name, split=split, reason="gone, with a comma", times=times)  # type: ignore[arg-type]


def test_footnotes_count_name_a_few_and_keep_silent_where_nothing_was_skipped(wording: Wording) -> None:
    assert of_skipped((), 5) == []
    lost = [_video(f"{i}.mp4", "test") for i in range(5)]
    test, training = of_skipped([*lost, _video("a", "train", 12), _video("b", "train", 5)], 20)
    assert quotes(test, 5, 20, "test", 15, "0.mp4, 1.mp4, 2.mp4", 2) and "3.mp4" not in test
    assert quotes(training, 2, "training", 17, "a, b")
    (validation,) = of_skipped([_video("v", "val", 3)], 20, "val")
    assert quotes(validation, 1, 20, "validation", 19, "v")
    wording([test, training, validation])


def test_an_old_list_of_skipped_videos_goes_where_nothing_was_skipped(tmp_path: Path) -> None:
    write_skipped(tmp_path, ())
    write_skipped(tmp_path, [_video("a b.mp4", "test")])
    assert (tmp_path / "skipped.csv").read_text() == ('name,split,reason,times\na b.mp4,test,"gone, with a comma",1\n')
    write_skipped(tmp_path, ())
    assert not list(tmp_path.iterdir())


def test_an_evaluation_tells_wrong_numbers_with_its_other_mistakes(bench: Command) -> None:
    said = bench("eval", "--checkpoint", "/no/such", "--loader-workers", "many", "--decode-timeout", 0)
    assert said.code == 2 and len(said.problems) == 3
    for values in (("loader_workers is 'many'", "auto", 0, 256), ("decode_timeout is 0", 0)):
        assert any(quotes(problem, *values) for problem in said.problems)
