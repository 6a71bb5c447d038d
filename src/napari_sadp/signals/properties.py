"""The signal of property maps: a row of numbers for every position of a scan, and the way to maps of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hyperspy.signals import LazySignal1D, Signal1D

from napari_sadp._validate import check_option

if TYPE_CHECKING:
    from hyperspy.signal import BaseSignal

SIGNAL_TYPE = "sadp_properties"


class SADPProperties(Signal1D):
    """What `SADPattern2D.property_maps` measured; navigation axes are those of the scan, the signal axis counts the columns.

    Notes
    -----
    Columns, by name in `columns`. Lengths and positions are (row, col) in px of the frame unless the name says otherwise:

    - ``reason``: 0 where there is a lattice, otherwise a code of why not; `names` tells which.
    - ``beam_row_px``, ``beam_col_px``, ``beam_score``: the direct beam, and how sure it is, 0 to 1.
    - ``g1_row_px`` ... ``g2_col_px``, ``g1_px``: the reduced lattice vectors and the length of the shortest.
    - ``ratio``, ``ratio_sigma``, ``angle_deg``, ``angle_sigma_deg``: |g2| / |g1|, the angle between them, standard uncertainties.
    - ``rotation_deg``: direction of g1, from the row axis (down) to the column axis (right), -90 to 90 degrees. A lattice of higher symmetry
      has several shortest vectors, of which noise chooses one: a rotation is known up to the symmetry of the lattice.
    - ``rms_px``, ``n_spots``: distance of the spots from their nodes, and their number.
    - ``p_A`` ... ``p_D``: probabilities of the lattice types square, rectangular, hexagonal and oblique.
    - ``nodes_present``, ``nodes_absent``, ``nodes_unknown``: how many lattice nodes in view show a spot, show none, or cannot be judged.
    - ``g1_inv_angstrom``, ``g2_inv_angstrom``, ``d1_angstrom``, ``d2_angstrom``: |g| [1/Å] and d = 1/|g| [Å], with the uncertainties
      ``d1_sigma_angstrom``, ``d2_sigma_angstrom`` of the fit; nan when uncalibrated.
    - ``leftover_share``: amplitude of spots on no node over that of all: of a second grain or twin, 0 to 1.
    - ``class``, ``class_probability``, ``none_of_these``, where frames were classified: code of the most probable class, and probabilities.

    Numbers of spots and nodes are 0, and everything else but reason and beam is nan, where a frame is refused. ``metadata.Sadp.made_with``
    holds the options of the analysis, and the network with its sha256; ``metadata.Sadp.notes`` what was decided upon reading, for all frames.
    What was decided about one frame, and the numbers behind a refusal, are too much for a map: ``s.analyse_frame(index)`` with the same
    beam, mask and `min_snr` returns the one as ``notes``, and raises a `PatternRefusedError` with the other as ``detail``. Of classified
    frames ``s.inav[x, y].identify(...).patterns[0]`` has both.

    Examples
    --------
    >>> found = s.property_maps()  # doctest: +SKIP
    >>> found.image("g1_inv_angstrom").plot()  # doctest: +SKIP
    >>> found.names("reason")[int(found.inav[3, 4].data[0])]  # doctest: +SKIP
    'too few spots'
    """

    _signal_type = SIGNAL_TYPE

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns; after ``isig`` those that are left.

        Raises
        ------
        ValueError
            If the signal axis no longer tells which these are.
        """
        known = tuple(self.metadata.Sadp.columns)
        return tuple(known[number] for number in self._numbers(len(known)))

    def _numbers(self, n_known: int) -> list[int]:
        """Return the number that each column had among all: ``isig`` keeps it as the value of the signal axis."""
        axes = self.axes_manager.signal_axes
        values = axes[0].axis if len(axes) == 1 else np.empty(0)
        numbers = np.round(values).astype(int)
        steps = np.diff(values)
        if (
            not len(values)
            or not np.allclose(values, numbers, atol=1e-6)
            or (steps <= 0).any()
            or not 0 <= numbers.min() <= numbers.max() < n_known
        ):
            raise ValueError(
                f"the signal axis has values {np.array2string(values, threshold=6)}, expected numbers of columns, 0 to {n_known - 1}: "
                "these maps were changed otherwise than by isig or inav"
            )
        return numbers.tolist()

    def names(self, column: str) -> tuple[str, ...]:
        """Return what the codes of a column stand for.

        Parameters
        ----------
        column : {"reason", "class"}
            A column of codes.

        Returns
        -------
        tuple of str
            Name of code 0, 1, ...

        Raises
        ------
        ValueError
            If the column holds no codes.
        """
        codes = self.metadata.Sadp.codes.as_dictionary()
        check_option("column", column, codes)
        return tuple(codes[column])

    def image(self, column: str) -> BaseSignal:
        """Return the map of one column.

        Parameters
        ----------
        column : str
            One of `columns`.

        Returns
        -------
        hyperspy.api.signals.BaseSignal
            Its signal axes are the navigation axes of the scan: a `Signal2D` for a scan of rows and columns. Lazy while this signal is:
            compute this signal first, or every map analyses the frames anew.

        Raises
        ------
        ValueError
            If there is no such column, or ``isig`` left it out.
        """
        left = self.columns
        check_option("column", column, left)
        found = self.isig[left.index(column)].T
        found.set_signal_type("")
        unit = self.metadata.Sadp.units[self.metadata.Sadp.columns.index(column)]
        found.metadata.set_item("General.title", f"{self.metadata.General.title} {column}".strip())
        found.metadata.set_item("Signal.quantity", f"{column} ({unit})" if unit else column)
        return found

    def images(self) -> dict[str, BaseSignal]:
        """Return the maps of all columns by name; see `image`."""
        return {column: self.image(column) for column in self.columns}

    def refused(self) -> dict[str, int]:
        """Count the frames that were refused, by reason.

        Returns
        -------
        dict of str to int
            Reasons that occur, most frequent first.

        Raises
        ------
        ValueError
            If ``isig`` left out the column ``reason``.
        """
        codes = np.asarray(self.image("reason").data).ravel().astype(int)
        names = self.names("reason")
        counts = np.bincount(codes, minlength=len(names))
        order = np.argsort(-counts, kind="stable")
        return {names[i]: int(counts[i]) for i in order if counts[i] and i}


class LazySADPProperties(LazySignal1D, SADPProperties):
    """Lazy counterpart of `SADPProperties`."""
