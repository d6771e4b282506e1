from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.dataset import DATASETS, DataError
from bench.data.decode.open import available_decoders, open_video, why_unusable
from bench.data.files import cache_root
from bench.data.motion import dataset as module
from bench.data.motion.dataset import FPS, QP, Motion, VideoSpec, render_videos, write_h264
from bench.data.motion.render import CLASSES, COLOURS, PAIRS, SHAPES, Scene, Sprite, coverage, render_clip
from bench.data.sampling import uniform_test
from tests.bench.command import quoting

TWINS = list(PAIRS)
SMALL: dict[str, Any] = {"train": 2, "val": 1, "test": 1}


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def small(cache: Path) -> Motion:
    return Motion(cache=cache, **SMALL)


# ---- the scenes


@pytest.mark.parametrize("pair", TWINS, ids=str)
def test_twins_are_each_others_reversal(pair: tuple[str, str]) -> None:
    for seed in range(5):
        forward, backward = (render_clip(name, rng(seed)) for name in pair)
        assert forward.shape == (17, 40, 40, 3) and forward.dtype == np.uint8
        assert np.array_equal(forward, backward[::-1])
        assert not np.array_equal(forward, backward)


def test_noise_differs_from_frame_to_frame() -> None:
    frames = render_clip("appear", rng(0)).astype(int)
    corners = frames[:, :4, :4]
    assert all((corners[t] != corners[t + 1]).any() for t in range(16))


def shown(name: str, seed: int) -> NDArray[np.floating]:
    """Distance of each pixel from the picture's usual colour: (T, 40, 40)."""
    frames = render_clip(name, rng(seed)).astype(np.float64)
    return np.abs(frames - np.median(frames, axis=(1, 2), keepdims=True)).sum(-1).clip(min=150) - 150


def centre(maps: NDArray[np.floating]) -> NDArray[np.floating]:
    """(x, y) of each frame's middle of mass."""
    mass = maps.sum(axis=(1, 2)) + 1e-9
    places = np.arange(maps.shape[1])
    return np.stack([(maps.sum(axis=1) * places).sum(-1) / mass, (maps.sum(axis=2) * places).sum(-1) / mass], -1)


@pytest.mark.parametrize(
    ("name", "axis", "sign"), [("move-right", 0, 1), ("move-left", 0, -1), ("move-down", 1, 1), ("move-up", 1, -1)]
)
def test_moving_classes_move_that_way(name: str, axis: int, sign: int) -> None:
    ways = np.array([np.subtract(*centre(shown(name, seed))[[-1, 0]]) for seed in range(40)])
    assert (np.median(ways[:, axis]) * sign) > 10  # pixels of 40
    assert np.median(np.abs(ways[:, 1 - axis])) < 5


def test_frames_in_any_order_tell_the_line_of_a_movement() -> None:
    """A head on the mean over frames can use how far the shape is from either middle line, frame by frame."""
    right = []
    for name, along in (("move-right", 0), ("move-up", 1)):
        for seed in range(60):
            away = np.abs(centre(shown(name, seed)) - 19.5).mean(axis=0)
            right.append(away[along] > away[1 - along])
    assert np.mean(right) > 0.9


