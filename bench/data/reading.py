"""A run's way of reading its videos. Imports no torch: the parent has no need of it."""

from __future__ import annotations

from dataclasses import dataclass

MOST = 16  # decoding processes of a cell where nobody says how many


@dataclass(frozen=True)
class Reading:
    """Settings for reading videos.

    Attributes:
        workers: decoding processes of a cell; 0 decodes in the cell's own process, without a limit in seconds.
        small_workers: the same for data sets whose videos are small, see `VideoDataset.small`.
        limit: seconds that decoding a clip, or a test video's views, may take in such a process.
        strict: a video that cannot be read is an error.
    """

    workers: int = 0
    small_workers: int = 0
    limit: float = 60.0
    strict: bool = False

    def processes(self, small: bool) -> int:
        """Decoding processes of a cell whose videos are small or not."""
        return self.small_workers if small else self.workers


def reading(workers: int | str, cores: int, limit: float, strict: bool) -> Reading:
    """Return a cell's settings for reading.

    Args:
        workers: decoding processes, or "auto".
        cores: there for the cell.
    """
    if isinstance(workers, int):
        return Reading(workers, workers, limit, strict)
    return Reading(min(MOST, max(1, cores)), 0, limit, strict)
