"""Damaged copies of microscope files: what transfers, disks and other programs do to them, and worse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from support.containers import Acquisition, write_blo, write_container, write_hspy, write_mib, write_tif

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORMATS = ("dm3", "dm4", "emd", "hspy", "blo", "mib", "tif")
_EXTREME = (
    0,
    1,
    -1,
    2,
    255,
    65535,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**63 - 1,
    -(2**63),
    10**6,
    10**9,
    -6,
    -64,
)
_TEXTS = (b"0", b"-1", b"1", b"99999999", b"-99999999", b"1e308", b"nan", b"4294967296", b"9" * 40)


def lattice_frames(n_frames: int, side: int) -> np.ndarray:
    """Return (n_frames, side, side) counts of uint16: a square lattice of spots on a background, each turned a bit more."""
    rng = np.random.default_rng(7)
    row, col = np.mgrid[:side, :side] - (side - 1) / 2
    frames = np.full((n_frames, side, side), 20.0)
    for frame, angle in zip(frames, np.linspace(0.1, 0.5, n_frames), strict=True):
        vectors = side / 7 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        for m, n in np.ndindex(7, 7):
            r, c = np.array([m - 3, n - 3]) @ vectors
            height = 1500 * np.exp(-0.01 * (r**2 + c**2) * (64 / side) ** 2)
            frame += height * np.exp(-((row - r) ** 2 + (col - c) ** 2) / 2 / 1.3**2)
    return np.minimum(rng.poisson(frames), 65535).astype(np.uint16)


def write_seeds(folder: Path) -> dict[str, list[Path]]:
    """Write intact files of every format; return them by their format."""
    stack = lattice_frames(3, 64)
    single, small = lattice_frames(1, 96)[0], (stack // 8).astype(np.uint8)
    plain = Acquisition(units=None, camera_length_mm=None)
    about = Acquisition(scale=(0.35, 0.35), centre=(31.5, 31.5))
    found = {
        "dm3": [
            write_container(folder / "stack.dm3", stack, about),
            write_container(folder / "single.dm3", single.astype(np.float32), plain),
        ],
        "dm4": [
            write_container(folder / "stack.dm4", stack.astype(np.int32), about),
            write_container(folder / "single.dm4", single, plain),
        ],
        "emd": [
            write_container(folder / "velox.emd", stack, about),
            write_container(folder / "velox_single.emd", single, plain),
            write_container(folder / "ncem.emd", stack, about, variant="ncem"),
            write_container(folder / "ncem_single.emd", single.astype(np.float32), about, variant="ncem"),
        ],
        "hspy": [
            write_container(folder / "stack.hspy", stack, about),
            write_hspy(folder / "scan.hspy", small[None], ["nm", "nm", "$A^{-1}$", "$A^{-1}$"], [1, 1, 0.03, 0.03]),
        ],
        "blo": [write_blo(folder / "scan.blo", small), write_blo(folder / "single.blo", (single // 8)[None])],
        "mib": [write_mib(folder / "scan.mib", stack[None]), write_mib(folder / "bytes.mib", small)],
        "tif": [
            write_tif(folder / "stack.tif", stack),
            write_tif(folder / "single.tif", single, byteorder=">"),
            write_tif(folder / "packed.tif", stack, compression="zlib"),
            write_tif(folder / "tiled.tif", single.astype(np.float32), tile=(32, 32)),
            write_tif(folder / "colour.tif", small, photometric="rgb", planarconfig="separate"),
            write_tif(folder / "imagej.tif", stack, imagej=True),
        ],
    }  # fmt: skip
    return found


def draw(
    index: int, seed: int, seeds: dict[str, list[Path]], real: dict[str, list[Path]]
) -> tuple[str, Path, str, bytes]:
    """Return format, intact file, damage and damaged content number `index`; a quarter is made of `real` files if any."""
    rng = np.random.default_rng([seed, index])
    kind = FORMATS[index % len(FORMATS)]
    found = real.get(kind) if real.get(kind) and rng.random() < 0.25 else seeds[kind]
    source = found[rng.integers(len(found))]
    others = [path for name, paths in seeds.items() if name != kind for path in paths]
    damage, content = mutate(source.read_bytes(), rng, others[rng.integers(len(others))].read_bytes())
    return kind, source, damage, content


def mutate(raw: bytes, rng: np.random.Generator, other: bytes) -> tuple[str, bytes]:
    """Return the name of a damage drawn at random, and a copy that has it; `other` is an intact file of another format."""
    kinds = list(_KINDS)
    while True:  # zeros in place of zeros are no damage
        kind = kinds[rng.choice(len(kinds), p=_WEIGHTS)]
        content = _KINDS[kind](raw, rng, other)
        if content != raw:
            return kind, content


def _truncate(raw: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    return raw[: int(rng.integers(1, len(raw)))]


def _bits(raw: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    data = np.frombuffer(raw, np.uint8).copy()
    for _ in range(int(2 ** rng.uniform(0, 7))):
        data[_place(len(raw), 1, rng)] ^= np.uint8(1 << rng.integers(8))
    return data.tobytes()


def _run(raw: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    n = min(len(raw), int(2 ** rng.uniform(0, 13)))
    at = _place(len(raw), n, rng)
    return raw[:at] + bytes([rng.choice([0, 255])]) * n + raw[at + n :]


def _integers(raw: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    data = bytearray(raw)
    for _ in range(int(rng.integers(1, 4))):
        width = int(rng.choice([2, 4, 8]))
        at = _place(len(raw), width, rng)
        if rng.random() < 0.7:
            at = _number_near(raw, at, width)
        value = int(rng.choice(np.array(_EXTREME, dtype=object)))
        order = "little" if rng.random() < 0.5 else "big"
        data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, order)
    return bytes(data[: len(raw)])


def _text_numbers(raw: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Change numbers that stand in the file as text, such as those of mib headers and of JSON."""
    places = [
        match.span()
        for match in re.finditer(rb"\d+(?:\.\d+)?", raw[:65536])
        if match.end() - match.start() < 40
    ]
    if not places:
        return _integers(raw, rng, other)
    start, end = places[rng.integers(len(places))]
    new = _TEXTS[rng.integers(len(_TEXTS))]
    # fields of fixed width mostly keep it, else everything behind them moves
    return raw[:start] + (new[: end - start].rjust(end - start) if rng.random() < 0.7 else new) + raw[end:]


