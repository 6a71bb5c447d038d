"""The HyperSpy signal of selected-area diffraction patterns.

Methods are thin: they collect parameters and map a function of the core over the frames, lazily where the signal is
lazy. Positions are (row, col) in px of the frame, as everywhere in the package, and not HyperSpy's (x, y); oblong pixels count as
resampled to square ones.

The analysis is Python that calls numpy on small arrays, so that threads, HyperSpy's default, hold each other up. Processes do not: keep
the signal lazy and compute under ``dask.distributed.Client(n_workers=..., threads_per_worker=1)``, also across machines, or with
``found.compute(scheduler="processes")`` where the data are no open HDF5 file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from hyperspy.signals import LazySignal2D

from napari_sadp._validate import check_option, check_range
from napari_sadp.geometry._checks import with_mask
from napari_sadp.geometry.convention import G1_FRACTION, IMAGE_CONVENTION, IMAGE_SIZE
from napari_sadp.geometry.conversions import PATTERN_CONVERSIONS
from napari_sadp.signals import _frames
from napari_sadp.signals._mapping import MappedPatterns, each_frame
from napari_sadp.signals._properties import CLASS_COLUMNS, PROPERTY_COLUMNS, REASONS
from napari_sadp.signals.properties import SIGNAL_TYPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperspy.signals import Signal1D

    from napari_sadp.geometry.analyse import PatternGeometry
    from napari_sadp.identify import Identification
    from napari_sadp.models.predict import Views
    from napari_sadp.signals._mapping import Beam, Mask
    from napari_sadp.signals.properties import SADPProperties


class SADPattern2D(MappedPatterns):
    """Selected-area electron diffraction patterns; the signal axes are reciprocal space.

    Beam stops, margins and bars are looked for in each frame, and masked; with ``s.metadata.set_item("Sadp.find_covers", False)``
    nothing is but what a ``mask`` holds.

    Examples
    --------
    >>> import hyperspy.api as hs  # doctest: +SKIP
    >>> s = hs.load("pattern.dm3", signal_type="sadp")  # doctest: +SKIP
    >>> found = s.identify()  # doctest: +SKIP
    >>> found.space_groups.groups[0]  # doctest: +SKIP
    225
    """

    _signal_type = "sadp"

    def find_direct_beam(
        self, *, beam_rc: Beam = None, mask: Mask = None, min_snr: float = 6.0, **map_options: Any
    ) -> Signal1D:
        """Find the direct beam in every frame.

        Parameters
        ----------
        beam_rc : sequence of 2 float or signal, optional
            Direct beam (row, col) [px], if it is known: one for all frames, or a signal with the navigation axes of this one, such as
            `find_direct_beam` gives; nan stands for not known.
        mask : ndarray of bool or signal, optional
            True where the data mean nothing: one frame (n_rows, n_cols) for all, or a signal with one for each.
        min_snr : float
            Smallest signal to noise ratio of a spot.
        **map_options
            Options of `hyperspy.api.signals.BaseSignal.map`, such as ``show_progressbar``, ``num_workers`` and ``lazy_output``.

        Returns
        -------
        hyperspy.api.signals.Signal1D
            Navigation axes of the patterns, signal (row, col) [px], refined on the lattice where there is one; nan where no beam was
            found.

        Raises
        ------
        ValueError
            If a parameter is out of range, or mask or beam fit neither a frame nor the navigation axes.
        """
        return self._map_rows(
            _frames.beam_row,
            {"row": "px", "col": "px"},
            "direct beam",
            map_options,
            **self._given(beam_rc, mask, min_snr),
        )

    def fit_lattice(
        self, *, beam_rc: Beam = None, mask: Mask = None, min_snr: float = 6.0, **map_options: Any
    ) -> Signal1D:
        """Fit the reduced spot lattice of every frame.

        Parameters
        ----------
        beam_rc : sequence of 2 float or signal, optional
            Direct beam (row, col) [px], if it is known: one for all frames, or a signal with the navigation axes of this one, such as
            `find_direct_beam` gives; nan stands for not known.
        mask : ndarray of bool or signal, optional
            True where the data mean nothing: one frame (n_rows, n_cols) for all, or a signal with one for each.
        min_snr : float
            Smallest signal to noise ratio of a spot.
        **map_options
            Options of `hyperspy.api.signals.BaseSignal.map`, such as ``show_progressbar``, ``num_workers`` and ``lazy_output``.

        Returns
        -------
        hyperspy.api.signals.Signal1D
            Signal axis: ``s.metadata.Sadp.columns``, that is direct beam, g1 and g2 as (row, col) [px], ratio, angle [deg],
            rms [px] and number of spots; nan where the frame is refused. `property_maps` gives the reason, and more.

        Raises
        ------
        ValueError
            If a parameter is out of range, or mask or beam fit neither a frame nor the navigation axes.
        """
        units = dict.fromkeys(_frames.LATTICE_COLUMNS, "px") | {
            "ratio": "",
            "angle_deg": "deg",
            "n_spots": "",
        }
        return self._map_rows(
            _frames.lattice_row, units, "lattice", map_options, **self._given(beam_rc, mask, min_snr)
        )

    def property_maps(
        self,
        *,
        beam_rc: Beam = None,
        mask: Mask = None,
        min_snr: float = 6.0,
        faintest: float = 0.0,
        classify: bool = False,
        weights: str | None = None,
        device: str = "auto",
        views: Views = "mirrors",
        **map_options: Any,
    ) -> SADPProperties:
        """Measure every frame once, for many maps: beam, lattice and its type, nodes, refusals, lengths, class.

        Parameters
        ----------
        beam_rc : sequence of 2 float or signal, optional
            Direct beam (row, col) [px], if it is known: one for all frames, or a signal with the navigation axes of this one, such as
            `find_direct_beam` gives; nan stands for not known.
        mask : ndarray of bool or signal, optional
            True where the data mean nothing: one frame (n_rows, n_cols) for all, or a signal with one for each.
        min_snr : float
            Smallest signal to noise ratio of a spot.
        faintest : float
            Intensity of the weakest spot that counts, over that of the strongest diffracted beam; 0 to 0.5.
        classify : bool
            Whether to classify too; every worker then loads the network.
        weights : str, optional
            Weight file, or the name of a network; the bundled network by default.
        device : str
            ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        views : {"mirrors", "one", "turns"}
            What the network's answer is averaged over, see `napari_sadp.models.predict.image_views`.
        **map_options
            Options of `hyperspy.api.signals.BaseSignal.map`, such as ``show_progressbar``, ``num_workers`` and ``lazy_output``.

        Returns
        -------
        SADPProperties
            Navigation axes of the patterns, one column for each property; lazy where this signal is. Its ``image("ratio")`` is the
            map of a property, once it is computed.

        Raises
        ------
        ValueError
            If a parameter is out of range, or mask or beam fit neither a frame nor the navigation axes.

        See Also
        --------
        napari_sadp.signals.properties.SADPProperties : The columns, and how to get maps.

        Examples
        --------
        >>> s = hs.load("scan.hspy", lazy=True)  # doctest: +SKIP
        >>> found = s.property_maps()  # doctest: +SKIP
        >>> found.compute()  # doctest: +SKIP
        >>> found.image("rotation_deg").plot()  # doctest: +SKIP
        """
        check_range("faintest", faintest, 0.0, 0.5)
        columns = dict(PROPERTY_COLUMNS)
        names: tuple[str, ...] = ()
        if classify:
            columns |= CLASS_COLUMNS
            names = self._class_names(weights, device, views)
        found = self._map_rows(
            _frames.properties,
            columns,
            "properties",
            map_options,
            faintest=faintest,
            classify=bool(classify),
            weights=weights,
            device=device,
            views=views,
            **self._given(beam_rc, mask, min_snr),
        )
        found.set_signal_type(SIGNAL_TYPE)
        found.metadata.set_item("Sadp.codes.reason", list(REASONS))
        if names:
            found.metadata.set_item("Sadp.codes.class", list(names))
        return found

    def analyse_frame(
        self,
        index: int = 0,
        *,
        beam_rc: Sequence[float] | None = None,
        mask: np.ndarray | None = None,
        min_snr: float = 6.0,
    ) -> PatternGeometry:
        """Return beam, spots, lattice and background-subtracted image of one frame.

        Parameters
        ----------
        index : int
            Frame, flat index in C order over the navigation axes.
        beam_rc : sequence of 2 float, optional
            Direct beam (row, col) [px], if it is known.
        mask : (n_rows, n_cols) ndarray of bool, optional
            True where the data mean nothing [px of the stored frame].
        min_snr : float
            Smallest signal to noise ratio of a spot.

        Returns
        -------
        PatternGeometry
            Frozen dataclass, lengths in px.

        Raises
        ------
        PatternRefusedError
            If the frame is no single-crystal zone-axis pattern; ``reason`` and ``detail`` say why.
        """
        from napari_sadp.geometry.analyse import analyse_pattern

        stack = self.to_stack()
        if mask is not None:
            mask = _frames.square_mask(self._given(None, mask, min_snr)["mask"], stack.oblong_scale)
        return analyse_pattern(stack[index], beam_rc=beam_rc, mask=mask, min_snr=min_snr)

    def to_training_images(
        self,
        conversion: str = "aligned",
        size: int = IMAGE_SIZE,
        *,
        beam_rc: Beam = None,
        mask: Mask = None,
        min_snr: float = 6.0,
        **map_options: Any,
    ) -> SADPattern2D:
        """Bring every frame into the image convention of the networks.

        Parameters
        ----------
        conversion : {"aligned", "article", "rendered"}
            How: *article* keeps the orientation, *aligned* turns the shortest lattice vector on to the row axis, *rendered* draws the
            nodes of the lattice anew, aligned, with their measured intensities.
        size : int
            Rows and columns of the images [px].
        beam_rc : sequence of 2 float or signal, optional
            Direct beam (row, col) [px], if it is known: one for all frames, or a signal with the navigation axes of this one, such as
            `find_direct_beam` gives; nan stands for not known.
        mask : ndarray of bool or signal, optional
            True where the data mean nothing: one frame (n_rows, n_cols) for all, or a signal with one for each.
        min_snr : float
            Smallest signal to noise ratio of a spot.
        **map_options
            Options of `hyperspy.api.signals.BaseSignal.map`, such as ``show_progressbar``, ``num_workers`` and ``lazy_output``.

        Returns
        -------
        SADPattern2D
            Images of 0 to 1, axes in units of the shortest lattice vector |g1|; zero where a frame is refused.

        Raises
        ------
        ValueError
            If a parameter is out of range, or mask or beam fit neither a frame nor the navigation axes.
        """
        check_option("conversion", conversion, PATTERN_CONVERSIONS)
        check_range("size", size, 16, 4096, "px")
        images = self._mapped(
            _frames.training_image,
            conversion=conversion,
            size=size,
            inplace=False,
            ragged=False,
            output_signal_size=(size, size),
            output_dtype="float32",
            **self._given(beam_rc, mask, min_snr),
            **map_options,
        )
        images.set_signal_type("sadp")
        for axis in images.axes_manager.signal_axes:
            axis.scale, axis.units = 1 / (size * G1_FRACTION), "|g1|"
            axis.offset = -(size - 1) / 2 * axis.scale
        images.metadata.set_item("Sadp.image_convention", IMAGE_CONVENTION)
        images.metadata.set_item("Sadp.conversion", conversion)
        return images

    def classify(
        self,
        *,
        weights: str | None = None,
        device: str = "auto",
        views: Views = "mirrors",
        beam_rc: Beam = None,
        mask: Mask = None,
        min_snr: float = 6.0,
        faintest: float = 0.0,
        **map_options: Any,
    ) -> Signal1D:
        """Classify every frame; lazy signals are classified lazily.

        Parameters
        ----------
        weights : str, optional
            Weight file, or the name of a network; the bundled network by default.
        device : str
            ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        views : {"mirrors", "one", "turns"}
            What the network's answer is averaged over, see `napari_sadp.models.predict.image_views`.
        beam_rc : sequence of 2 float or signal, optional
            Direct beam (row, col) [px], if it is known: one for all frames, or a signal with the navigation axes of this one, such as
            `find_direct_beam` gives; nan stands for not known.
        mask : ndarray of bool or signal, optional
            True where the data mean nothing: one frame (n_rows, n_cols) for all, or a signal with one for each.
        min_snr : float
            Smallest signal to noise ratio of a spot.
        faintest : float
            Intensity of the weakest spot that counts, over that of the strongest diffracted beam; 0 to 0.5.
        **map_options
            Options of `hyperspy.api.signals.BaseSignal.map`, such as ``show_progressbar``, ``num_workers`` and ``lazy_output``.

        Returns
        -------
        hyperspy.api.signals.Signal1D
            Probabilities of the classes ``s.metadata.Sadp.columns`` and, last, of ``"none"``; nan where a frame is refused.

        Raises
        ------
        ValueError
            If a parameter is out of range, or mask or beam fit neither a frame nor the navigation axes.
        """
        check_range("faintest", faintest, 0.0, 0.5)
        names = self._class_names(weights, device, views)
        return self._map_rows(
            _frames.class_row,
            dict.fromkeys(names, "probability"),
            "classes",
            map_options,
            weights=weights,
            device=device,
            views=views,
            n_classes=len(names) - 1,
            faintest=faintest,
            **self._given(beam_rc, mask, min_snr),
        )

    def identify(
        self,
        *,
        rule: str = "product",
        beam_rc: Beam = None,
        mask: Mask = None,
        min_snr: float = 6.0,
        **options: Any,
    ) -> Identification:
        """Name the space group, taking all frames as patterns of one crystal.

        Parameters
        ----------
        rule : {"product", "mean"}
            How the patterns combine.
        beam_rc : sequence of 2 float or signal, optional
            Direct beam (row, col) [px], if it is known: one for all frames, or a signal with the navigation axes of this one, such as
            `find_direct_beam` gives; nan stands for not known.
        mask : ndarray of bool or signal, optional
            True where the data mean nothing: one frame (n_rows, n_cols) for all, or a signal with one for each.
        min_snr : float
            Smallest signal to noise ratio of a spot.
        **options
            Options of `napari_sadp.identify_patterns`: ``weights``, ``device``, ``views``, ``faintest``, ``progress``, ``knowledge``.

        Returns
        -------
        Identification
            Frozen dataclass; ``found.space_groups`` is the table, ``napari_sadp.report.format_table(found)`` its text.

        Raises
        ------
        ValueError
            If an option is wrong, or mask or beam fit neither a frame nor the navigation axes.
        """
        from napari_sadp.identify import identify_patterns

        stack, given = self.to_stack(), self._given(beam_rc, mask, min_snr)
        patterns = iter(stack)
        if mask is not None:
            masks = each_frame(given["mask"], 2)
            patterns = (
                with_mask(pattern, _frames.square_mask(np.asarray(one, dtype=bool), stack.oblong_scale))
                for pattern, one in zip(patterns, masks, strict=False)
            )
        beams = None if beam_rc is None else each_frame(given["beam_rc"], 1)
        return identify_patterns(patterns, rule=rule, beam_rc=beams, min_snr=given["min_snr"], **options)


class LazySADPattern2D(LazySignal2D, SADPattern2D):
    """Lazy counterpart of `SADPattern2D`."""
