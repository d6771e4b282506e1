"""Videos as clips for training and as views for testing.

What a clip shows is drawn from (seed, epoch, index) and from which videos are broken: the same cell sees the same clips
whatever the number of decoding processes and whatever ran before in this one.

A video that cannot be decoded does not stop a run, nor does it go unseen: every sample says which videos it had to
skip, and why. Who reads the videos, in this process or in others, is not a matter of the data set: `Clips.item` asks
for one try after the other and is told what came of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data.augment import Augment
from bench.data.cache import FrameCache
from bench.data.dataset import DataError, Sampling, Video, VideoDataset
from bench.data.decode.base import VideoError
from bench.data.sampling import test_indices, train_indices
from bench.data.transforms import TestTransform, ValTransform, before_crop
from bench.spec.fields import Decoder, Pixels
from bench.text import counted

_PIECE = 8  # frames of full size that wait for being resized: of 1080p, 50 MB
_TRIES = 16  # broken videos in a row after which a training set is given up: its folder is likely elsewhere


@dataclass(frozen=True, slots=True)
class Sample:
    """One item of a data set.

    Attributes:
        clip: uint8 (T, 3, S, S) in training, (V, T, 3, S, S) in testing; None where the video cannot be decoded.
        label: from 0.
        name: of the video that is shown.
        decoder: which library decoded it.
        skipped: (name, reason) of each video that was drawn and could not be decoded.
        seed: of what is drawn for the clip after its crop; 0 in testing.
    """

    clip: Tensor | None
    label: int
    name: str
    decoder: str = ""
    skipped: tuple[tuple[str, str], ...] = ()
    seed: int = 0


def decoded_side(dataset: VideoDataset, size: int, short_side: int | None = None, pixels: Pixels = "own") -> int | None:
    """The short side to which larger frames are decoded for a model's input of `size` pixels: the recipe's 256 for 224.

    A test whose crops are taken from a larger `short_side` has that one. None, which is their own, for released pixels,
    which are resized once, and for videos that the data set renders: those have the size that they are meant to have.
    """
    return None if dataset.content or pixels == "released" else max(before_crop(size), short_side or 0)


@dataclass(frozen=True, slots=True)
class Draw:
    """A try at an item: a video, and the seed of all that is drawn for its clip."""

    video: Video
    seed: tuple[int, ...] = ()


Key = TypeVar("Key")


class Clips(ABC, Generic[Key]):
    """A data set whose items are made from videos that may be broken.

    Args:
        videos: the list.
        cache: decoded videos, which may be shared with other data sets.
        decoder: which library decodes.
        short_side: pixels of the short side to which larger frames are decoded; None decodes them as they are.
    """

    def __init__(
        self, videos: Sequence[Video], cache: FrameCache | None, decoder: Decoder, short_side: int | None
    ) -> None:
        self.videos = videos
        self.cache = FrameCache() if cache is None else cache
        self.decoder = decoder
        self.short_side = short_side

    def __len__(self) -> int:
        return len(self.videos)

    @abstractmethod
    def keys(self, epoch: int) -> list[Key]:
        """Return the keys by which an epoch's items are asked for, in its order."""

    @abstractmethod
    def draws(self, key: Key) -> Iterator[Draw]:
        """The tries at an item, each for the case that those before it met broken videos."""

    @abstractmethod
    def read(self, draw: Draw) -> Sample:
        """The clip of a try; needs no list of videos. Raises VideoError."""

    @abstractmethod
    def without(self, key: Key, skipped: Mapping[str, str]) -> Sample:
        """The item where each of its tries met a broken video; raises DataError where there must be a clip."""

    def item(self, key: Key, broken: Mapping[Path, str]) -> Generator[Draw, Sample | str, Sample]:
        """Makes an item: yields a try, is sent its sample or why the video is broken, and returns the item.

        Args:
            broken: videos that are not tried, and why.
        """
        skipped: dict[str, str] = {}
        for draw in self.draws(key):
            if draw.video.name in skipped:
                continue
            outcome = broken.get(draw.video.path) or (yield draw)
            if isinstance(outcome, Sample):
                return replace(outcome, skipped=tuple(skipped.items()))
            skipped[draw.video.name] = outcome
        return self.without(key, skipped)

    def __getitem__(self, key: Key) -> Sample:
        """The item, read in this process. Raises DataError where there must be a clip and is none."""
        item = self.item(key, {})
        try:
            draw = next(item)
            while True:
                try:
                    outcome: Sample | str = self.read(draw)
                except VideoError as error:
                    outcome = error.reason
                draw = item.send(outcome)
        except StopIteration as end:
            done: Sample = end.value
            return done

    def _frames(
        self,
        video: Video,
        choose: Callable[[int], NDArray[np.int64]],
        resize: Callable[[Tensor, tuple[int, int] | None], Tensor] | None = None,
    ) -> tuple[Tensor, str]:
        """The frames that `choose` picks for the video's length, (T, 3, H, W) uint8, and the library that decoded.

        Args:
            resize: makes another size of some frames, which are (H, W) in the video; None leaves them as they are.
        """
        try:
            reader = self.cache.open(video.path, self.decoder, self.short_side, video.frames)
            try:
                wanted = choose(len(reader))
                step = len(wanted) if resize is None else _PIECE
                pieces = []
                for start in range(0, len(wanted), step):
                    piece = torch.from_numpy(reader.frames(wanted[start : start + step])).permute(0, 3, 1, 2)
                    pieces.append(piece if resize is None else resize(piece, reader.full_size))
            finally:
                reader.close()
        except DataError:
            raise
        except Exception as error:  # whatever a file's bytes may drive a library to, it is that file which is broken
            raise VideoError(video.path, f"it cannot be decoded ({type(error).__name__}: {error})") from error
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces), reader.decoder


