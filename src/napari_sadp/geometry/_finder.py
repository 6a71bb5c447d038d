"""Which of the lattices that a pattern may show is the best: over copies in larger pixels, sizes of spots, and care in finding them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry._checks import require_occupancy, require_rows
from napari_sadp.geometry._coarse import LEAST_SIGMA, LEAST_SPACING, coarse_factors, coarser, spots_of_frame
from napari_sadp.geometry._search import CERTAIN_LOG_NFA
from napari_sadp.geometry.background import compressed
from napari_sadp.geometry.discs import disc_hypotheses
from napari_sadp.geometry.lattice import fit_lattice
from napari_sadp.geometry.spots import SpotSizes, spot_hypotheses

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sadp.geometry.background import PreparedImage
    from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList

#: Largest logarithm of the number of false alarms of a lattice of spots that were looked for with less caution.
_BOLD_LOG_NFA = -4.0
#: The same where the spots show no lattice, but through one of several places that may be the direct beam; of simulated
#: patterns whose lattices are less certain three in four are wrong.
_ALONE_LOG_NFA = -9.0
#: Of simulated patterns with lattices as certain as this, 99 % are right, however few of the spots these hold.
_FAR_BEYOND_LOG_NFA = -40.0
#: Size of spots that may be discs [px].
_BROAD = 2.5
#: Share of the spots that a lattice beyond doubt holds.
_MOST_SPOTS = 0.7
#: Share of the spots of a copy that its lattice holds, or the frame is asked too: a coarse lattice of a few may be certain.
_ENOUGH_OF_COPY = 0.5


class Finder:
    """Finds the lattice of a pattern, or one through a place."""

    prepared: PreparedImage
    min_explained: float

    @property
    def most_spots(self) -> int:
        """Most spots that were found so far in any one way."""
        raise NotImplementedError

    def find(self, beam: DirectBeam | None = None) -> SpotLattice:
        """Return the lattice, through a direct beam if that is known; a `PatternRefusedError` where there is none holds the spots."""
        raise NotImplementedError

    def through(self, beam: DirectBeam, *, alone: bool) -> SpotLattice | None:
        """Return a lattice through a direct beam that was found without one, None unless chance hardly makes one as good.

        Parameters
        ----------
        beam : DirectBeam
            The direct beam.
        alone : bool
            Whether there is no lattice elsewhere: then this one must be more certain.
        """
        try:
            lattice = self.find(beam)
        except PatternRefusedError:
            return None
        return lattice if lattice.log_nfa < (_ALONE_LOG_NFA if alone else _BOLD_LOG_NFA) else None

    def _fitted(self, spots: SpotList, beam: DirectBeam | None) -> SpotLattice:
        """Return the lattice of some spots, or refuse them."""
        lattice = fit_lattice(
            spots, beam, centre_rc=self.prepared.halo_rc, min_explained=self.min_explained, min_rows=2
        )
        require_rows(self.prepared, lattice)
        return lattice


def _holds(lattice: SpotLattice, share: float) -> bool:
    """Tell whether a lattice holds a share of the spots; one that is far beyond doubt may leave more to higher-order Laue zones."""
    return lattice.log_nfa < _FAR_BEYOND_LOG_NFA or lattice.n_spots >= share * len(lattice.spots)


@dataclass
class SpotsGiven(Finder):
    """Finds the lattice of spots that are what they are, as a user left them.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    spots : SpotList
        All spots.
    min_explained : float
        Smallest share of the spots that must lie on one lattice.
    """

    prepared: PreparedImage
    spots: SpotList
    min_explained: float

    @property
    def most_spots(self) -> int:
        """How many spots there are."""
        return len(self.spots)

    def find(self, beam: DirectBeam | None = None) -> SpotLattice:
        """Return the lattice, through a direct beam if that is known; parameters and errors are those of `Finder.find`."""
        try:
            return self._fitted(self.spots, beam)
        except PatternRefusedError as error:
            error.spots = self.spots
            raise


@dataclass
class LatticeFinder(Finder):
    """Finds the lattice of a pattern, or one through a place; spots are looked for once.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    min_snr : float
        Smallest signal to noise ratio of a spot.
    min_explained : float
        Smallest share of the spots that must lie on one lattice.
    """

    prepared: PreparedImage
    min_snr: float
    min_explained: float
    _found: dict[tuple[str, int], list[SpotList]] = field(default_factory=dict, repr=False)
    _seen_in: dict[int, PreparedImage] = field(default_factory=dict, repr=False)
    _sizes: dict[int, SpotSizes] = field(default_factory=dict, repr=False)

    @property
    def most_spots(self) -> int:
        """Most spots that were found so far in any one way."""
        for factor in list(self._sizes):
            self._cautious(factor)
        return max((len(spots) for lists in self._found.values() for spots in lists), default=0)

    def find(self, beam: DirectBeam | None = None) -> SpotLattice:
        """Return the lattice, through a direct beam if that is known.

        Parameters
        ----------
        beam : DirectBeam, optional
            The direct beam.

        Returns
        -------
        SpotLattice
            From a copy in larger pixels where that is beyond doubt.

        Raises
        ------
        PatternRefusedError
            If there is none; it holds the spots.
        """
        lattice, is_open = self._in_copy(beam)
        certain = lattice is not None and lattice.log_nfa <= CERTAIN_LOG_NFA
        if certain and is_open and _holds(lattice, _ENOUGH_OF_COPY):
            return lattice
        try:
            other = self._best(1, beam)
        except PatternRefusedError as error:
            # crowded spots are better looked for in the frame, but a copy may show more of weak ones
            if lattice is None:
                error.spots = self._cautious(1)[0]
                raise
            return lattice
        return lattice if lattice is not None and is_open and lattice.log_nfa <= other.log_nfa else other

    def _in_copy(self, beam: DirectBeam | None) -> tuple[SpotLattice | None, bool]:
        """Return the lattice from a copy in larger pixels, and whether its spots are far enough apart there.

        None unless its spots are large and chance hardly makes one as good.
        """
        for factor in coarse_factors(self.prepared.mask.shape):
            if self._are_small(factor):
                continue
            try:
                lattice = self._best(factor, beam)
            except PatternRefusedError:
                return None, False
            is_open = bool(np.linalg.norm(lattice.g1_px) >= LEAST_SPACING * factor)
            least = _BOLD_LOG_NFA if is_open else CERTAIN_LOG_NFA
            return (lattice if lattice.log_nfa < least else None), is_open
        return None, False

    def _best(self, factor: int, beam: DirectBeam | None) -> SpotLattice:
        """Return the lattice that chance explains worst, over the sizes that the spots of a copy may have.

        Where none is beyond doubt, spots are looked for with less caution too: lattices are rough themselves, and hide their
        weaker spots from a search that takes roughness for noise. There, and where the spots are broad, discs are looked for.
        """
        cautious = self._cautious(factor)
        best, refusal = self._most_certain(cautious, factor, beam)
        doubt = best is None or best.log_nfa > CERTAIN_LOG_NFA or not _holds(best, _MOST_SPOTS)
        if doubt or max(spots.sigma_px for spots in cautious) > _BROAD:
            bold = self._discs(factor) + (self._bold(factor) if doubt else [])
            other, _ = self._most_certain(bold, factor, beam)
            # more tries make more lattices by chance
            least = min(_BOLD_LOG_NFA, 0.0 if best is None else best.log_nfa)
            if other is not None and other.log_nfa < least:
                best = other
        if best is None:
            raise refusal
        return best

    def _most_certain(
        self, hypotheses: list[SpotList], factor: int, beam: DirectBeam | None
    ) -> tuple[SpotLattice | None, PatternRefusedError | None]:
        """Return the lattice that chance explains worst, in the frame, and the first refusal."""
        best: SpotLattice | None = None
        refusal: PatternRefusedError | None = None
        for spots in hypotheses:
            try:
                lattice = self._fitted(spots_of_frame(spots, factor), beam)
                require_occupancy(self.prepared, lattice)
            except PatternRefusedError as error:
                refusal = refusal or error
            else:
                best = lattice if best is None or lattice.log_nfa < best.log_nfa else best
        return best, refusal

    def _once(
        self, kind: str, factor: int, look: Callable[[PreparedImage], list[SpotList]]
    ) -> list[SpotList]:
        """Return spots of a copy, looked for when they are first asked for."""
        if (kind, factor) not in self._found:
            self._found[kind, factor] = self._counted(look(coarser(self.prepared, factor)))
        return self._found[kind, factor]

    def _counted(self, lists: list[SpotList]) -> list[SpotList]:
        """Return lists of spots with the noise of counting that the frame shows."""
        return [replace(spots, gain=self.prepared.counting_gain) for spots in lists]

    def _sizes_of(self, factor: int) -> SpotSizes:
        """Return the sizes of the spots of a copy; they are forgotten once the spots are measured."""
        if factor not in self._sizes:
            self._sizes[factor] = SpotSizes(coarser(self.prepared, factor), min_snr=self.min_snr)
        return self._sizes[factor]

    def _are_small(self, factor: int) -> bool:
        """Tell whether spots are too small in a copy; as a rule they are in the coarsest, and need not be measured to see that."""
        if ("cautious", factor) not in self._found and self._sizes_of(factor).are_smallest:
            return True
        return self._cautious(factor)[0].sigma_px < LEAST_SIGMA

    def _cautious(self, factor: int) -> list[SpotList]:
        if ("cautious", factor) not in self._found:
            self._found["cautious", factor] = self._counted(self._sizes_of(factor).spots())
            del self._sizes[factor]
        return self._found["cautious", factor]

    def _discs(self, factor: int) -> list[SpotList]:
        return self._once(
            "discs",
            factor,
            lambda copy: disc_hypotheses(copy, self._compressed(factor), min_snr=self.min_snr),
        )

    def _bold(self, factor: int) -> list[SpotList]:
        return self._once(
            "bold",
            factor,
            lambda copy: spot_hypotheses(
                copy, min_snr=self.min_snr, rough=False, seen_in=self._compressed(factor)
            ),
        )

    def _compressed(self, factor: int) -> PreparedImage:
        if factor not in self._seen_in:
            self._seen_in[factor] = compressed(coarser(self.prepared, factor))
        return self._seen_in[factor]
