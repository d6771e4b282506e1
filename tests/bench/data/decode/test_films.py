"""Every decoder gives the frames that come when a file is decoded from start to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench.data.decode.base import VideoError
from bench.data.decode.open import available_decoders, open_video, why_unusable
from bench.data.decode.pyav import PyavReader
from bench.spec.fields import Decoder
from tests.bench.command import Wording, quoting
from tests.bench.data.decode.conftest import Film, orders, psnr
from tests.bench.data.videos import RATE, WIDTH

needs_decord = pytest.mark.skipif("decord" not in available_decoders(), reason="decord is not installed here")

# by decord under auto
PLAIN = [
    "mp4 h264",
    "mp4 h264 fragments",
    "mp4 h264 grey",
    "mp4 h264 full range",
    "mp4 h264 bt709",
    "mp4 h264 4:4:4 odd",
    "mp4 h264 one frame",
    "mp4 h264 uneven",
    "mp4 h264 turned 90",
    "mp4 h264 turned 180",
    "mp4 h264 turned 270",
    "mp4 h265",
    "mp4 mpeg4",
    "mkv h264",
    "mkv h265",
    "webm vp9",
    "webm vp9 uneven",
    "webm vp9 one frame",
]
# what decord 0.6 reads wrongly without a word: other frames, other colours, or another number of frames; and what the
# refusal quotes of it beside its reason
MISREAD = {
    "mp4 h264 open": "",
    "mp4 h264 interlaced": "",
    "mp4 h264 start cut": "",
    "mp4 h264 end cut": "",
    "mp4 h264 between keys": "",
    "mp4 h265 open": "",
    "mp4 h265 ten bits": "yuv420p10le",
    "mp4 mpeg4 b-frames": "",
    "mkv h264 open": "",
    "mkv h264 from an open key": "",
    "mkv mpeg4 b-frames": "",
    "webm vp9 odd": "",
    "avi mpeg4 b-frames": "'avi'",
    "avi h264": "'avi'",
    "ts h264": "'mpegts'",
}
# what decord cannot open, and one that it could read: no AVI file is left to it
OTHERS = {"mp4 av1": "", "webm av1": "", "avi mpeg4": "'avi'"}
KINDS = [*PLAIN, *MISREAD, *OTHERS]
# what torchcodec says that it cannot read, counts otherwise, and gives in colours that differ by a rounding or a line
BEYOND_TORCHCODEC = {
    *("avi mpeg4 b-frames", "avi h264", "ts h264"),
    *("mp4 h264 between keys", "mkv h264 from an open key"),
    *("mp4 h264 interlaced", "mp4 h265 ten bits"),
}


def test_every_kind_is_tested(films: dict[str, Film]) -> None:
    assert sorted(KINDS) == sorted(films)


def agree(film: Film, decoder: Decoder) -> None:
    """One reader that is asked for everything, and a new one for each order."""
    asked = open_video(film.path, decoder)
    for order in orders(len(film.frames)):
        for video in (asked, open_video(film.path, decoder)):
            assert len(video) == len(film.frames)
            assert psnr(video.frames(order), film.frames[order]) > 40, order


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_auto_and_pyav_are_exact(films: dict[str, Film], kind: str, decoder: Decoder) -> None:
    agree(films[kind], decoder)


@needs_decord
@pytest.mark.parametrize("kind", PLAIN)
def test_decord_is_exact(films: dict[str, Film], kind: str) -> None:
    agree(films[kind], "decord")


@pytest.mark.skipif(bool(why_unusable("torchcodec")), reason="torchcodec cannot be used here")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in BEYOND_TORCHCODEC])
def test_torchcodec_is_exact(films: dict[str, Film], kind: str) -> None:
    agree(films[kind], "torchcodec")


@needs_decord
@pytest.mark.parametrize("kind", KINDS)
def test_auto_leaves_to_decord_what_it_reads_rightly(films: dict[str, Film], kind: str) -> None:
    assert open_video(films[kind].path).decoder == ("decord" if kind in PLAIN else "pyav")


@needs_decord
@pytest.mark.parametrize(("kind", "value"), (MISREAD | OTHERS).items())
def test_decord_by_name_refuses_what_it_misreads(
    films: dict[str, Film], kind: str, value: str, wording: Wording
) -> None:
    with pytest.raises(VideoError, match=quoting(films[kind].path, "decord", value, "auto", "pyav")) as caught:
        open_video(films[kind].path, "decord")
    wording([caught.value])


@needs_decord
@pytest.mark.parametrize("kind", MISREAD)
def test_the_library_does_misread_it(films: dict[str, Film], kind: str) -> None:
    """Else it is refused without need: where a new decord gets it right, this says so."""
    import decord

    film = films[kind]

    def right() -> bool:
        for order in orders(len(film.frames)):
            video: Any = decord.VideoReader(str(film.path), num_threads=1)
            if len(video) != len(film.frames) or psnr(video.get_batch(order).asnumpy(), film.frames[order]) <= 40:
                return False
        return True

    assert not right()


def test_pyav_decodes_what_is_needed_alone(films: dict[str, Film], monkeypatch: pytest.MonkeyPatch) -> None:
    real, came = PyavReader._decode, []

    def count(reader: PyavReader) -> Any:
        for frame in real(reader):
            came.append(frame.pts)
            yield frame

    monkeypatch.setattr(PyavReader, "_decode", count)
    open_video(films["mp4 h264"].path, "pyav").frames([35])
    # the last key frame is the 36th at the latest of 40, and of those between every second is one on which others lean
    assert len(came) <= 10
    came.clear()
    assert len(open_video(films["avi mpeg4"].path, "pyav").frames([39])) == 1 and len(came) <= 12


@pytest.mark.parametrize("kind", ["mp4 h264", "mp4 h265 open", "webm vp9", "mkv h264", "mp4 h264 start cut"])
def test_pyav_does_not_start_over(films: dict[str, Film], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is wanted is passed over: it would still come, from a second way through the file."""
    video = open_video(films[kind].path, "pyav")
    monkeypatch.setattr(PyavReader, "_rewind", lambda reader: pytest.fail("started over"))
    video.frames([1, 2, 20, 21, 22])
    video.frames([23, 24, 34])


