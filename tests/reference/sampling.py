"""Frame indices written from AIM's formulas, one number at a time, with Python's own `round` (halves to even)."""

from __future__ import annotations

from fractions import Fraction


def segment(n: int, length: int, i: int) -> tuple[int, int]:
    """First and last frame, inclusive, of segment i: g = (N - 1) / L, round(g i) and round(g (i + 1))."""
    g = (n - 1) / length
    return round(g * i), round(g * (i + 1))


def exact_segment(n: int, length: int, i: int) -> tuple[int, int]:
    """As `segment`, in exact arithmetic."""
    g = Fraction(n - 1, length)
    return round(g * i), round(g * (i + 1))


def uniform_test(n: int, length: int) -> list[int]:
    """(s_i + e_i) // 2."""
    indices = []
    for i in range(length):
        first, last = segment(n, length, i)
        indices.append((first + last) // 2)
    return indices


def dense_starts(n: int, length: int, stride: int) -> range:
    """Every start that a training clip may have: 0..N - w where N > w - 1, else 0 alone; w = L tau."""
    w = length * stride
    return range(n - w + 1) if n > w - 1 else range(1)


def dense_clip(n: int, length: int, stride: int, start: int) -> list[int]:
    """(start + j tau) mod N."""
    return [(start + j * stride) % n for j in range(length)]


def dense_test(n: int, length: int, stride: int, clips: int, exact: bool = False) -> list[list[int]]:
    """Clip k starts at int(k a + a / 2), a = (N - w + 1) / K, where N > w - 1, else at 0."""
    w = length * stride
    found = []
    for k in range(clips):
        a = Fraction(n - w + 1, clips) if exact else (n - w + 1) / clips
        start = int(k * a + a / 2) if n > w - 1 else 0
        found.append(dense_clip(n, length, stride, start))
    return found
