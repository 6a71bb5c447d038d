"""Training images drawn on the training device from a spot library: nothing on disk, no two alike.

The aligned image convention with what a real pattern adds to it: spots and discs of free size, gamma, Debye-Waller and
excitation-error fall-off, residual tilt, compressed (dynamical) intensities, jitter of the alignment, what a background leaves,
saturation, beam stop, a limited field of view, a weak second grain, lines such as a streak leaves, and noise or the steps of an
8-bit camera; sometimes the alignment is that of a coarser lattice, which misses the weakest spots. The label is the class that can
be *seen*: the spots that tell it from its coarser neighbours stand out from noise and steps, and nothing covers all of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.fft import next_fast_len

from napari_sadp.dataset._covers import Cover, Fields, Stops
from napari_sadp.geometry.convention import beam_position, g1_length, normalise_image
from napari_sadp.simulation.render import render_gaussians

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from napari_sadp.dataset.library import SpotLibrary


@dataclass(frozen=True)
class AlignedImperfections:
    """Ranges of what is drawn at random for every image; uniform unless said otherwise.

    Parameters
    ----------
    sigma_g1 : tuple of 2 float
        Standard deviation of the spots, in |g1|, log-uniform.
    discs : float
        Probability of discs instead, as of a convergent beam.
    radius_g1 : tuple of 2 float
        Radius of the discs, in |g1|, log-uniform.
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
        Largest standard deviation of ln intensity, the same for g and -g; uniform from 0.
    asymmetry : float
        Largest standard deviation of the part of ln intensity that is opposite for g and -g; uniform from 0.
    faintest : float
        Where the spots that decide would be weaker than this over the strongest, all intensities are compressed until they are
        not: they would drown in any image.
    angle_deg, scale, shift_g1 : float
        Largest standard deviations of the alignment error: angle [deg], relative scale (also of an ellipse), beam [|g1|].
    fit : float
        Smallest share of these; the share of an image is log-uniform up to 1.
    snr : tuple of 2 float
        Signal to noise ratio of the weakest spots that decide, of a matched filter in white noise, log-uniform.
    most_noise : float
        Largest noise over the strongest beam.
    steps : float
        Probability of the steps of a camera of few bits instead of noise.
    background : float
        Largest residual background over the strongest beam.
    halo : float
        Probability of a rest of the direct beam around the centre, up to half as bright as the strongest beam.
    rings : float
        Probability of rings, as a subtracted background leaves them, up to one and a half times as bright as the spots that decide.
    saturated : float
        Probability that the strongest beams saturate.
    beam_stop : float
        Probability of a beam stop.
    field : float
        Probability that the field of view ends inside the image.
    grain : float
        Probability that an image shows a second grain of the same pattern too, turned at random.
    grain_weight : tuple of 2 float
        Its intensity over that of the first, log-uniform.
    lines : float
        Probability of parallel lines, as a subtracted streak leaves them, bright or dark, up to one and a half times as strong as
        the spots that decide.
    coarse : float
        Chance of an image of a class that a coarser lattice aligns, over that of one that its own does.
    coarse_snr : tuple of 2 float
        `snr` of these: of clearer spots a fit misses none.
    """

    sigma_g1: tuple[float, float] = (0.06, 0.25)
    discs: float = 0.3
    radius_g1: tuple[float, float] = (0.12, 0.4)
    gamma: tuple[float, float] = (0.25, 0.5)
    b_iso: tuple[float, float] = (0.0, 1.0)
    excitation: tuple[float, float] = (0.015, 0.08)
    tilt_mrad: float = 2.0
    compression: tuple[float, float] = (0.4, 1.0)
    scatter: float = 0.8
    asymmetry: float = 0.5
    faintest: float = 3e-4
    angle_deg: float = 1.2
    scale: float = 0.012
    shift_g1: float = 0.04
    fit: float = 0.1
    snr: tuple[float, float] = (4.5, 400.0)
    most_noise: float = 0.1
    steps: float = 0.2
    background: float = 0.01
    halo: float = 0.1
    rings: float = 0.15
    saturated: float = 0.15
    beam_stop: float = 0.2
    field: float = 0.3
    grain: float = 0.2
    grain_weight: tuple[float, float] = (0.01, 0.25)
    lines: float = 0.1
    coarse: float = 0.03
    coarse_snr: tuple[float, float] = (3.5, 12.0)


#: Wavelength for which the excitation errors of the stream are worked out [Å]; 200 kV. The range of widths covers the rest.
_WAVELENGTH = 0.0251
#: Of the points that discs are spread from [px]; of sharper ones the sum over the pixels would depend on where they lie.
_POINT_SIGMA = 0.6


class PatternStream:
    """Draws batches of labelled images.

    On a GPU the host tells the device what to do and never waits for it: nothing is copied there, and nothing asked for
    (``torch.where`` with a number in place of a tensor would copy that number).

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
    imperfections : AlignedImperfections
        What is drawn at random.
    balanced : bool
        Draw classes with equal probability; else patterns.
    turned : bool
        Turn every pattern at random, as the conversion ``"article"`` leaves them; else aligned.
    """

    def __init__(
        self,
        library: SpotLibrary,
        *,
        size: int,
        n_classes: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        imperfections: AlignedImperfections | None = None,
        balanced: bool = True,
        turned: bool = False,
    ) -> None:
        import torch

        self.size, self.turned = size, turned
        self.imperfections = imperfections or AlignedImperfections()
        self.device = torch.device(device)
        self.seed, self.generator = seed, torch.Generator(device=self.device)
        self.seek(0)
        move = {"device": self.device}
        self.position = torch.as_tensor(library.position, **move)
        self.intensity = torch.as_tensor(library.intensity, **move)
        self.g1 = torch.as_tensor(library.g1, **move)
        self.turns = torch.as_tensor(library.turns, **move)
        self.evidence = torch.as_tensor(library.evidence, **move)
        # a bit for each set of spots of which one must be seen, and which sets a pattern has not
        number = np.arange(max(library.n_deciding.max(initial=0), 1))
        self.sets = torch.as_tensor((1 << number).astype(library.evidence.dtype), **move)
        self.unused = torch.as_tensor(number >= library.n_deciding[:, None], **move)
        self.kinematic = torch.as_tensor(library.thickness_nm == 0, **move).float()
        self.label = torch.as_tensor(library.label, **move)
        self.coarse = torch.as_tensor(library.coarse, **move)
        weight = np.zeros(len(library))
        for rows, share in ((~library.coarse, 1.0), (library.coarse, self.imperfections.coarse)):
            counts = np.bincount(library.label[rows], minlength=n_classes) if balanced else np.ones(n_classes)
            weight[rows] = share / counts[library.label[rows]]
        # Apple's devices know no double precision; single is enough for some ten thousand rows
        kind = np.float32 if self.device.type == "mps" else np.float64
        self.cumulative = torch.as_tensor(np.cumsum(weight / weight.sum()).astype(kind), **move)

    def seek(self, number: int) -> None:
        """Go on with the batch that begins with the image of this number, from 0: the same one whatever was drawn before."""
        seeds = np.random.SeedSequence([self.seed, number])
        self.generator.manual_seed(int(seeds.generate_state(1, np.uint64)[0]) >> 1)
        self._counts = np.random.default_rng(seeds)

    def _choose(self, n: int, probability: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw which of n images have something that each has with a probability, and which have not.

        What few images have is worked out for these alone. Their number is drawn on the host: to ask a GPU for it would be to wait for it.
        """
        import torch

        order = torch.rand(n, generator=self.generator, device=self.device).argsort()
        number = int(self._counts.binomial(n, probability))
        return order[:number], order[number:]

    def _mask(self, n: int, chosen: torch.Tensor) -> torch.Tensor:
        """Return which of n images were chosen, (n,) bool."""
        import torch

        return torch.zeros(n, dtype=torch.bool, device=self.device).index_fill_(0, chosen, True)

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

        drawn = self._uniform(n, 0.0, 1.0).to(self.cumulative.dtype)
        rows = torch.searchsorted(self.cumulative, drawn).clip(max=len(self.label) - 1)
        return self.render(rows), self.label[rows], rows

    def render(self, rows: torch.Tensor) -> torch.Tensor:
        """Make one image for each row of the library, (n, 1, size, size)."""
        centre = beam_position(self.size)
        scene = self._scene(rows)
        image, width = self._draw_spots(scene.offset + centre, scene.height)
        image = self._expose(image, scene.level.clip(1e-4, 1.0), width, self.coarse[rows])
        scene.cover.blank(image)
        gamma = self._uniform(len(rows), *self.imperfections.gamma)[:, None, None]
        return normalise_image(image, gamma)[:, None]

    def _scene(self, rows: torch.Tensor) -> _Scene:
        """Draw the spots of every row, the error of the alignment, and what covers them."""
        import torch

        spec, n = self.imperfections, len(rows)
        unit, centre = g1_length(self.size), beam_position(self.size)
        # what a lattice fit leaves, from very good to bad
        fit = self._log_uniform(n, spec.fit, 1.0)
        shift = spec.shift_g1 * unit * fit[:, None, None] * self._normal(n, 1, 2)
        position = self._positions(rows, fit) * unit
        height = self._intensities(rows)
        seen = height * (position.abs().amax(dim=2) < centre)
        offset = position + shift
        cover = self._cover(n)
        covered = cover.hides(offset)
        levels = self._deciding(rows, torch.stack([seen, seen * ~covered]))
        # nobody sees weaker ones
        faintest = levels[0].clip(1e-12, 0.5)
        power = (np.log(spec.faintest) / faintest.log()).clip(max=1.0)
        height = height ** power[:, None]
        open_level, level = levels**power
        # a cover that hides what decides would make the label wrong: it is left off
        useful = level > 0.05 * open_level
        level = torch.where(useful, level, open_level)
        return _Scene(offset, height, level, cover.only(useful), covered & useful[:, None])

    def _draw_spots(self, position: torch.Tensor, height: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images with a spot or a disc at every position [px], and the size of these [px].

        The root of the sum of squares over a spot of height 1 is the root of pi times its size: the standard deviation of a
        Gaussian, the radius of a disc.
        """
        import torch

        spec, n, unit = self.imperfections, len(height), g1_length(self.size)
        discs, _ = self._choose(n, spec.discs)
        is_disc = self._mask(n, discs)
        sigma = self._log_uniform(n, *spec.sigma_g1) * unit
        radius = self._log_uniform(n, *spec.radius_g1) * unit
        drawn = sigma.masked_fill(is_disc, _POINT_SIGMA)
        image = render_gaussians(position, height, drawn[:, None, None], (self.size, self.size))
        self._add_grains(image, position, height, drawn)
        if len(discs):
            image.index_copy_(0, discs, self._spread(image[discs], radius[discs, None, None]))
        return image, torch.where(is_disc, radius, sigma)

    def _spread(self, image: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
        """Return images of points as images of discs of some radius [px]."""
        import torch

        # room for what the discs at the border spread, which must not come back at the opposite one
        reach = self.imperfections.radius_g1[1] * g1_length(self.size) + 3
        full = next_fast_len(self.size + 2 * int(np.ceil(reach)), real=True)
        axis = torch.arange(full, device=self.device, dtype=torch.float32)
        axis = torch.minimum(axis, full - axis)
        distance = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
        disc = torch.sigmoid(4 * (radius - distance)) / (2 * np.pi * _POINT_SIGMA**2)
        spectrum = torch.fft.rfft2(image, s=(full, full)) * torch.fft.rfft2(disc)
        spread = torch.fft.irfft2(spectrum, s=(full, full))
        return spread[:, : self.size, : self.size].clip(min=0.0)

    def _add_grains(
        self, image: torch.Tensor, position: torch.Tensor, height: torch.Tensor, sigma: torch.Tensor
    ) -> None:
        """Let some of the images show every spot once more, weaker and turned."""
        import torch

        spec, centre = self.imperfections, beam_position(self.size)
        chosen, _ = self._choose(len(image), spec.grain)
        m = len(chosen)
        if m == 0:
            return
        angle = self._uniform(m, 0, 2 * np.pi)
        cosine, sine = angle.cos(), angle.sin()
        turn = torch.stack([cosine, -sine, sine, cosine], dim=1).reshape(m, 2, 2)
        weight = self._log_uniform(m, *spec.grain_weight)[:, None]
        second = render_gaussians(
            (position[chosen] - centre) @ turn.mT + centre,
            weight * height[chosen],
            sigma[chosen, None, None],
            (self.size, self.size),
        )
        image.index_copy_(0, chosen, image[chosen] + second)

    def _deciding(self, rows: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
        """Return the height down to which spots of heights (..., n, k) must be seen for the patterns to be those of their labels, (..., n)."""
        # all sets at once: a loop over them would be most of what a GPU is asked to launch
        of_this = (self.evidence[rows][..., None] & self.sets) != 0
        strongest = (height[..., None] * of_this).amax(dim=-2)
        return strongest.masked_fill(self.unused[rows], float("inf")).amin(dim=-1)

    def _positions(self, rows: torch.Tensor, fit: torch.Tensor) -> torch.Tensor:
        """Return positions in |g1| with the error of a lattice fit: tie, angle, scale, ellipse; mirrored at random."""
        import torch

        spec, n = self.imperfections, len(rows)
        pick = (self._uniform(n, 0, 6)).long().clip(max=5)
        angle = self.turns[rows].gather(1, pick[:, None])[:, 0]
        angle = -angle + np.radians(spec.angle_deg) * fit * self._normal(n)
        if self.turned:
            angle = angle + self._uniform(n, 0, 2 * np.pi)
        cosine, sine = angle.cos(), angle.sin()
        flip = 1.0 - 2.0 * (self._uniform(n, 0, 1) < 0.5)
        turn = torch.stack([cosine, -sine, flip * sine, flip * cosine], dim=1).reshape(n, 2, 2)
        strain = spec.scale * fit[:, None, None] * self._normal(n, 2, 2)
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
        # Bloch waves have all of this in them, but for a rest of scatter
        single = self.kinematic[rows][:, None]
        falloff = -self._uniform(n, *spec.b_iso)[:, None] * g_squared / 2 - 0.5 * (s / width) ** 2
        # an even function of g, so that Friedel pairs scatter alike
        phase = (self.position[rows] * self._normal(n, 1, 2) * 9.0).sum(-1)
        amount = self._uniform(n, 0, spec.scatter)[:, None] * (0.3 + 0.7 * single)
        wobble = 1.414 * amount * phase.cos()
        # odd in g: a bent or tilted crystal
        odd = (self.position[rows] * self._normal(n, 1, 2) * 3.0).sum(-1).sin()
        wobble = wobble + 1.414 * self._uniform(n, 0, spec.asymmetry)[:, None] * odd
        power = 1 + single * (self._uniform(n, *spec.compression)[:, None] - 1)
        height = base.pow(power) * (falloff * single + wobble).exp()
        height = height * (base > 0)
        return height / height.amax(dim=1, keepdim=True).clip(min=1e-30)

    def _cover(self, n: int) -> Cover:
        """Draw beam stops and the ends of fields of view."""
        spec, unit = self.imperfections, g1_length(self.size)
        stops, _ = self._choose(n, spec.beam_stop)
        fields, _ = self._choose(n, spec.field)
        m, k = len(stops), len(fields)
        return Cover(
            Stops(
                stops,
                self._mask(n, stops),
                angle=self._uniform(m, 0, 2 * np.pi),
                width=unit * self._uniform(m, 0.15, 0.8),
                head=unit * self._uniform(m, 0.2, 1.1),
            ),
            Fields(
                fields,
                self._mask(n, fields),
                reach=unit * self._uniform(k, 3.0, 8.5),
                edge=self._uniform(k, 0, 2 * np.pi),
                cut=unit * self._uniform(k, 2.0, 6.0),
                shape=self._uniform(k, 0, 3),
            ),
        )

    def _expose(
        self, image: torch.Tensor, level: torch.Tensor, width: torch.Tensor, coarse: torch.Tensor
    ) -> torch.Tensor:
        """Add what a background leaves, saturation, and noise or steps of the intensity that hide no spot that decides.

        Of images (n, size, size), which are changed, whose spots that decide have a height (n,) and a size (n,) [px]; those that a
        coarser lattice aligns (n,) have a noise of their own.
        """
        import torch

        spec, n, size, unit = self.imperfections, len(image), self.size, g1_length(self.size)
        axis = torch.arange(size, device=self.device, dtype=torch.float32) - beam_position(size)
        radius = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()

        def per_image(value: torch.Tensor) -> torch.Tensor:
            return value[:, None, None]

        def add(probability: float, make: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
            chosen, _ = self._choose(n, probability)
            if m := len(chosen):
                image.index_copy_(0, chosen, image[chosen].add_(make(level[chosen], m)))

        def background(_: torch.Tensor, m: int) -> torch.Tensor:
            height = per_image(self._uniform(m, 0, spec.background))
            return height * (radius / (-unit * per_image(self._uniform(m, 0.5, 4.0)))).exp_()

        def halo(_: torch.Tensor, m: int) -> torch.Tensor:
            height = per_image(self._log_uniform(m, 0.02, 0.5))
            return height * (radius / (unit * per_image(self._uniform(m, 0.3, 1.0)))).square_().neg_().exp_()

        def rings(level: torch.Tensor, m: int) -> torch.Tensor:
            height = per_image((self._log_uniform(m, 0.03, 1.5) * level).clip(max=spec.most_noise))
            period = unit * per_image(self._log_uniform(m, 0.12, 0.6))
            return height * (radius / period + per_image(self._uniform(m, 0, 2 * np.pi))).cos_()

        def lines(level: torch.Tensor, m: int) -> torch.Tensor:
            height = per_image((self._log_uniform(m, 0.1, 1.5) * level).clip(max=spec.most_noise))
            return height * self._lines(m, axis)

        for probability, make in (
            (0.4, background),
            (spec.halo, halo),
            (spec.rings, rings),
            (spec.lines, lines),
        ):
            add(probability, make)
        stepped, noisy = self._choose(n, spec.steps)
        if len(stepped):
            step = per_image(level[stepped] * self._uniform(len(stepped), 0.1, 0.9))
            image.index_copy_(0, stepped, (image[stepped] / step).round_().mul_(step))
        if m := len(noisy):
            noise, seen = self._noise(m)
            share = level[noisy] * width[noisy] * np.sqrt(np.pi) * seen
            snr = torch.where(
                coarse[noisy], self._log_uniform(m, *spec.coarse_snr), self._log_uniform(m, *spec.snr)
            )
            strength = per_image((share / snr).clip(max=spec.most_noise))
            kept = image[noisy]
            noise.mul_(strength).mul_(kept.clip(min=0.0).mul_(10).add_(1).sqrt_())
            image.index_copy_(0, noisy, kept.add_(noise))
        full, _ = self._choose(n, spec.saturated)
        if m := len(full):
            cap = torch.maximum(self._log_uniform(m, 0.05, 0.7), level[full])
            image.index_copy_(0, full, torch.minimum(image[full], per_image(cap)))
        return image

    def _noise(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return noise of standard deviation 1 of each pixel (n, size, size), and how much of the signal to noise ratio of a spot remains (n,).

        A resampled image has noise with a correlation length, which a spot of the same size sees in full.
        """
        import torch

        noise = self._normal(n, self.size, self.size)
        correlated, _ = self._choose(n, 0.5)
        if len(correlated):
            blurred = torch.nn.functional.avg_pool2d(noise[correlated, None], 3, 1, 1)[:, 0]
            noise.index_copy_(0, correlated, blurred.mul_(3.0))
        return noise, 1.0 - (2 / 3) * self._mask(n, correlated)

    def _lines(self, n: int, axis: torch.Tensor) -> torch.Tensor:
        """Return three parallel lines of height 1 or -1, and of any direction, place and width, (n, size, size)."""
        unit = g1_length(self.size)
        angle = self._uniform(n, 0, np.pi)[:, None, None]
        across = axis[:, None] * angle.cos() + axis * angle.sin()
        total = 0.0
        for _ in range(3):
            place = self._uniform(n, -6 * unit, 6 * unit)[:, None, None]
            width = unit * self._log_uniform(n, 0.06, 0.2)[:, None, None]
            sign = self._normal(n).sign()[:, None, None]
            total = total + sign * (-0.5 * ((across - place) / width) ** 2).exp()
        return total


@dataclass(frozen=True, eq=False)
class _Scene:
    """Spots of n images: offsets from the direct beam (n, k, 2) [px], heights (n, k), of those that decide (n,), and what is covered."""

    offset: torch.Tensor
    height: torch.Tensor
    level: torch.Tensor
    cover: Cover
    covered: torch.Tensor
