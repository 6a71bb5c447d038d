"""What covers training images: beam stops, and ends of the field of view."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_sadp.geometry.convention import beam_position

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Stops:
    """Beam stops with a round head of some images: which ones, of all, (m,) and (n,) bool, and their shape (m,) [rad, px]."""

    index: torch.Tensor
    there: torch.Tensor
    angle: torch.Tensor
    width: torch.Tensor
    head: torch.Tensor

    def hides(self, row: torch.Tensor, col: torch.Tensor) -> torch.Tensor:
        """Tell what is covered at offsets from the direct beam [px], of shapes that go with (m, 1, 1)."""
        sine, cosine = self.angle.sin()[:, None, None], self.angle.cos()[:, None, None]
        arm = (row * sine - col * cosine).abs() < self.width[:, None, None]
        arm &= row * cosine + col * sine > 0
        return arm | (row**2 + col**2 < self.head[:, None, None] ** 2)


@dataclass(frozen=True, eq=False)
class Fields:
    """Ends of the field of view of some images, as of `Stops`: a circle, a straight edge or a square."""

    index: torch.Tensor
    there: torch.Tensor
    reach: torch.Tensor
    edge: torch.Tensor
    cut: torch.Tensor
    shape: torch.Tensor

    def hides(self, row: torch.Tensor, col: torch.Tensor) -> torch.Tensor:
        """Tell what is covered at offsets from the direct beam [px], of shapes that go with (m, 1, 1)."""
        import torch

        sine, cosine = self.edge.sin()[:, None, None], self.edge.cos()[:, None, None]
        beyond, aside = row * cosine + col * sine, row * sine - col * cosine
        cut, shape = self.cut[:, None, None], self.shape[:, None, None]
        outside = (row**2 + col**2 > self.reach[:, None, None] ** 2) & (shape < 1)
        square = torch.maximum(beyond.abs(), aside.abs_())
        return outside | ((torch.where(shape < 2, beyond, square) > cut) & (shape >= 1))


@dataclass(frozen=True, eq=False)
class Cover:
    """What covers n images."""

    stops: Stops
    fields: Fields

    def hides(self, offset: torch.Tensor) -> torch.Tensor:
        """Tell which of the spots at offsets from the direct beam (n, k, 2) [px] are covered, (n, k)."""
        import torch

        hidden = torch.zeros(offset.shape[:2], dtype=torch.bool, device=offset.device)
        for part in (self.stops, self.fields):
            here = part.hides(*offset[part.index].split(1, dim=2))[..., 0]
            hidden.index_copy_(0, part.index, hidden[part.index] | here)
        return hidden

    def blank(self, image: torch.Tensor) -> None:
        """Blank what is covered of images (n, size, size)."""
        import torch

        size = image.shape[-1]
        axis = torch.arange(size, device=image.device, dtype=torch.float32) - beam_position(size)
        for part in (self.stops, self.fields):
            hidden = part.hides(axis[:, None], axis) & part.there[part.index][:, None, None]
            image.index_copy_(0, part.index, image[part.index].masked_fill_(hidden, 0.0))

    def only(self, keep: torch.Tensor) -> Cover:
        """Return the covers of some images, none for the others."""
        return Cover(
            *(replace(part, there=part.there & keep) for part in (self.stops, self.fields)),
        )