def test_the_other_classes_do_what_they_are_called() -> None:
    def mass(name: str) -> NDArray[np.floating]:
        return np.mean([shown(name, seed).sum(axis=(1, 2)) for seed in range(40)], axis=0)

    for name, sign in (("grow", 1), ("shrink", -1), ("appear", 1), ("disappear", -1)):
        first, middle, last = mass(name)[[0, 8, 16]]
        assert first * sign < middle * sign < last * sign, name

    def spread(name: str) -> NDArray[np.floating]:
        """Root mean square distance from the middle of mass, averaged over videos: (T,)."""
        y, x = np.mgrid[:40, :40]
        every = []
        for seed in range(60):
            maps = shown(name, seed)
            middle = centre(maps)
            away = (x - middle[:, 0, None, None]) ** 2 + (y - middle[:, 1, None, None]) ** 2
            every.append(np.sqrt((maps * away).sum(axis=(1, 2)) / (maps.sum(axis=(1, 2)) + 1e-9)))
        return np.mean(every, axis=0)

    assert spread("approach")[0] > spread("approach")[16] + 1
    assert spread("separate")[0] < spread("separate")[16] - 1


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_filled_about_their_centre_with_soft_edges(shape: str) -> None:
    def sprite(radius: float) -> Sprite:
        x, y, r, opacity = (np.array([v], np.float32) for v in (0.5, 0.5, radius, 1.0))
        return Sprite(shape, np.zeros(3, np.float32), 0.0, x, y, r, opacity)

    cover = coverage(sprite(0.3), 80)[0]
    assert cover.min() == 0 and cover.max() == 1 and ((cover > 0.05) & (cover < 0.95)).sum() > 20
    assert centre(cover[None].repeat(2, 0)) == pytest.approx(39.5, abs=1)
    assert 0.12 < cover.sum() / (0.6 * 80) ** 2 < 0.85
    assert coverage(sprite(0.15), 80)[0].sum() == pytest.approx(cover.sum() / 4, rel=0.06)


def test_shapes_and_colours_all_differ() -> None:
    x = np.array([0.5], np.float32)
    covers = [coverage(Sprite(s, np.zeros(3, np.float32), 0.0, x, x, x * 0.8, x / x), 40)[0] for s in SHAPES]
    for i in range(len(covers)):
        for j in range(i):
            assert np.abs(covers[i] - covers[j]).sum() > 40
    colours = np.array(list(COLOURS.values()))
    assert len(SHAPES) == 7 and len(COLOURS) == 6
    assert np.linalg.norm(colours[:, None] - colours[None], axis=-1)[~np.eye(6, dtype=bool)].min() > 0.5


def test_unknown_class() -> None:
    with pytest.raises(ValueError, match=quoting("'spin'", "move-right", "move-left")):
        render_clip("spin", rng(0))


# ---- the direction of time


@pytest.mark.parametrize("decoder", [name for name in available_decoders() if not why_unusable(name)])
@pytest.mark.parametrize("pair", TWINS, ids=str)
def test_the_files_hold_no_direction_of_time(tmp_path: Path, pair: tuple[str, str], decoder: str) -> None:
    """Encoding the frames backwards gives the same pictures backwards, bit for bit."""
    for seed in range(3):
        read = []
        for name in pair:
            write_h264(tmp_path / f"{name}.mp4", render_clip(name, rng(seed)), FPS, QP)
            read.append(open_video(tmp_path / f"{name}.mp4", decoder).frames(range(17)))  # type: ignore[arg-type]
        assert np.array_equal(read[0], read[1][::-1])
        error = float(np.mean((read[0].astype(float) - render_clip(pair[0], rng(seed))) ** 2))
        assert 10 * np.log10(255**2 / error) > 30


@pytest.mark.skipif(len(available_decoders()) < 2, reason="only one decoder is installed here")
def test_the_decoders_see_the_same_pictures(tmp_path: Path) -> None:
    write_h264(tmp_path / "a.mp4", render_clip("grow", rng(0)), FPS, QP)
    ours, theirs = (open_video(tmp_path / "a.mp4", d).frames(range(17)) for d in ("decord", "pyav"))
    assert 10 * np.log10(255**2 / max(1e-9, float(np.mean((ours.astype(float) - theirs) ** 2)))) > 40


@pytest.mark.parametrize("length", [2, 4, 8])
def test_test_sampling_sees_the_same_frames_of_a_video_and_its_reversal(length: int) -> None:
    count = Scene().frames
    chosen = uniform_test(count, length)
    assert sorted(count - 1 - chosen) == chosen.tolist() and len(set(chosen.tolist())) == length


