"""Calls to torchcodec, which this suite does not install: a stand-in with the calls that its manual describes.

`test_films.py` compares the frames of the real one wherever it can be used.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.data.dataset import DataError
from bench.data.decode.base import VideoError
from bench.data.decode.open import available_decoders, open_video, why_unusable
from tests.bench.command import quoting
from tests.bench.data.decode.conftest import Film, psnr

STAND_IN = """
from types import SimpleNamespace
import av, numpy, torch
from tests.bench.command import quoting

class VideoDecoder:
    def __init__(self, source, *, dimension_order="NCHW", num_ffmpeg_threads=1, seek_mode="exact"):
        if not isinstance(source, str):
            raise ValueError("no video")
        assert (dimension_order, num_ffmpeg_threads, seek_mode) == ("NHWC", 1, "exact")
        if "h265" in source:
            raise RuntimeError("SingleStreamDecoder, /somewhere/Decoder.cpp:123, Could not open it\\nand more")
        with av.open(source) as file:
            self.all = numpy.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
        self.metadata = SimpleNamespace(num_frames=len(self.all) - ("open" in source.rpartition("/")[2]))

    def get_frames_at(self, indices):
        return SimpleNamespace(data=torch.from_numpy(self.all[indices]))
"""
WITHOUT_FFMPEG = """
class VideoDecoder:
    def __init__(self, source):
        raise RuntimeError("Could not load libtorchcodec. Likely causes:\\n 1. FFmpeg is not properly installed")
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of the stand-in's decoders, empty so far."""
    package = tmp_path / "modules" / "torchcodec"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    gone = [name for name in sys.modules if name.split(".")[0] == "torchcodec"]
    for name in gone:
        monkeypatch.delitem(sys.modules, name)
    why_unusable.cache_clear()
    yield package / "decoders.py"
    for name in [name for name in sys.modules if name.split(".")[0] == "torchcodec"]:
        del sys.modules[name]
    why_unusable.cache_clear()


def test_frames_come_from_it_where_it_is_asked_for(films: dict[str, Film], stand_in: Path) -> None:
    stand_in.write_text(STAND_IN)
    film = films["mp4 h264"]
    assert available_decoders()[-1] == "torchcodec" and open_video(film.path).decoder != "torchcodec"
    video = open_video(film.path, "torchcodec", short_side=24)
    assert video.decoder == "torchcodec" and len(video) == 40 and video.frames([3]).shape == (1, 24, 32, 3)
    assert psnr(open_video(film.path, "torchcodec").frames([30, 2, 2]), film.frames[[30, 2, 2]]) > 40


def test_what_it_cannot_read_is_told_in_a_sentence(films: dict[str, Film], stand_in: Path) -> None:
    stand_in.write_text(STAND_IN)
    with pytest.raises(VideoError, match=quoting("h265.mp4", "torchcodec", "Could not open it")):
        open_video(films["mp4 h265"].path, "torchcodec")
    with pytest.raises(VideoError, match=quoting("torchcodec", 39, 40)):
        open_video(films["mp4 h264 open"].path, "torchcodec")


def test_without_ffmpeg(films: dict[str, Film], stand_in: Path) -> None:
    stand_in.write_text(WITHOUT_FFMPEG)
    with pytest.raises(DataError, match=quoting("decoder is 'torchcodec'", "FFmpeg")) as caught:
        open_video(films["mp4 h264"].path, "torchcodec")
    assert "\n" not in str(caught.value) and "installed: " in str(caught.value)


def test_auto_does_not_load_it(films: dict[str, Film], stand_in: Path) -> None:
    stand_in.write_text("raise RuntimeError('loaded')")
    code = (
        f"import sys; sys.path.insert(0, {str(stand_in.parent.parent)!r})\n"
        "from pathlib import Path; from bench.data.decode.open import open_video\n"
        f"open_video(Path({str(films['mp4 h264'].path)!r})).frames([1]); print('torchcodec' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
