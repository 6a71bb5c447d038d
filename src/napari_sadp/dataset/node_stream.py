"""Training images of the conversion *rendered*: the nodes of a lattice drawn anew, as a measurement of them would be.

No background, noise or shape of the spots is left in such an image. What is left are the errors of measured nodes: the weakest are missed,
intensities are off, saturated ones are all alike, some are hidden, and some show a spot that is none of the crystal's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_sadp.dataset.stream import AlignedImperfections, PatternStream
from napari_sadp.geometry.convention import GAMMA, beam_position, g1_length, normalise_image
from napari_sadp.geometry.conversions import SPOT_SIGMA_G1
from napari_sadp.simulation.render import render_gaussians

if TYPE_CHECKING:
    import torch

    from napari_sadp.dataset.library import SpotLibrary

#: Spots that are none of the crystal's, at most, in an image.
_MOST_FALSE = 4
#: Relative error of the intensity of a spot at the limit of what is seen.
_ERROR_AT_LIMIT = 0.2


@dataclass(frozen=True)
class NodeErrors:
    """Ranges of what is wrong with measured nodes; uniform unless said otherwise.

    Parameters
    ----------
    limit : tuple of 2 float
        Height of the weakest spot that is seen, over that of the weakest one that decides, log-uniform.
    spread : float
        Largest standard deviation of the relative error that strong spots have as well, from light of their neighbours; uniform from 0.
    saturated : float
        Probability that the strongest spots all count the same.
    false : float
        Share of the images with one to four nodes that show something else: spots of another grain, double diffraction.
    false_height : tuple of 2 float
        Height of these over that of the weakest spot seen, log-uniform.
    """

    limit: tuple[float, float] = (0.02, 0.95)
    spread: float = 0.15
    saturated: float = 0.15
    false: float = 0.2
    false_height: tuple[float, float] = (0.8, 3.0)


class NodeStream(PatternStream):
    """Draws batches of labelled images of nodes.

    Parameters
    ----------
    library : SpotLibrary
        Spots to draw from.
    errors : NodeErrors, optional
        What is wrong with the measured nodes.
    imperfections : AlignedImperfections, optional
        What differs from the kinematic pattern. The shortest vector of the lattice is where it should be in such images; what is left of
        the errors of its fit is a little strain. Its fields for noise, background and the shape of the spots mean nothing here. Nodes of
        too coarse a lattice show nothing of the spots that it misses, so there are no such images.
    **options
        As of `PatternStream`.
    """

    def __init__(
        self,
        library: SpotLibrary,
        *,
        errors: NodeErrors | None = None,
        imperfections: AlignedImperfections | None = None,
        **options: Any,
    ) -> None:
        self.errors = errors or NodeErrors()
        spec = replace(imperfections or AlignedImperfections(), coarse=0.0, angle_deg=0.0, shift_g1=0.0)
        super().__init__(library, imperfections=spec, **options)

    def render(self, rows: torch.Tensor) -> torch.Tensor:
        """Make one image for each row of the library, (n, 1, size, size)."""
        import torch

        n, unit = len(rows), g1_length(self.size)
        scene = self._scene(rows)
        offset, height = self._measured(scene.offset, scene.height, scene.level, scene.covered)
        sigma = torch.full((n, 1, 1), SPOT_SIGMA_G1 * unit, device=self.device)
        image = render_gaussians(offset + beam_position(self.size), height, sigma, (self.size, self.size))
        return normalise_image(image, GAMMA)[:, None]

    def _measured(
        self, offset: torch.Tensor, height: torch.Tensor, level: torch.Tensor, covered: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return offsets (n, k, 2) and measured heights (n, k) of the spots; zero where none was seen."""
        import torch

        errors, (n, k) = self.errors, height.shape
        level = level.clip(1e-6, 1.0)[:, None]
        limit = level * self._log_uniform(n, *errors.limit)[:, None]
        spread = self._uniform(n, 0, errors.spread)[:, None]
        sigma = ((_ERROR_AT_LIMIT * limit) ** 2 + (spread * height) ** 2).sqrt()
        found = height + sigma * self._normal(n, k)
        # spots that decide were seen, or the label would be wrong
        found = torch.where(height >= level, torch.maximum(found, limit), found)
        seen = (found >= limit) & (height > 0) & ~covered
        found = found * seen
        cap = torch.maximum(self._log_uniform(n, 0.05, 0.7)[:, None], level)
        is_capped = self._uniform(n, 0, 1)[:, None] < errors.saturated
        found = torch.where(is_capped, torch.minimum(found, cap), found)
        # a sum of two vectors of the lattice is one of it, whether or not the crystal has a spot there
        pick = torch.multinomial(seen.float() + 1e-12, 2 * _MOST_FALSE, True, generator=self.generator)
        ends = offset.gather(1, pick[..., None].expand(-1, -1, 2))
        extra = ends[:, :_MOST_FALSE] + ends[:, _MOST_FALSE:]
        number = (1 + self._uniform(n, 0, _MOST_FALSE).long())[:, None]
        chosen = (torch.arange(_MOST_FALSE, device=self.device) < number) & (
            self._uniform(n, 0, 1)[:, None] < errors.false
        )
        strength = limit * self._log_uniform(n * _MOST_FALSE, *errors.false_height).reshape(n, _MOST_FALSE)
        return torch.cat([offset, extra], dim=1), torch.cat([found, strength * chosen], dim=1)
