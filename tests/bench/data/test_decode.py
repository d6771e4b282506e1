from __future__ import annotations

import pickle
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data import decode
from bench.data.base import DataError
from bench.data.decode import Decoder, VideoError, available_decoders, open_video
from bench.data.encode import write_h264
from tests.bench.data.conftest import number_of, numbered

needs_decord = pytest.mark.skipif("decord" not in available_decoders(), reason="decord is not installed here")
DECODERS = [pytest.param("decord", marks=needs_decord), "pyav"]
ORDERS = [[0], [16], list(range(17)), [3, 3, 3], [16, 0, 8, 8, 1, 0], [5, 4, 3]]


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Decibels; 99 for the same pictures."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


def write(path: Path, codec: str, frames: NDArray[np.uint8], **options: str) -> Path:
    """A file with key frames far apart and frames that depend on later ones, as real videos have."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("long")
    frames = np.clip(numbered(1).astype(int) + np.arange(110)[:, None, None, None], 0, 255).astype(np.uint8)
    return {
        "mp4": write(root / "long.mp4", "libx264", frames, g="30", bf="3", crf="10"),
        "webm": write(root / "long.webm", "libvpx-vp9", frames, g="40", crf="10", speed="8"),
        "avi": write(root / "long.avi", "mpeg4", frames, g="30", bf="2", qscale="2"),
        "h264 avi": write(root / "long_h264.avi", "libx264", frames, g="30", bf="2", crf="10"),
    }


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_frames_come_as_asked(folder: Path, decoder: Decoder, order: list[int]) -> None:
    video = open_video(folder / "0.mp4", decoder)
    frames = video.frames(np.array(order))
    assert video.decoder == decoder and len(video) == 17
    assert frames.dtype == np.uint8 and frames.shape == (len(order), 48, 64, 3)
    assert number_of(frames) == order
    assert psnr(frames, numbered(17)[order]) > 40  # colours and all: the encoder's and the decoder's matrices agree


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_reader_can_be_asked_again(folder: Path, decoder: Decoder) -> None:
    video = open_video(folder / "0.mp4", decoder)
    assert [number_of(video.frames([i]))[0] for i in (9, 10, 2, 2, 16, 0)] == [9, 10, 2, 2, 16, 0]


@needs_decord
@pytest.mark.parametrize("kind", ["mp4", "webm"])
@pytest.mark.parametrize("order", [[100], [0, 109], [31, 30, 29], [70, 5, 5, 69, 108], list(range(110))], ids=str)
def test_the_decoders_agree_on_files_with_dependent_frames(long: dict[str, Path], kind: str, order: list[int]) -> None:
    ours, theirs = (open_video(long[kind], decoder) for decoder in ("pyav", "decord"))
    assert len(ours) == len(theirs) == 110
    assert psnr(ours.frames(order), theirs.frames(order)) > 40


@pytest.mark.parametrize("kind", ["mp4", "webm", "avi", "h264 avi"])
def test_pyav_is_exact_after_jumps(long: dict[str, Path], kind: str) -> None:
    whole = open_video(long[kind], "pyav").frames(range(110))
    assert (np.diff(whole.mean(axis=(1, 2, 3))) > 0).all()  # a frame a step of brightness, in order
    for order in ([100], [0, 109], [31, 30, 29], [70, 5, 5, 69, 108]):
        assert np.array_equal(open_video(long[kind], "pyav").frames(order), whole[order]), order


def test_auto_leaves_avi_to_pyav(long: dict[str, Path]) -> None:
    assert open_video(long["avi"]).decoder == "pyav"


def turned(path: Path, height: int, width: int) -> tuple[Path, NDArray[np.uint8]]:
    """A video stored lying down with a note that says so, as phones write it; and how it looks upright."""
    frames = numbered(3, height, width)
    write_h264(path, frames, fps=8, qp=10)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    one = 1 << 16
    data[at : at + 36] = np.array([0, one, 0, -one, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()  # a quarter, clockwise
    path.write_bytes(data)
    return path, np.rot90(frames, -1, axes=(1, 2))


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_turned_picture_is_set_upright(tmp_path: Path, decoder: Decoder) -> None:
    path, upright = turned(tmp_path / "turned.mp4", 64, 96)
    assert psnr(open_video(path, decoder).frames(range(3)), upright) > 40


@needs_decord
def test_auto_falls_back_where_decord_cannot_decode(tmp_path: Path) -> None:
    path, upright = turned(tmp_path / "turned.mp4", 48, 64)
    with pytest.raises(VideoError, match="decord cannot decode"):
        open_video(path, "decord").frames([0])
    video = open_video(path)
    assert video.decoder == "decord"
    assert psnr(video.frames(range(3)), upright) > 40
    assert video.decoder == "pyav"


@needs_decord
def test_auto_prefers_decord(folder: Path) -> None:
    assert available_decoders() == ("decord", "pyav")
    assert open_video(folder / "0.mp4").decoder == "decord"


@needs_decord
def test_auto_falls_back_where_decord_cannot_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Error reading it...")

    monkeypatch.setattr("decord.VideoReader", refuse)
    video = open_video(folder / "1.mp4")
    assert video.decoder == "pyav" and number_of(video.frames([4])) == [4]
    with pytest.raises(VideoError, match="decord cannot open"):
        open_video(folder / "1.mp4", "decord")


def test_without_decord(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = decode._import
    monkeypatch.setattr(decode, "_import", lambda name: None if name == "decord" else real(name))
    assert available_decoders() == ("pyav",)
    assert open_video(folder / "0.mp4").decoder == "pyav"
    with pytest.raises(DataError, match=r"decord is not installed here \(installed: pyav\)"):
        open_video(folder / "0.mp4", "decord")


@pytest.mark.parametrize("decoder", ["auto", *DECODERS])
@pytest.mark.parametrize(
    ("name", "reason"), [("missing.mp4", "No such file"), ("empty.mp4", "0 bytes"), ("junk.mp4", "cannot open it")]
)
def test_what_is_no_video_says_so(folder: Path, decoder: Decoder, name: str, reason: str) -> None:
    with pytest.raises(VideoError, match=reason) as caught:
        open_video(folder / name, decoder)
    assert caught.value.path == folder / name and "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder / name))


@pytest.mark.parametrize("decoder", ["auto", *DECODERS])
def test_a_file_of_sound_alone_is_no_video(tmp_path: Path, decoder: Decoder) -> None:
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    with pytest.raises(VideoError, match="video"):
        open_video(tmp_path / "sound.wav", decoder)


@pytest.mark.parametrize("decoder", ["auto", *DECODERS])
def test_a_file_cut_short_is_an_error_and_no_traceback(folder: Path, tmp_path: Path, decoder: Decoder) -> None:
    data = (folder / "0.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError):
        open_video(tmp_path / "cut.mp4", decoder).frames(range(17))


@pytest.mark.parametrize("decoder", DECODERS)
def test_damaged_frames_are_an_error(folder: Path, tmp_path: Path, decoder: Decoder) -> None:
    data = bytearray((folder / "0.mp4").read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)  # the index stays whole, the pictures are zeros
    (tmp_path / "damaged.mp4").write_bytes(data)
    with pytest.raises(VideoError):
        open_video(tmp_path / "damaged.mp4", decoder).frames([0, 8])


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="not a file"):
        open_video(tmp_path)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("order", [[-1], [17], [0, 99]], ids=str)
def test_indices_outside_the_video_are_refused(folder: Path, decoder: Decoder, order: list[int]) -> None:
    with pytest.raises(IndexError, match="outside the video's 0 to 16"):
        open_video(folder / "0.mp4", decoder).frames(order)


def test_no_indices_are_refused(folder: Path) -> None:
    with pytest.raises(IndexError, match="expected a list of frame indices"):
        open_video(folder / "0.mp4").frames([])


def test_unknown_decoder(folder: Path) -> None:
    with pytest.raises(ValueError, match="'opencv': expected 'auto', 'decord' or 'pyav'"):
        open_video(folder / "0.mp4", "opencv")  # type: ignore[arg-type]


def test_errors_survive_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(VideoError(Path("a.mp4"), "broken")))
    assert (error.path, error.reason, str(error)) == (Path("a.mp4"), "broken", "a.mp4: broken")
