"""Opening of videos: the decoders that can be used here, and the choice of one for a file."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from backbones.registry import did_you_mean
from bench.data.dataset import DataError
from bench.data.decode.base import Frames, VideoError, VideoReader
from bench.data.decode.decord import DecordReader
from bench.data.decode.images import ImagesReader
from bench.data.decode.pyav import PyavReader
from bench.data.decode.torchcodec import TorchcodecReader
from bench.spec.fields import DECODERS, Decoder


def open_video(
    path: Path, decoder: Decoder = "auto", short_side: int | None = None, frames: int | None = None
) -> VideoReader:
    """Open a video file, or a folder of numbered pictures.

    Args:
        decoder: "decord", "pyav" or "torchcodec" for that one alone; "auto" for decord, and PyAV where decord is not
            installed, cannot read the file, or would give other frames than it is asked for. A folder's pictures are
            read by Pillow whatever this says.
        short_side: pixels that the frames' short side has at most, their proportions kept; the same frames for every
            decoder.
        frames: how many pictures a folder has, where a list says.

    Raises VideoError where the file is missing, empty, cut short or not a video, DataError for a decoder that cannot be
    used here.
    """
    if reason := why_unusable(decoder):
        raise DataError(reason)
    try:
        size = path.stat().st_size
        if path.is_dir():
            return ImagesReader(path, short_side, frames)
        if not path.is_file():
            raise VideoError(path, "not a file")
        if not size:
            raise VideoError(path, "the file is empty (0 bytes)")
        with path.open("rb"):
            pass
    except OSError as error:
        raise VideoError(path, error.strerror or "the file cannot be read") from error
    if decoder == "decord":
        return DecordReader(path, short_side)
    if decoder == "torchcodec":
        return TorchcodecReader(path, short_side)
    if decoder == "pyav" or why_unusable("decord"):
        return PyavReader(path, short_side)
    try:
        return _Either(path, short_side)
    except VideoError:  # decord cannot open it, or would misread it
        return PyavReader(path, short_side)


class _Either(VideoReader):
    """A video that decord opens, read by PyAV from where decord fails on.

    decord cannot decode, among others, turned videos whose upright width is not a multiple of 32.
    """

    def __init__(self, path: Path, short_side: int | None) -> None:
        super().__init__(path, short_side)
        self._reader: VideoReader = DecordReader(path)

    @property
    def decoder(self) -> str:  # type: ignore[override]  # it may change with the frames that are read
        return self._reader.decoder

    def __len__(self) -> int:
        return len(self._reader)

    def _read(self, indices: list[int]) -> Frames:
        try:
            return self._reader._read(indices)
        except VideoError:
            if self.decoder == "pyav":
                raise
            other = PyavReader(self.path)
            self._reader.close()
            self._reader = other
            return other._read(indices)

    def close(self) -> None:
        self._reader.close()


_MODULES = {"decord": "decord", "pyav": "av", "torchcodec": "torchcodec"}


def available_decoders() -> tuple[str, ...]:
    """The decoders that are installed, whether they load or not."""
    return tuple(name for name, module in _MODULES.items() if find_spec(module))


@cache
def why_unusable(decoder: str) -> str:
    """Return why a decoder cannot be used here; an empty text where it can. One that is named is loaded."""
    if decoder not in DECODERS:
        return f"decoder is {decoder!r}: expected one of {', '.join(DECODERS)}{did_you_mean(decoder, DECODERS)}"
    if decoder == "auto":
        return ""
    installed = ", ".join(available_decoders())
    if decoder not in available_decoders():
        return f"decoder is {decoder!r}: it is not installed here (installed: {installed})"
    try:
        import_module(_MODULES[decoder])
        if decoder == "torchcodec":
            from bench.data.decode.torchcodec import check_libraries

            check_libraries()
    except (ImportError, OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"decoder is {decoder!r}: it is installed and cannot be loaded: {reason} (installed: {installed})"
    return ""


def footnotes(used: Iterable[str], asked: str) -> list[str]:
    """Return a table's notes on who decoded: none where it is decord and nothing else was asked for."""
    told = sorted(set(used) - ({"decord"} if asked == "auto" else set()))
    return [f"decoded by {', '.join(told)}"] if told else []
