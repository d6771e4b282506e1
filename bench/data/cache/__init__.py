"""Decoded frames, kept so that the epochs, cells and workers of a matrix decode each video once.

`FrameCache` is the one door; `choose` says where its frames lie.
"""

from bench.data.cache.frames import FrameCache
from bench.data.cache.store import FolderStore

__all__ = ["FolderStore", "FrameCache"]