def closed_form(train: NDArray, train_labels: NDArray, test: NDArray) -> NDArray[np.bool_]:
    """Ridge regression on +-1 labels: which of the two classes each test row is said to be."""
    mean, scale = train.mean(0), train.std(0) + 1e-6
    a, b = (train - mean) / scale, (test - mean) / scale
    gram = a @ a.T + 0.3 * a.shape[1] * np.eye(len(a))
    return (b @ a.T @ np.linalg.solve(gram, np.where(train_labels, 1.0, -1.0))) > 0


def test_order_alone_tells_twins_apart(tmp_path: Path) -> None:
    """A classifier of what the frames show, without their order, stays within chance; with it, the same one does not.

    Both see, of each video as decoded from its file, how far every cell of every test frame is from the frame's usual
    colour: the one sorted by size over time, the other as it comes.
    """
    data = Motion(cache=tmp_path, train=60, val=1, test=40)
    data.prepare()
    chosen = uniform_test(17, 8)

    def features(split: str) -> tuple[NDArray, NDArray]:
        videos = data.videos(split)  # type: ignore[arg-type]
        frames = np.stack([open_video(v.path).frames(chosen) for v in videos]).astype(np.float32)
        away = np.abs(frames - np.median(frames, axis=(2, 3), keepdims=True)).sum(-1)
        return away.reshape(len(videos), 8, 10, 4, 10, 4).mean((3, 5)).reshape(len(videos), 8, 100), np.array(
            [v.label for v in videos]
        )

    (x, labels), (test, truth) = features("train"), features("test")
    right = {"blind": 0, "ordered": 0}
    for pair in TWINS:
        first, second = (CLASSES.index(name) for name in pair)
        mine, theirs = np.isin(labels, (first, second)), np.isin(truth, (first, second))
        for kind in right:
            a, b = (np.sort(f, axis=1) if kind == "blind" else f for f in (x[mine], test[theirs]))
            said = closed_form(a.reshape(len(a), -1), labels[mine] == first, b.reshape(len(b), -1))
            right[kind] += int((said == (truth[theirs] == first)).sum())
    total = 5 * 80
    beyond = 3 * np.sqrt(total / 4)  # three standard deviations of a fair coin
    assert abs(right["blind"] - total / 2) < beyond, right
    assert right["ordered"] > total / 2 + 3 * beyond, right


# ---- on the disk


def test_registered_with_its_protocol() -> None:
    assert DATASETS.get("motion") is Motion
    data = Motion()
    assert (data.size, data.frames, data.sampling, data.flip, data.clips, data.crops) == (
        "tiny", 8, "uniform", False, 1, 1
    )  # fmt: skip
    assert len(data.classes) == 10 and data.counts == {"train": 180, "val": 20, "test": 40}


def test_prepare_writes_videos_and_lists(tmp_path: Path) -> None:
    data, seen = small(tmp_path), []
    with pytest.raises(DataError, match=quoting("motion")):
        data.videos("train")
    data.prepare(lambda done, total: seen.append((done, total)))
    assert seen == [(i, 40) for i in range(1, 41)]
    names = []
    for split, each in SMALL.items():
        videos = data.videos(split)  # type: ignore[arg-type]
        assert [v.label for v in videos] == [label for label in range(10) for _ in range(each)]
        assert all(v.path.is_file() and v.name.startswith(f"{CLASSES[v.label]}/") for v in videos)
        names += [v.name for v in videos]
        assert (data.folder / f"motion_{split}_list_videos.txt").is_file()
    assert len(set(names)) == len(names) == 40
    assert len(open_video(data.videos("val")[0].path)) == 17
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [data.folder.name]
    assert data.folder.stat().st_mode & 0o555 == 0o555  # not closed to others, as temporary folders are


def test_no_two_videos_are_drawn_from_the_same_seed(tmp_path: Path) -> None:
    lists, specs = Motion(cache=tmp_path).plan(tmp_path)
    assert [len(videos) for videos in lists.values()] == [1800, 200, 400]
    assert len({one.seed for one in specs}) == len({one.path for one in specs}) == len(specs) == 2400


