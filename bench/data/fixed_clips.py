"""One clip of every training video, without anything that is drawn: what features are computed of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from bench.data.clips import Draw, Sample, TrainClips
from bench.data.sampling import test_indices


class FixedClips(TrainClips):
    """The same clip of every video in all epochs: its frames are those of a test with one clip.

    Its transform must draw nothing: crops of the whole picture, no flip. Keys are (0, index), in the list's order. A
    video that cannot be decoded is left out, as in a test.
    """

    def keys(self, epoch: int) -> list[tuple[int, int]]:
        return [(0, index) for index in range(len(self))]

    def draws(self, key: tuple[int, int]) -> Iterator[Draw]:
        yield Draw(self.videos[key[1]])

    def read(self, draw: Draw) -> Sample:
        clip, decoder = self._frames(
            draw.video, lambda n: test_indices(self.sampling, n, self.frames, self.stride, 1).reshape(-1)
        )
        with torch.random.fork_rng(devices=[]):  # it may draw, though nothing comes of it
            clip = self.transform(clip)
        return Sample(clip, draw.video.label, draw.video.name, decoder)

    def without(self, key: tuple[int, int], skipped: Mapping[str, str]) -> Sample:
        video = self.videos[key[1]]
        return Sample(None, video.label, video.name, skipped=tuple(skipped.items()))