def _swap(raw: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    n = int(2 ** rng.uniform(2, 12))
    if len(raw) < 2 * n:
        return raw[::-1]
    first, second = sorted((_place(len(raw) - n, n, rng), int(rng.integers(0, len(raw) - n))))
    if second < first + n:
        return raw[first:] + raw[:first]
    return (
        raw[:first]
        + raw[second : second + n]
        + raw[first + n : second]
        + raw[first : first + n]
        + raw[second + n :]
    )


def _shift(raw: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Lose or gain some bytes, as a transfer in text mode does."""
    n, at = int(2 ** rng.uniform(0, 8)), _place(len(raw), 1, rng)
    return raw[:at] + raw[at + n :] if rng.random() < 0.5 else raw[:at] + rng.bytes(n) + raw[at:]


def _join(raw: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    parts = [(raw, raw), (raw, other), (other, raw), (raw, bytes(4096)), (raw[: len(raw) // 2], other)]
    return b"".join(parts[rng.integers(len(parts))])


def _empty(raw: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    return b""


def _foreign(raw: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """Give the file the content of another format: a wrong extension."""
    return other


_KINDS: dict[str, Callable[[bytes, np.random.Generator, bytes], bytes]] = {
    "truncated": _truncate,
    "bits flipped": _bits,
    "run of one byte": _run,
    "header integers": _integers,
    "numbers as text": _text_numbers,
    "blocks swapped": _swap,
    "bytes lost or added": _shift,
    "joined": _join,
    "empty": _empty,
    "wrong extension": _foreign,
}
_WEIGHTS = np.array([15, 20, 12, 25, 8, 8, 6, 3, 1, 2]) / 100


def _place(size: int, n: int, rng: np.random.Generator) -> int:
    """Return where to damage: mostly at the start or the end, where headers and tags are."""
    kind = rng.random()
    last = max(1, size - n + 1)
    if kind < 0.5:
        return int(rng.integers(0, min(last, 4096)))
    if kind < 0.7:
        return int(rng.integers(max(0, last - 4096), last))
    return int(rng.integers(0, last))


def _number_near(raw: bytes, at: int, width: int) -> int:
    """Return the next aligned place that holds a small number other than zero: a size, a count or an offset."""
    for start in range(at - at % 2, min(at + 512, len(raw) - width), 2):
        word = raw[start : start + width]
        if any(word) and word.count(0) >= width // 2:
            return start
    return min(at, max(0, len(raw) - width))
