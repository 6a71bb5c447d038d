"""Training images from a data set on the disk: random crops, every image once in an epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._validate import check_option

if TYPE_CHECKING:
    import torch

    from napari_sadp.dataset.read import DatasetReader


class DiskStream:
    """Draws batches of labelled crops of the images of a data set.

    Parameters
    ----------
    reader : DatasetReader
        The data set.
    part : {"train", "validation"}
        Which of its parts.
    size : int
        Size of the crops [px]; at a random place for training, from the middle for validation.
    device : torch.device or str
        Where the batches go.
    seed : int
        Seed of order and crops.

    Raises
    ------
    ValueError
        If the images are smaller than the crops, or the part has none.
    """

    def __init__(
        self,
        reader: DatasetReader,
        part: str,
        *,
        size: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        check_option("part", part, ("train", "validation"))
        full = reader.description["config"]["size"]
        if size > full:
            raise ValueError(f"size is {size}, expected at most that of the images, {full} px")
        self.reader, self.part, self.size, self.device = reader, part, size, device
        self.margin = full - size
        self.indices = reader.splits[part]
        if not len(self.indices):
            raise ValueError(f"{reader.folder}: has no images for {part}")
        self.seed, self.drawn = seed, 0

    def __len__(self) -> int:
        return len(self.indices)

    def seek(self, number: int) -> None:
        """Go on with the image of this number, from 0."""
        self.drawn = number

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
            Classes by symmetry.
        rows : (n,) torch.Tensor of int64
            Rows of the manifest.
        """
        import torch

        images = np.empty((n, 1, self.size, self.size), np.float32)
        labels, rows = np.empty(n, np.int64), np.empty(n, np.int64)
        for place in range(n):
            row = self._row(self.drawn)
            rng = np.random.default_rng([self.seed, 1, self.drawn])
            image, labels[place] = self.reader[row]
            r, c = rng.integers(self.margin + 1, size=2) if self.part == "train" else (self.margin // 2,) * 2
            images[place, 0] = image[r : r + self.size, c : c + self.size]
            rows[place] = row
            self.drawn += 1
        batch = (torch.from_numpy(item) for item in (images, labels, rows))
        images, labels, rows = (item.to(self.device) for item in batch)
        return images, labels, rows

    def _row(self, number: int) -> int:
        """Return the row of the manifest that is drawn as the number-th: for training a new order for every epoch."""
        epoch, place = divmod(number, len(self.indices))
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            # always the same one for validation: its first images are of all structures too, and those of every time
            key = 0 if self.part == "validation" else [self.seed, 0, epoch]
            self._order = np.random.default_rng(key).permutation(self.indices)
        return int(self._order[place])
