"""The eigenvalue problems of `napari_sadp.simulation.bloch`: one by one with numpy, or as a batch on a torch device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.simulation.crystal import Crystal
    from napari_sadp.simulation.zone_potential import Reduction, ZonePotential


@dataclass(frozen=True, eq=False)
class Problem:
    """One zone axis of one crystal, ready for the eigenvalue problem."""

    crystal: Crystal
    zone: tuple[int, int, int]
    tilt_mrad: tuple[float, float]
    potential: ZonePotential
    reduction: Reduction
    g: np.ndarray  # (n, 3) in the frame of the zone [1/Å]
    excitation: np.ndarray  # (azimuths, n) [1/Å]


def solve_numpy(
    problems: Sequence[Problem],
    scale: float,
    thickness: np.ndarray,
    absorption: float,
    dtype: str,
    device: str,
) -> list[np.ndarray]:
    """Return the intensities (t, n) of each problem, by LAPACK.

    On a CPU torch calls the same LAPACK routine matrix by matrix: it would cost its import and gain nothing.
    """
    solved = []
    for problem in problems:
        reduction = problem.reduction
        coupling = scale * reduction.interaction
        if dtype == "float32":
            coupling = coupling.astype(np.complex64 if np.iscomplexobj(coupling) else np.float32)
        mean = np.zeros((len(thickness), len(problem.g)))
        for excitation in problem.excitation:
            diagonal = excitation[reduction.representatives].astype(dtype)
            values, waves = np.linalg.eigh(coupling + np.diag(diagonal))
            decay = 0.0
            if absorption:
                first_order = (waves.conj() * (coupling @ waves)).real.sum(axis=0)
                decay = absorption * (first_order + scale * problem.potential.mean)
            phase = np.exp(2j * np.pi * np.outer(values + 1j * decay, thickness))
            amplitude = waves @ (waves[0].conj()[:, None] * phase)
            mean += _per_beam((np.abs(amplitude) ** 2).T, reduction)
        solved.append(mean / len(problem.excitation))
    return solved


def solve_torch(
    problems: Sequence[Problem],
    scale: float,
    thickness: np.ndarray,
    absorption: float,
    dtype: str,
    device: str,
) -> list[np.ndarray]:
    """Return the intensities (t, n) of each problem, by one batch of matrices on a torch device.

    Smaller matrices are filled up with levels that couple to nothing, so that any problems share a batch.
    """
    import torch

    real = getattr(torch, dtype)
    place: dict[str, Any] = {"device": device}
    size = max(len(p.reduction.representatives) for p in problems)
    counts = [len(p.excitation) for p in problems]
    any_complex = any(np.iscomplexobj(p.reduction.interaction) for p in problems)
    coupling = np.zeros((len(problems), size, size), dtype=complex if any_complex else float)
    diagonal = np.zeros((sum(counts), size))
    for i, problem in enumerate(problems):
        m = len(problem.reduction.representatives)
        coupling[i, :m, :m] = scale * problem.reduction.interaction
        rows = slice(sum(counts[:i]), sum(counts[: i + 1]))
        diagonal[rows, :m] = problem.excitation[:, problem.reduction.representatives]
    matter = torch.as_tensor(coupling, dtype=real.to_complex() if any_complex else real, **place)
    matter = matter.repeat_interleave(torch.as_tensor(counts, **place), dim=0)
    level = torch.as_tensor(diagonal, dtype=real, **place)
    values, waves = torch.linalg.eigh(matter + torch.diag_embed(level))
    depth = torch.as_tensor(thickness, dtype=real, **place)
    decay = torch.zeros_like(values)
    if absorption:
        means = np.repeat([scale * p.potential.mean for p in problems], counts)
        first_order = (waves.conj() * (matter @ waves)).real.sum(dim=-2)
        decay = absorption * (first_order + torch.as_tensor(means, dtype=real, **place)[:, None])
    angle = 2 * torch.pi * values[..., None] * depth
    phase = torch.polar(torch.exp(-2 * torch.pi * decay[..., None] * depth), angle)
    amplitude = waves.to(phase.dtype) @ (waves[:, 0, :].conj()[..., None] * phase)
    strength = (amplitude.abs() ** 2).swapaxes(-1, -2).cpu().numpy().astype(np.float64)
    parts = zip(problems, np.split(strength, np.cumsum(counts)[:-1]), strict=True)
    return [
        _per_beam(part[..., : len(p.reduction.representatives)].mean(axis=0), p.reduction)
        for p, part in parts
    ]


def _per_beam(combined: np.ndarray, reduction: Reduction) -> np.ndarray:
    """Share the intensities (t, m) of the combinations among their beams (t, n)."""
    return combined[:, reduction.combination] * reduction.share