class TrainClips(Clips[tuple[int, int]]):
    """A random clip of every video, or of another one, drawn at random, where that is broken. Keys: (epoch, index).

    Args:
        frames: T, frames of a clip.
        stride: frames of the video from one frame of a dense clip to the next.
        transform: (T, 3, H, W) uint8 -> (T, 3, S, S) uint8; draws from torch's global generator.
        seed: 0 or more.
        cache: decoded videos, which may be shared with other data sets.
        decoder: which library decodes.
        augment: what is done to the clip after the transform; None leaves it to the device.
        short_side: pixels of the short side to which larger frames are decoded; None decodes them as they are.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        sampling: Sampling,
        frames: int,
        stride: int,
        transform: Callable[[Tensor], Tensor],
        seed: int,
        cache: FrameCache | None = None,
        decoder: Decoder = "auto",
        augment: Augment | None = None,
        short_side: int | None = None,
    ) -> None:
        if seed < 0:
            raise ValueError(f"the seed is {seed}: expected 0 or more")
        super().__init__(videos, cache, decoder, short_side)
        self.sampling = sampling
        self.frames = frames
        self.stride = stride
        self.transform = transform
        self.seed = seed
        self.augment = augment

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The videos' indices in the order of an epoch: (len,)."""
        return np.random.default_rng((0, self.seed, epoch)).permutation(len(self))

    def keys(self, epoch: int) -> list[tuple[int, int]]:
        return [(epoch, int(index)) for index in self.order(epoch)]

    def others(self, key: tuple[int, int]) -> Iterator[int]:
        """Indices of the videos that are tried in place of one that is broken, drawn at random."""
        rng = np.random.default_rng((2, self.seed, *key))
        return (int(rng.integers(len(self))) for _ in range(1, _TRIES))

    def draws(self, key: tuple[int, int]) -> Iterator[Draw]:
        epoch, index = key
        yield Draw(self.videos[index], (1, self.seed, epoch, index))
        for number, other in enumerate(self.others(key), start=1):
            yield Draw(self.videos[other], (1, self.seed, epoch, index, number))

    def read(self, draw: Draw) -> Sample:
        rng = np.random.default_rng(draw.seed)
        crop_seed = int(rng.integers(2**63))
        clip, decoder = self._frames(
            draw.video, lambda n: train_indices(self.sampling, n, self.frames, self.stride, rng)
        )
        with torch.random.fork_rng(devices=[]):
            # this one generator alone: torch.manual_seed would set every GPU's as well
            torch.default_generator.manual_seed(crop_seed)
            clip = self.transform(clip)
            seed = int(torch.randint(2**63 - 1, ()))
        if self.augment is not None:
            clip = self.augment(clip, seed)
        return Sample(clip, draw.video.label, draw.video.name, decoder, seed=seed)

    def without(self, key: tuple[int, int], skipped: Mapping[str, str]) -> Sample:
        name, reason = next(iter(skipped.items()))
        raise DataError(
            f"no training clip in {_TRIES} draws: {counted(len(skipped), 'video')} cannot be decoded, "
            f"the first of them {name} ({reason})"
        )


class TestClips(Clips[int]):
    """The test views of every video, crops x clips: view c * K + k is crop c of clip k. Keys: the videos' indices.

    Args:
        frames, stride, cache, decoder, short_side: as for TrainClips.
        clips: K, spread over the video; uniform sampling has one whatever this says.
        crops: 1 or 3.
        size: pixels of a view's side.
        validation: one clip with the validation's crop, which is a little enlarged; `clips` and `crops` must be 1.
        view_side: pixels of the short side from which crops are taken; None for `size`, and in the validation.
        pixels: how frames are resized.
    """

    __test__ = False  # not a test case, whatever pytest makes of its name

    def __init__(
        self,
        videos: Sequence[Video],
        sampling: Sampling,
        frames: int,
        stride: int,
        clips: int,
        crops: Literal[1, 3],
        size: int,
        cache: FrameCache | None = None,
        decoder: Decoder = "auto",
        validation: bool = False,
        short_side: int | None = None,
        view_side: int | None = None,
        pixels: Pixels = "own",
    ) -> None:
        if validation and (clips, crops, view_side) != (1, 1, None):
            of = f" of a short side of {view_side}" if view_side else ""
            raise ValueError(f"validation has 1 clip and 1 crop, not {clips} and {crops}{of}")
        super().__init__(videos, cache, decoder, short_side)
        self.sampling = sampling
        self.frames = frames
        self.stride = stride
        self.clips = 1 if sampling == "uniform" else clips
        self.crops = crops
        self.transform = ValTransform(size, pixels) if validation else TestTransform(size, crops, view_side, pixels)

    @property
    def views(self) -> int:
        """V, views of a video."""
        return self.clips * self.crops

    def keys(self, epoch: int) -> list[int]:
        return list(range(len(self)))

    def draws(self, key: int) -> Iterator[Draw]:
        yield Draw(self.videos[key])

    def read(self, draw: Draw) -> Sample:
        clips, decoder = self._frames(
            draw.video,
            lambda n: test_indices(self.sampling, n, self.frames, self.stride, self.clips).reshape(-1),
            self.transform.resize,
        )
        # every frame of every clip is cropped in one go: (crops, K * T, 3, S, S)
        views = self.transform.crop(clips)
        views = views.reshape(self.views, self.frames, *views.shape[2:])
        return Sample(views, draw.video.label, draw.video.name, decoder)

    def without(self, key: int, skipped: Mapping[str, str]) -> Sample:
        video = self.videos[key]
        return Sample(None, video.label, video.name, skipped=tuple(skipped.items()))
