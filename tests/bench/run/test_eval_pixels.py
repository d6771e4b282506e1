"""`bench eval` on videos larger than the model's input: the pixels that reach the model, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from bench.data.decode.open import open_video
from bench.data.transforms import FOOTNOTES, ValTransform
from bench.measure import placement as placed
from bench.run import cell as execution
from tests.adapters import released as official
from tests.bench.command import Command, Wording, field_of, quotes
from tests.bench.data.test_resize import EXACT
from tests.bench.data.videos import X264, picture, write
from tests.bench.test_checkpoint import JOINT
from tests.reference import resizing as reference
from tests.reference import sampling

CLASSES = ("hop", "jump")
SIZE, HEIGHT, WIDTH = 32, 66, 86  # of the model's input, and of the videos


@pytest.fixture
def asked(tmp_path: Path) -> tuple[object, ...]:
    """A released file of a tiny ViT and a folder with a test video of each class."""
    torch.save({"model": official.vit(JOINT, frames=4, classes=2)}, tmp_path / "released.pth")
    for label, name in enumerate(CLASSES):
        for split in ("train", "val"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            write(folder / "a.mp4", "libx264", picture(20 + label, HEIGHT, WIDTH), **X264)
    file, root = tmp_path / "released.pth", tmp_path / "data"
    fixed = ("--loader-workers", 0, "--device", "cpu", "--no-order-test", "--format", "json")
    return ("eval", "--checkpoint", file, "--dataset", "folder", "--data-root", root, *fixed)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[torch.Tensor]]:
    """The views (V, T, 3, S, S) of each video that the model was shown."""
    shown: list[torch.Tensor] = []
    predict = execution.predict

    def watched(predictor: Any, batches: Any, **how: Any) -> Any:
        listed = list(batches)
        shown.extend(views for clips, _, _ in listed for views in clips)
        return predict(predictor, iter(listed), **how)

    monkeypatch.setattr(execution, "predict", watched)
    return lambda: shown


def frames(asked: tuple[object, ...], label: int) -> torch.Tensor:
    """A video's test clip, (T, 3, H, W), in the video's own size."""
    indices = sampling.uniform_test(20 + label, 4)
    root = Path(str(asked[asked.index("--data-root") + 1]))
    return torch.from_numpy(open_video(root / "val" / CLASSES[label] / "a.mp4").frames(indices)).permute(0, 3, 1, 2)


def of_cv2(whole: torch.Tensor, short_side: int, crops: int) -> torch.Tensor:
    """(T, 3, H, W) -> (crops, T, 3, S, S), as mmaction makes them."""
    height, width = reference.size(HEIGHT, WIDTH, short_side)
    made = np.stack([cv2.resize(frame.permute(1, 2, 0).numpy(), (width, height)) for frame in whole])
    corners = reference.corners(height, width, SIZE, crops)
    views = [made[:, y : y + SIZE, x : x + SIZE].transpose(0, 3, 1, 2) for y, x in corners]
    return torch.from_numpy(np.stack(views))


def test_released_pixels_are_those_that_the_released_code_would_show(
    bench: Command, asked: tuple[object, ...], seen: Callable[[], list[torch.Tensor]]
) -> None:
    said = bench(*asked, "--pixels", "released", "--views", "1x3")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert (found["pixels"], found["protocol"], found["clips"], found["crops"]) == ("released", "4x1x3", 1, 3)
    assert FOOTNOTES["released"] in found["footnotes"] and FOOTNOTES["own"] not in found["footnotes"]
    for label, views in enumerate(seen()):
        assert (views.int() - of_cv2(frames(asked, label), SIZE, 3).int()).abs().max() <= EXACT


@pytest.mark.parametrize("pixels", ["own", "released"])
def test_the_views_of_diving48_and_the_validations_are_alike(
    pixels: str, bench: Command, asked: tuple[object, ...], seen: Callable[[], list[torch.Tensor]]
) -> None:
    """37 for 32, as 256 for 224: of one clip, the centre of the enlarged picture."""
    for how in (("--views", "1x1@37"), ("--split", "val")):
        found = json.loads(bench(*asked, *how, "--pixels", pixels).out)
        assert found["pixels"] == pixels and FOOTNOTES[pixels] in found["footnotes"]
        assert found["protocol"] == ("4x1x1@37" if how[0] == "--views" else "4x1x1")
    plain, again, *validation = seen()
    assert torch.equal(torch.stack((plain, again)), torch.stack(validation))
    for label, views in enumerate((plain, again)):
        whole = frames(asked, label)
        expected = ValTransform(SIZE)(whole) if pixels == "own" else of_cv2(whole, 37, 1)
        assert (views.int() - expected.int()).abs().max() <= EXACT


def test_own_views_are_the_default_and_say_so(
    bench: Command, asked: tuple[object, ...], seen: Callable[[], list[torch.Tensor]]
) -> None:
    found = json.loads(bench(*asked).out)
    assert (found["pixels"], FOOTNOTES["own"] in found["footnotes"]) == ("own", True)
    own = seen()[0]
    # a short side that is the input's is not another view, and neither are clips and crops that are named one by one
    same = [("--views", f"{found['clips']}x{found['crops']}@{SIZE}")]
    same += [("--clips", str(found["clips"]), "--crops", str(found["crops"]))]
    for how in same:
        seen().clear()
        assert json.loads(bench(*asked, *how).out)["protocol"] == found["protocol"]
        assert torch.equal(seen()[0], own)


def test_an_evaluation_in_bf16_that_is_emulated_has_a_footnote(
    bench: Command, asked: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placed, "bf16_slowdown", lambda: 20.0)
    said = bench(*asked, "--precision", "bf16")
    (told,) = [note for note in json.loads(said.out)["footnotes"] if quotes(note, "bf16", "fp32", "CPU", 20)]
    assert told in said.err


@pytest.mark.parametrize(
    ("how", "values"),
    [
        (("--views", "1x1@31"), ("views is '1x1@31'", "vit:tiny", 32, 32)),
        (("--views", "1x2"), ("views is '1x2'", 1, 3)),
        (("--views", "3x1"), ("clips is 3", "folder", 1)),
        (("--views", "1x3", "--clips", "1"), ("clips is 1", "views is '1x3'")),
        (("--views", "1x3", "--crops", "1"), ("crops is 1", "views is '1x3'")),
        (("--pixels", "relased"), ("pixels is 'relased'", "own", "released", "'released'")),
        (("--split", "val", "--views", "1x1@40"), ("clips", "crops", "views", 1, 1, "test")),
    ],
)
def test_views_and_pixels_that_cannot_be_are_refused(
    how: tuple[str, ...], values: tuple[object, ...], bench: Command, asked: tuple[object, ...], wording: Wording
) -> None:
    said = bench(*asked, *how, "--frames", "5")
    assert (said.code, said.out) == (2, "")
    (problem,) = [problem for problem in said.problems if quotes(problem, *values)]
    assert any(field_of(other) == "frames" for other in said.problems)
    wording([problem])