# ---- reduced size


def by_pillow(frames: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.fromarray(f).resize((width, height), Image.Resampling.BILINEAR)) for f in frames])


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav", "torchcodec"])
@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("mp4 h264", (24, 32)),
        ("mp4 h264 4:4:4 odd", (24, 32)),  # 24 * 63 / 47 = 32.17
        ("mp4 h264 turned 90", (36, 24)),  # 96x64 set upright
        ("webm vp9", (24, 32)),
    ],
)
def test_frames_come_smaller_alike(films: dict[str, Film], kind: str, size: tuple[int, int], decoder: Decoder) -> None:
    if why_unusable(decoder):
        pytest.skip("not to be used here")
    film, order = films[kind], [30, 2, 2, 17, *range(10)]
    video = open_video(film.path, decoder, short_side=24)
    small = video.frames(order)
    assert small.shape == (len(order), *size, 3) and small.dtype == np.uint8 and len(video) == len(film.frames)
    assert psnr(small, by_pillow(film.frames[order], *size)) > 40


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("short_side", [48, 49, 1000])
def test_no_frame_is_enlarged(films: dict[str, Film], short_side: int, decoder: Decoder) -> None:
    if why_unusable(decoder):
        pytest.skip("not to be used here")
    film = films["mp4 h264"]
    assert np.array_equal(open_video(film.path, decoder, short_side).frames([3, 20]), film.frames[[3, 20]])


def test_a_short_side_of_nothing_is_refused(films: dict[str, Film]) -> None:
    with pytest.raises(ValueError, match=quoting("short_side is 0", 1)):
        open_video(films["mp4 h264"].path, "pyav", 0)


# ---- broken files


def whole_film(films: dict[str, Film], folder: Path, name: str) -> Path:
    """The file of this name: one of `films`, or made here."""
    from tests.bench.data.videos import VP9, X264, picture, write

    if name in ("fast.mp4", "long.mkv"):
        return write(folder / name, "libx264", picture(), container={"movflags": "faststart"}, **X264)
    if name == "long.webm":
        return write(folder / name, "libvpx-vp9", picture(), **VP9)
    return next(film.path for film in films.values() if film.path.name == name)


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav", "torchcodec"])
@pytest.mark.parametrize("name", ["fast.mp4", "long.mkv", "long.webm", "mpeg4.avi", "h264.mp4", "parts.mp4"])
def test_a_file_cut_short_is_told(films: dict[str, Film], tmp_path: Path, name: str, decoder: Decoder) -> None:
    if why_unusable(decoder):
        pytest.skip("not to be used here")
    data = whole_film(films, tmp_path, name).read_bytes()
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(VideoError, match=quoting(cut)) as caught:
        open_video(cut, decoder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["fast.mp4", "parts.mp4", "mpeg4.avi"])
def test_a_file_cut_between_two_frames_is_told(films: dict[str, Film], tmp_path: Path, name: str) -> None:
    """FFmpeg reads such a file as one that holds fewer frames: no frame of it is broken."""
    import av

    whole = whole_film(films, tmp_path, name)
    assert len(open_video(whole, "pyav")) == 40
    with av.open(str(whole)) as file:
        ends = [packet.pos + packet.size for packet in file.demux(video=0) if packet.size and packet.pos is not None]
    for end in sorted(ends)[4:30:5]:  # not behind a whole fragment of 12 frames
        cut = tmp_path / f"{end}_{name}"
        cut.write_bytes(whole.read_bytes()[:end])
        with pytest.raises(VideoError, match=quoting(cut)):
            open_video(cut, "pyav")


def test_a_wrong_size_in_a_file_with_all_its_frames_is_no_cut(films: dict[str, Film], tmp_path: Path) -> None:
    """A recorder that wrote one is not a reason to refuse what can be read whole."""
    data = films["mp4 h264"].path.read_bytes()
    path = tmp_path / "tail.mp4"
    path.write_bytes(data + (1 << 20).to_bytes(4, "big") + b"free")
    assert len(open_video(path, "pyav")) == 40


def test_a_short_video_with_long_sound_is_whole(tmp_path: Path) -> None:
    """The picture ends before the file does, and the file is not cut."""
    import av

    from tests.bench.data.videos import picture

    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as file:
        video: Any = file.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = WIDTH, 48, "yuv420p"
        sound: Any = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        for frame in picture(10):
            file.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(video.encode())
        for i in range(20):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            silence.sample_rate, silence.pts = 8000, 800 * i
            file.mux(sound.encode(silence))
        file.mux(sound.encode())
    assert len(open_video(path, "pyav")) == 10
