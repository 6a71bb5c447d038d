"""Training images drawn on the training device from a spot library: nothing on disk, no two alike.

The aligned image convention with what a real pattern adds to it: free spot size, gamma, Debye-Waller and excitation-error
fall-off, residual tilt, compressed (dynamical) intensities, jitter of the alignment, noise that hides what the library calls
invisible, residual background, beam stop, and a limited field of view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp.geometry.convention import beam_position, g1_length, normalise_image
from napari_sadp.simulation.render import render_gaussians

if TYPE_CHECKING:
    import torch

    from napari_sadp.dataset.library import SpotLibrary


@dataclass(frozen=True)
class Imperfections:
    """Ranges of what is drawn at random for every image; uniform unless said otherwise.

    Parameters
    ----------
    sigma_g1 : tuple of 2 float
        Standard deviation of the spots, in |g1|, log-uniform.
    gamma : tuple of 2 float
        Exponent of the intensities.
    b_iso : tuple of 2 float
        Debye-Waller parameter added [Å^2].
    excitation : tuple of 2 float
        Standard deviation of the excitation error that still diffracts [1/Å], log-uniform.
    tilt_mrad : float
        Standard deviation of the residual tilt [mrad].
    compression : tuple of 2 float
        Power of the intensities: below 1 weak beams gain, as in thick crystals.
    scatter : float
        Standard deviation of ln intensity, the same for g and -g.
    angle_deg, scale, shift_g1 : float
        Standard deviations of the alignment error: angle [deg], relative scale (also of an ellipse), beam [|g1|].
    noise : tuple of 2 float
        Noise over the visibility threshold of the pattern, log-uniform.
    background : float
        Largest residual background over the strongest beam.
    beam_stop : float
        Probability of a beam stop.
    field : float
        Probability that the field of view ends inside the image.
    """

    sigma_g1: tuple[float, float] = (0.06, 0.25)
    gamma: tuple[float, float] = (0.25, 0.5)
    b_iso: tuple[float, float] = (0.0, 1.0)
    excitation: tuple[float, float] = (0.015, 0.08)
    tilt_mrad: float = 2.0
    compression: tuple[float, float] = (0.4, 1.0)
    scatter: float = 0.4
    angle_deg: float = 1.2
    scale: float = 0.012
    shift_g1: float = 0.04
    noise: tuple[float, float] = (0.02, 0.6)
    background: float = 0.01
    beam_stop: float = 0.2
    field: float = 0.3


#: Wavelength for which the excitation errors of the stream are worked out [Å]; 200 kV. The range of widths covers the rest.
_WAVELENGTH = 0.0251


class PatternStream:
    """Draws batches of labelled images.

    Parameters
    ----------
    library : SpotLibrary
        Spots to draw from; moved to the device as a whole.
    size : int
        Image size [px].
    n_classes : int
        Classes of the scheme.
    device : torch.device or str
        Where the images are made.
    seed : int
        Seed; same seed, same device, same images.
    imperfections : Imperfections
        What is drawn at random.
    balanced : bool
        Draw classes with equal probability; else patterns.
    """

    def __init__(
        self,
        library: SpotLibrary,
        *,
        size: int,
        n_classes: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        imperfections: Imperfections | None = None,
        balanced: bool = True,
    ) -> None:
        import torch

        self.size = size
        self.imperfections = imperfections or Imperfections()
        self.device = torch.device(device)
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        move = {"device": self.device}
        self.position = torch.as_tensor(library.position, **move)
        self.intensity = torch.as_tensor(library.intensity, **move)
        self.g1 = torch.as_tensor(library.g1, **move)
        self.turns = torch.as_tensor(library.turns, **move)
        self.threshold = torch.as_tensor(library.threshold, **move)
        self.label = torch.as_tensor(library.label, **move)
        counts = np.bincount(library.label, minlength=n_classes)
        weight = 1.0 / counts[library.label] if balanced else np.ones(len(library))
        self.cumulative = torch.as_tensor(np.cumsum(weight / weight.sum()), **move)

    def _uniform(self, n: int, low: float, high: float, *shape: int) -> torch.Tensor:
        import torch

        return low + (high - low) * torch.rand(n, *shape, generator=self.generator, device=self.device)

    def _log_uniform(self, n: int, low: float, high: float) -> torch.Tensor:
        return self._uniform(n, float(np.log(low)), float(np.log(high))).exp()

    def _normal(self, *shape: int) -> torch.Tensor:
        import torch

        return torch.randn(*shape, generator=self.generator, device=self.device)

    def draw(self, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw a batch.

        Parameters
        ----------
        n : int
            Number of images.

        Returns
        -------
        images : (n, 1, size, size) torch.Tensor of float32
            0 to 1, on the device.
        labels : (n,) torch.Tensor of int64
            Visible classes.
        rows : (n,) torch.Tensor of int64
            Rows of the library.
        """
        import torch

        drawn = self._uniform(n, 0.0, 1.0).double()
        rows = torch.searchsorted(self.cumulative, drawn).clip(max=len(self.label) - 1)
        return self.render(rows), self.label[rows], rows

    def render(self, rows: torch.Tensor) -> torch.Tensor:
        """Make one image for each row of the library, (n, 1, size, size)."""
        spec, n = self.imperfections, len(rows)
        unit = g1_length(self.size)
        position, intensity = self._positions(rows), self._intensities(rows)
        position = position * unit + beam_position(self.size) + spec.shift_g1 * unit * self._normal(n, 1, 2)
        sigma = self._log_uniform(n, *spec.sigma_g1) * unit
        image = render_gaussians(position, intensity, sigma[:, None, None], (self.size, self.size))
        image = self._degrade(image, self.threshold[rows])
        gamma = self._uniform(n, *spec.gamma)[:, None, None]
        return normalise_image(image, gamma)[:, None]

    def _positions(self, rows: torch.Tensor) -> torch.Tensor:
        """Return positions in |g1| with the error of a lattice fit: tie, angle, scale, ellipse; mirrored at random."""
        import torch

        spec, n = self.imperfections, len(rows)
        pick = (self._uniform(n, 0, 6)).long().clip(max=5)
        angle = self.turns[rows].gather(1, pick[:, None])[:, 0]
        angle = -angle + np.radians(spec.angle_deg) * self._normal(n)
        cosine, sine = angle.cos(), angle.sin()
        flip = torch.where(self._uniform(n, 0, 1) < 0.5, 1.0, -1.0)
        turn = torch.stack([cosine, -sine, flip * sine, flip * cosine], dim=1).reshape(n, 2, 2)
        strain = spec.scale * self._normal(n, 2, 2)
        strain = torch.eye(2, device=self.device) + (strain + strain.mT) / 2
        return self.position[rows] @ (strain @ turn).mT

    def _intensities(self, rows: torch.Tensor) -> torch.Tensor:
        """Return heights over the strongest, zero for what stays invisible."""
        spec, n = self.imperfections, len(rows)
        base = self.intensity[rows]
        g = self.position[rows] * self.g1[rows][:, None, None]
        g_squared = (g**2).sum(-1)
        tilt = 1e-3 * spec.tilt_mrad * self._normal(n, 2, 1)
        s = _WAVELENGTH * g_squared / 2 + (g @ tilt)[..., 0]
        width = self._log_uniform(n, *spec.excitation)[:, None]
        falloff = (-self._uniform(n, *spec.b_iso)[:, None] * g_squared / 2 - 0.5 * (s / width) ** 2).exp()
        # an even function of g, so that Friedel pairs scatter alike
        phase = (self.position[rows] * self._normal(n, 1, 2) * 9.0).sum(-1)
        wobble = (spec.scatter * 1.414 * phase.cos()).exp()
        height = base.pow(self._uniform(n, *spec.compression)[:, None]) * falloff * wobble
        height = height * (base > 0)
        return height / height.amax(dim=1, keepdim=True).clip(min=1e-30)

    def _degrade(self, image: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
        """Add noise and background; hide what is behind a beam stop or outside the field of view."""
        import torch

        spec, n, size = self.imperfections, len(image), self.size
        unit = g1_length(size)
        axis = torch.arange(size, device=self.device, dtype=torch.float32) - beam_position(size)
        row, col = axis[:, None], axis[None, :]
        radius = (row**2 + col**2).sqrt()

        def per_image(value: Any) -> torch.Tensor:
            return value[:, None, None]

        strength = per_image(self._log_uniform(n, *spec.noise) * threshold.clip(min=1e-3))
        noise = self._normal(n, size, size)
        # a resampled image has noise with a correlation length
        blurred = torch.nn.functional.avg_pool2d(noise[:, None], 3, 1, 1)[:, 0] * 3.0
        noise = torch.where(per_image(self._uniform(n, 0, 1)) < 0.5, noise, blurred)
        image = image + strength * (1 + 10 * image).sqrt() * noise
        halo = per_image(self._uniform(n, 0, spec.background) * (self._uniform(n, 0, 1) < 0.4))
        image = image + halo * (-radius / (unit * per_image(self._uniform(n, 0.5, 4.0)))).exp()

        angle = per_image(self._uniform(n, 0, 2 * np.pi))
        along, across = row * angle.cos() + col * angle.sin(), row * angle.sin() - col * angle.cos()
        width = unit * per_image(self._uniform(n, 0.15, 0.8))
        stop = ((across.abs() < width) & (along > 0)) | (
            radius < unit * per_image(self._uniform(n, 0.2, 1.1))
        )
        stop = stop & (per_image(self._uniform(n, 0, 1)) < spec.beam_stop)

        reach = per_image(self._uniform(n, 3.0, 8.5)) * unit
        edge = per_image(self._uniform(n, 0, 2 * np.pi))
        cut = row * edge.cos() + col * edge.sin() > per_image(self._uniform(n, 2.0, 6.0)) * unit
        outside = torch.where(per_image(self._uniform(n, 0, 1)) < 0.5, radius > reach, cut)
        outside = outside & (per_image(self._uniform(n, 0, 1)) < spec.field)
        return image.masked_fill(stop | outside, 0.0)