def test_the_second_time_nothing_is_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(tmp_path).prepare()
    monkeypatch.setattr(module, "render_videos", lambda *_: pytest.fail("rendered again"))
    small(tmp_path).prepare()


def test_rendering_is_the_same_each_time(tmp_path: Path) -> None:
    prints = []
    for name in ("a", "b"):
        small(tmp_path / name).prepare()
        files = sorted((tmp_path / name).rglob("*.mp4"))
        prints.append(hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest())
    assert prints[0] == prints[1]
    assert small(tmp_path / "a").fingerprint() == small(tmp_path / "b").fingerprint()


def test_other_counts_are_another_folder(tmp_path: Path) -> None:
    folders = {Motion(cache=tmp_path, **{**SMALL, **change}).folder for change in ({}, {"train": 3}, {"val": 3})}
    assert len(folders) == 3
    with pytest.raises(ValueError, match=quoting(1, "test", 0)):
        Motion(test=0)


def test_a_damaged_folder_is_rendered_anew(tmp_path: Path) -> None:
    data = small(tmp_path)
    data.prepare()
    lost = data.videos("test")[3].path
    lost.unlink()
    data.prepare()
    assert lost.is_file()


def test_an_interrupted_rendering_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(tmp_path).prepare(interrupt)
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == []
    small(tmp_path).prepare()
    assert len(small(tmp_path).videos("train")) == 20


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    data = small(tmp_path)
    left = tmp_path / f"{data.folder.name}.partial-dead"
    (left / "videos").mkdir(parents=True)
    other = tmp_path / "motion-0-other.partial-alive"
    other.mkdir()
    data.prepare()
    assert not left.exists() and other.exists()


def test_two_processes_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bench.data.motion.dataset import Motion; rendered = []\n"
        "Motion(cache=Path(sys.argv[1]), train=4, val=1, test=1).prepare(lambda *a: rendered.append(a))\n"
        "print(len(rendered))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = sorted(int(process.communicate(timeout=240)[0]) for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert told == [0, 60]  # one rendered, the other waited
    assert len(list(tmp_path.rglob("*.mp4"))) == 60


def test_a_cache_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=quoting("'motion'", tmp_path / "file", "AIM_BENCH_CACHE")):
        small(tmp_path / "file" / "cache").prepare()


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "render_videos", full)
    with pytest.raises(DataError, match="No space left on device"):
        small(tmp_path).prepare()
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == []


def test_the_cache_folder_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIM_BENCH_CACHE", str(tmp_path / "here"))
    assert cache_root() == tmp_path / "here" and Motion().folder.parent == tmp_path / "here"
    monkeypatch.delenv("AIM_BENCH_CACHE")
    assert cache_root().is_absolute() and "aim-bench" in cache_root().parts


def specs_in(folder: Path) -> list[VideoSpec]:
    return [VideoSpec(folder / f"{i}.mp4", CLASSES[i % 10], (1, 2, i)) for i in range(12)]


def test_worker_processes_draw_the_same(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    for name, workers in (("alone", 1), ("both", 2)):
        (tmp_path / name).mkdir()
        render_videos(specs_in(tmp_path / name), Scene(), FPS, QP, lambda *a: seen.append(a), workers=workers)
    assert seen == 2 * [(i, 12) for i in range(1, 13)]
    for i in range(12):
        assert (tmp_path / "alone" / f"{i}.mp4").read_bytes() == (tmp_path / "both" / f"{i}.mp4").read_bytes()


def test_a_failing_worker_is_heard(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=quoting("No such file or directory")):
        render_videos(specs_in(tmp_path / "missing"), Scene(), FPS, QP, workers=2)


def test_listing_data_sets_loads_no_heavy_library() -> None:
    code = (
        "import sys; from bench.data.dataset import DATASETS; import bench.data.decode.open, bench.data.sampling\n"
        "assert 'motion' in DATASETS.names(); Motion = DATASETS.get('motion'); Motion().classes\n"
        "print([m for m in ('torch', 'torchvision', 'av', 'decord') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
