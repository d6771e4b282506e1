from __future__ import annotations

import pickle
import wave
from pathlib import Path

import numpy as np
import pytest

from bench.data.dataset import DataError
from bench.data.decode import open as opening
from bench.data.decode.base import VideoError
from bench.data.decode.open import available_decoders, open_video, why_unusable
from bench.data.motion.dataset import write_h264
from bench.spec.fields import Decoder
from tests.bench.command import quotes, quoting
from tests.bench.data.conftest import number_of, numbered
from tests.bench.data.decode.conftest import Film, psnr
from tests.bench.data.videos import turned

needs_decord = pytest.mark.skipif("decord" not in available_decoders(), reason="decord is not installed here")
DECODERS = [pytest.param("decord", marks=needs_decord), "pyav"]
ORDERS = [[0], [16], list(range(17)), [3, 3, 3], [16, 0, 8, 8, 1, 0], [5, 4, 3]]


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
def test_auto_falls_back_where_decord_cannot_decode(tmp_path: Path) -> None:
    write_h264(tmp_path / "lying.mp4", numbered(3), fps=8, qp=10)
    path = turned(tmp_path / "lying.mp4", tmp_path / "turned.mp4", 90)  # 48 pixels wide
    upright = np.rot90(numbered(3), -1, axes=(1, 2))
    with pytest.raises(VideoError, match=quoting(path, "decord")):
        open_video(path, "decord").frames([0])
    video = open_video(path)
    assert video.decoder == "decord"
    assert psnr(video.frames(range(3)), upright) > 40
    assert video.decoder == "pyav"


@needs_decord
def test_auto_prefers_decord(folder: Path) -> None:
    assert available_decoders()[:2] == ("decord", "pyav")
    assert open_video(folder / "0.mp4").decoder == "decord"


@needs_decord
def test_auto_falls_back_where_decord_cannot_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Error reading it...")

    monkeypatch.setattr("decord.VideoReader", refuse)
    video = open_video(folder / "1.mp4")
    assert video.decoder == "pyav" and number_of(video.frames([4])) == [4]
    with pytest.raises(VideoError, match=quoting("1.mp4", "decord", "Error reading it")):
        open_video(folder / "1.mp4", "decord")


def test_without_decord(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = opening.find_spec
    monkeypatch.setattr(opening, "find_spec", lambda name: None if name == "decord" else real(name))
    why_unusable.cache_clear()
    try:
        assert available_decoders()[0] == "pyav"
        assert open_video(folder / "0.mp4").decoder == "pyav"
        with pytest.raises(DataError, match=quoting("decoder is 'decord'", "installed: pyav")):
            open_video(folder / "0.mp4", "decord")
    finally:
        why_unusable.cache_clear()


@pytest.mark.parametrize("decoder", ["auto", *DECODERS])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.mp4", "No such file"),
        ("empty.mp4", "0 bytes"),
        ("junk.mp4", r"junk\.mp4: (?!.*(No such file|\b0 bytes))"),
    ],
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
    with pytest.raises(VideoError, match=quoting(tmp_path / "sound.wav")):
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


@pytest.mark.parametrize("decoder", ["auto", *DECODERS])
def test_a_file_that_may_not_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch, decoder: Decoder) -> None:
    def refuse(self: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # of real rights, a superuser's tests would see nothing
    with pytest.raises(VideoError, match=r"0.mp4: Permission denied$"):
        open_video(folder / "0.mp4", decoder)


@needs_decord
def test_what_was_found_of_a_file_holds_until_it_changes(films: dict[str, Film], tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    for kind, decoder in (("mp4 h264", "decord"), ("mp4 h264 open", "pyav"), ("mp4 h264", "decord")):
        path.write_bytes(films[kind].path.read_bytes())
        assert [open_video(path).decoder for _ in range(2)] == [decoder] * 2


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("order", [[-1], [17], [0, 99]], ids=str)
def test_indices_outside_the_video_are_refused(folder: Path, decoder: Decoder, order: list[int]) -> None:
    with pytest.raises(IndexError, match=quoting(0, 16)):
        open_video(folder / "0.mp4", decoder).frames(order)


def test_no_indices_are_refused(folder: Path) -> None:
    with pytest.raises(IndexError, match=quoting("0.mp4", "[]")):
        open_video(folder / "0.mp4").frames([])


def test_unknown_decoder(folder: Path) -> None:
    expected = quoting("decoder is 'decrod'", "auto", "decord", "pyav", "torchcodec", "'decord'")
    with pytest.raises(DataError, match=expected):
        open_video(folder / "0.mp4", "decrod")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("used", "asked", "told"),
    [
        ({"decord"}, "auto", []),
        ({"decord", "pyav"}, "auto", ["pyav"]),
        ({"decord"}, "decord", ["decord"]),
        ({"pyav", "images"}, "pyav", ["images, pyav"]),
        (set(), "auto", []),
    ],
)
def test_footnotes_tell_what_a_reader_does_not_expect(used: set[str], asked: str, told: list[str]) -> None:
    for note, decoders in zip(opening.footnotes(used, asked), told, strict=True):
        assert quotes(note, decoders)


def test_errors_survive_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(VideoError(Path("a.mp4"), "broken")))
    assert (error.path, error.reason, str(error)) == (Path("a.mp4"), "broken", "a.mp4: broken")
