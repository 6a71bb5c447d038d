"""Frames without a lattice, for `benchmarks/geometry.py`: noise, gradients, rings, halos, bands, spots in disorder or in a row."""

from __future__ import annotations

import numpy as np

BLANKS = ("blank", "noise", "gradient", "rings", "spotty rings", "halo", "bands", "random spots", "one row")


def draw_blank(seed: int) -> tuple[str, np.ndarray]:
    """Return (kind, frame) of a frame without a lattice."""
    rng = np.random.default_rng([seed, 77])
    kind = BLANKS[seed % len(BLANKS)]
    size = int(rng.choice([256, 256, 512]))
    row, col = np.mgrid[:size, :size]
    beam = (size - 1) / 2 + rng.uniform(-0.15, 0.15, 2) * size
    radius = np.hypot(row - beam[0], col - beam[1])
    light = np.full((size, size), float(10 ** rng.uniform(0, 2.5)))
    peak = float(10 ** rng.uniform(1.5, 3.5))
    sigma = rng.uniform(1, 3) * size / 256
    if kind not in ("blank", "noise"):
        light += peak * rng.uniform(0, 1) * (1 + (radius / (0.1 * size)) ** 2) ** -1.5
        if rng.random() < 0.7:
            light += 5 * peak * np.exp(-0.5 * (radius / sigma) ** 2)
    if kind == "gradient":
        light += peak * np.clip(0.3 * (row - col) / size + 0.3, 0, None)
    elif kind in ("rings", "spotty rings"):
        first = rng.uniform(0.12, 0.25) * size
        for square in (3, 4, 8, 11, 12, 16, 19, 20):
            r = first * np.sqrt(square / 3)
            height = peak * rng.uniform(0.2, 1) * np.exp(-((r / size / 0.4) ** 2))
            if kind == "rings":
                light += 0.3 * height * np.exp(-0.5 * ((radius - r) / sigma) ** 2)
                continue
            for angle in rng.uniform(0, 2 * np.pi, rng.integers(20, 60)):
                rc = beam + r * np.array([np.sin(angle), np.cos(angle)])
                _blob(light, rc, height * rng.uniform(0.1, 1), sigma)
    elif kind == "halo":
        for r in rng.uniform(0.12, 0.4, 2) * size:
            light += 0.4 * peak * np.exp(-0.5 * ((radius - r) / (0.25 * r)) ** 2)
    elif kind == "bands":
        for _ in range(int(rng.integers(6, 16))):
            angle, width = rng.uniform(0, np.pi), rng.uniform(0.02, 0.1) * size
            along = (
                np.cos(angle) * (row - beam[0])
                + np.sin(angle) * (col - beam[1])
                - rng.uniform(-0.2, 0.2) * size
            )
            light += (
                0.1
                * peak
                * (1 / (1 + np.exp((np.abs(along) - width) / (0.008 * size))))
                * rng.choice([1, -0.3])
            )
        light = np.clip(light, 0.5, None)
    elif kind == "random spots":
        for rc in rng.uniform(3, size - 4, (rng.integers(5, 90), 2)):
            _blob(light, rc, peak * rng.uniform(0.1, 1), sigma)
    elif kind == "one row":
        step = rng.uniform(0.05, 0.2) * size * np.array([np.sin(a := rng.uniform(0, 2 * np.pi)), np.cos(a)])
        for k in range(-12, 13):
            _blob(light, beam + k * step, peak * rng.uniform(0.2, 1) * np.exp(-((k / 5) ** 2)), sigma)
    frame = rng.poisson(light).astype(np.float32) + rng.normal(0, rng.uniform(0, 4), light.shape)
    bad = rng.random(light.shape) < rng.choice([0, 2e-4, 1e-3])
    frame[bad] += rng.uniform(0, 4 * peak, int(bad.sum()))
    if rng.random() < 0.3:
        stop = (np.abs(row - beam[0]) < 0.03 * size) & (col < beam[1] + 0.03 * size)
        frame[stop] *= 0.03
    if rng.random() < 0.3:
        frame = np.clip(np.round(frame * 255 / np.percentile(frame, 99.9)), 0, 255)
    return kind, frame.astype(np.float32)


def _blob(light: np.ndarray, rc: np.ndarray, height: float, sigma: float) -> None:
    reach = int(5 * sigma) + 1
    r0, c0 = (max(0, int(x) - reach) for x in rc)
    window = light[
        r0 : int(rc[0]) + reach + 1 if rc[0] > -reach else 0,
        c0 : int(rc[1]) + reach + 1 if rc[1] > -reach else 0,
    ]
    row, col = np.ogrid[: window.shape[0], : window.shape[1]]
    window += height * np.exp(-((row + r0 - rc[0]) ** 2 + (col + c0 - rc[1]) ** 2) / (2 * sigma**2))
