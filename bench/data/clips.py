"""Videos as clips for training and as views for testing.

What a clip shows is drawn from (seed, epoch, index) alone: the same cell sees the same clips whatever the number of
worker processes and whatever ran before in this one.

A video that cannot be decoded does not stop a run, nor does it go unseen: every sample says which videos it had to
skip, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from bench.data.base import DataError, Sampling, Video
from bench.data.cache import FrameCache
from bench.data.decode import Decoder, VideoError
from bench.data.sampling import test_indices, train_indices
from bench.data.transforms import TestTransform, ValTransform

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
    """

    clip: Tensor | None
    label: int
    name: str
    decoder: str = ""
    skipped: tuple[tuple[str, str], ...] = ()


def _read(
    video: Video, choose: Callable[[int], NDArray[np.int64]], cache: FrameCache, decoder: Decoder
) -> tuple[Tensor, str]:
    """The frames that `choose` picks for the video's length, (T, 3, H, W) uint8, and the library that decoded them."""
    reader = cache.open(video.path, decoder)
    try:
        frames = reader.frames(choose(len(reader)))
    finally:
        reader.close()
    return torch.from_numpy(frames).permute(0, 3, 1, 2), reader.decoder


class TrainClips(Dataset[Sample]):
    """A random clip of every video.

    Items are asked for by (epoch, index): a number set on this object would not reach worker processes that live on
    from one epoch to the next.

    Args:
        frames: T, frames of a clip.
        stride: frames of the video from one frame of a dense clip to the next.
        transform: (T, 3, H, W) uint8 -> (T, 3, S, S) uint8; draws from torch's global generator.
        seed: 0 or more.
        cache: decoded videos, which may be shared with other data sets.
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
    ) -> None:
        if seed < 0:
            raise ValueError(f"the seed is {seed}: expected 0 or more")
        self.videos = videos
        self.sampling = sampling
        self.frames = frames
        self.stride = stride
        self.transform = transform
        self.seed = seed
        self.cache = FrameCache() if cache is None else cache
        self.decoder = decoder

    def __len__(self) -> int:
        return len(self.videos)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The videos' indices in the order of an epoch: (len,)."""
        return np.random.default_rng((0, self.seed, epoch)).permutation(len(self))

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The clip of video `index` in an epoch, or one of another video, drawn at random, where that one is broken.

        Raises DataError where video after video cannot be decoded.
        """
        epoch, index = key
        rng = np.random.default_rng((1, self.seed, epoch, index))
        crop_seed = int(rng.integers(2**63))
        skipped: dict[str, str] = {}
        for _ in range(_TRIES):
            video = self.videos[index]
            if video.name not in skipped:
                try:
                    clip, decoder = _read(
                        video,
                        lambda n: train_indices(self.sampling, n, self.frames, self.stride, rng),
                        self.cache,
                        self.decoder,
                    )
                except VideoError as error:
                    skipped[video.name] = error.reason
                else:
                    with torch.random.fork_rng(devices=[]):
                        # this one generator alone: torch.manual_seed would set every GPU's as well
                        torch.default_generator.manual_seed(crop_seed)
                        clip = self.transform(clip)
                    return Sample(clip, video.label, video.name, decoder, tuple(skipped.items()))
            index = int(rng.integers(len(self.videos)))
        name, reason = next(iter(skipped.items()))
        raise DataError(
            f"no training clip in {_TRIES} draws: {len(skipped)} videos cannot be decoded, the first of them {name} "
            f"({reason})"
        )


class TestClips(Dataset[Sample]):
    """The test views of every video, crops x clips: view c * K + k is crop c of clip k.

    Args:
        frames, stride, cache, decoder: as for TrainClips.
        clips: K, spread over the video; uniform sampling has one whatever this says.
        crops: 1 or 3.
        size: pixels of a view's side.
        validation: one clip with the validation's crop, which is a little enlarged; `clips` and `crops` must be 1.
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
    ) -> None:
        if validation and (clips, crops) != (1, 1):
            raise ValueError(f"validation has 1 clip and 1 crop, not {clips} and {crops}")
        self.videos = videos
        self.sampling = sampling
        self.frames = frames
        self.stride = stride
        self.clips = 1 if sampling == "uniform" else clips
        self.crops = crops
        self.transform = ValTransform(size) if validation else TestTransform(size, crops)
        self.cache = FrameCache() if cache is None else cache
        self.decoder = decoder

    @property
    def views(self) -> int:
        """V, views of a video."""
        return self.clips * self.crops

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Sample:
        video = self.videos[index]
        try:
            clips, decoder = _read(
                video,
                lambda n: test_indices(self.sampling, n, self.frames, self.stride, self.clips).reshape(-1),
                self.cache,
                self.decoder,
            )
        except VideoError as error:
            return Sample(None, video.label, video.name, skipped=((video.name, error.reason),))
        # every frame of every clip is cropped in one go: (crops, K * T, 3, S, S)
        views = self.transform(clips)
        return Sample(views.reshape(self.views, self.frames, *views.shape[2:]), video.label, video.name, decoder)
