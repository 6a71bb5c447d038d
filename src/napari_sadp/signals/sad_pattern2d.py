"""The HyperSpy signal of selected-area diffraction patterns.

Methods are thin: they collect parameters and map a function of the core over the frames, lazily where the signal is
lazy. Positions are (row, col) in px of the frame, as everywhere in the package, and not HyperSpy's (x, y); oblong pixels count as
resampled to square ones.

The analysis is Python that calls numpy on small arrays, so that threads, HyperSpy's default, hold each other up. Processes do not: keep
the signal lazy and compute under ``dask.distributed.Client(n_workers=..., threads_per_worker=1)``, also across machines, or with
``found.compute(scheduler="processes")`` where the data are no open HDF5 file.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
from hyperspy.signals import LazySignal2D

from napari_sadp._validate import check_option, check_range
from napari_sadp.geometry.convention import G1_FRACTION, IMAGE_CONVENTION, IMAGE_SIZE
from napari_sadp.geometry.conversions import PATTERN_CONVERSIONS
from napari_sadp.signals import _frames
from napari_sadp.signals._classified import ClassifiedPatterns
from napari_sadp.signals._mapping import of_frame
from napari_sadp.signals._options import known_options
from napari_sadp.signals._properties import CLASS_COLUMNS, PROPERTY_COLUMNS, REASONS
from napari_sadp.signals.properties import SIGNAL_TYPE

if TYPE_CHECKING:
    from pathlib import Path

    from hyperspy.signals import Signal1D

    from napari_sadp.geometry.analyse import PatternGeometry
    from napari_sadp.models.predict import Classifier, Precision, Views
    from napari_sadp.signals._mapping import Beam, Mask
    from napari_sadp.signals.properties import SADPProperties


class SADPattern2D(ClassifiedPatterns):
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

    @known_options
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
            Options of `hyperspy.api.signals.BaseSignal.map`: ``show_progressbar``, ``num_workers``,
            ``lazy_output`` and ``navigation_chunks``.

        Returns
        -------
        hyperspy.api.signals.Signal1D
            Navigation axes of the patterns, signal (row, col) [px], refined on the lattice where there is one; nan where no beam was
            found.

        Raises
        ------
        TypeError
            If there is no such option.
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

    @known_options
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
            Options of `hyperspy.api.signals.BaseSignal.map`: ``show_progressbar``, ``num_workers``,
            ``lazy_output`` and ``navigation_chunks``.

        Returns
        -------
        hyperspy.api.signals.Signal1D
            Signal axis: ``s.metadata.Sadp.columns``, that is direct beam, g1 and g2 as (row, col) [px], ratio, angle [deg],
            rms [px] and number of spots; nan where the frame is refused. `property_maps` gives the reason, and more.

        Raises
        ------
        TypeError
            If there is no such option.
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

    @known_options
    def property_maps(
        self,
        *,
        beam_rc: Beam = None,
        mask: Mask = None,
        min_snr: float = 6.0,
        faintest: float = 0.0,
        classify: bool = False,
        model: Path | str | Classifier | None = None,
        device: str = "auto",
        views: Views = "mirrors",
        precision: Precision = "single",
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
        model : str, path-like or Classifier, optional
            Name of a network, its weight file, or one that `napari_sadp.load_classifier` gave, which has a device, views and a precision
            of its own; the bundled network by default. A cluster needs less traffic for a name or file that its workers know.
        device : str
            ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        views : {"mirrors", "one", "turns"}
            What the network's answer is averaged over, see `napari_sadp.models.predict.image_views`.
        precision : {"single", "half"}
            Half precision is faster on GPUs, see `napari_sadp.models.predict.load_classifier`.
        **map_options
            Options of `hyperspy.api.signals.BaseSignal.map`: ``show_progressbar``, ``num_workers``,
            ``lazy_output`` and ``navigation_chunks``.

        Returns
        -------
        SADPProperties
            Navigation axes of the patterns, one column for each property; lazy where this signal is. Its ``image("ratio")`` is the
            map of a property, once it is computed. Notes of a frame, and why it was refused in words, are those of `analyse_frame`.

        Raises
        ------
        TypeError
            If there is no such option.
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
        if model is not None and not classify:
            raise ValueError(f"model is {model!r} and classify is False, expected True, or no model")
        given = {"faintest": faintest, **self._given(beam_rc, mask, min_snr)}
        names: tuple[str, ...] = ()
        if classify:
            columns = PROPERTY_COLUMNS | CLASS_COLUMNS
            network = _frames.Model(model, device, views, precision)
            names = self._class_names(network)
            found = self._map_classes(network, columns, "properties", map_options, **given)
        else:
            found = self._map_rows(_frames.properties, PROPERTY_COLUMNS, "properties", map_options, **given)
        found.set_signal_type(SIGNAL_TYPE)
        found.metadata.set_item("Sadp.codes.reason", list(REASONS))
        if names:
            found.metadata.set_item("Sadp.codes.class", list(names))
        return found

    @known_options
    def analyse_frame(
        self,
        index: int = 0,
        *,
        beam_rc: Beam = None,
        mask: Mask = None,
        min_snr: float = 6.0,
    ) -> PatternGeometry:
        """Return beam, spots, lattice and background-subtracted image of one frame, and what maps have no room for: its notes.

        Parameters
        ----------
        index : int
            Frame, flat index in C order over the navigation axes; negative counts from the end.
        beam_rc, mask, min_snr
            As for the maps, see `property_maps`.

        Returns
        -------
        PatternGeometry
            Frozen dataclass, lengths in px; ``notes`` say what was decided, such as masked bars and repaired pixels.

        Raises
        ------
        PatternRefusedError
            If the frame is no single-crystal zone-axis pattern; ``reason``, ``detail`` and ``notes`` say why.
        IndexError
            If there is no such frame.
        ValueError
            If a parameter is out of range or no number, or mask or beam fit neither a frame nor the navigation axes.
        """
        from napari_sadp.geometry.analyse import analyse_pattern

        stack, given = self.to_stack(), self._given(beam_rc, mask, min_snr)
        try:
            number = operator.index(index)
        except TypeError:
            raise ValueError(
                f"index is {index!r}, expected an integer below {len(stack)}, counted in C order over the navigation axes; the frame "
                "at a position is s.inav[x, y].analyse_frame()"
            ) from None
        pattern = stack[number]
        beam = covered = None
        if "beam_rc" in given:
            beam = _frames.beam_or_none(of_frame(given["beam_rc"], number, 1))
        if "mask" in given:
            covered = np.asarray(of_frame(given["mask"], number, 2), dtype=bool)
            covered = _frames.square_mask(covered, stack.oblong_scale)
        return analyse_pattern(pattern, beam_rc=beam, mask=covered, min_snr=given["min_snr"])

    @known_options
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
            Options of `hyperspy.api.signals.BaseSignal.map`: ``show_progressbar``, ``num_workers``,
            ``lazy_output`` and ``navigation_chunks``.

        Returns
        -------
        SADPattern2D
            Images of 0 to 1, axes in units of the shortest lattice vector |g1|; zero where a frame is refused: `property_maps` says by
            which reason, `analyse_frame` also why.

        Raises
        ------
        TypeError
            If there is no such option.
        ValueError
            If a parameter is out of range, or mask or beam fit neither a frame nor the navigation axes.

        See Also
        --------
        napari_sadp.geometry.conversions.convert_pattern : The same for one frame, with the coordinate map in both directions.

        Examples
        --------
        Where a pixel of the image of frame 5 lies in the pattern, (row, col) [px], and the other way round:

        >>> from napari_sadp.geometry.conversions import convert_pattern
        >>> images = s.to_training_images("aligned", size=128)  # doctest: +SKIP
        >>> image = convert_pattern(s.analyse_frame(5), "aligned", size=128)  # doctest: +SKIP
        >>> image.to_pattern([[63.5, 63.5]])  # the direct beam  # doctest: +SKIP
        array([[127.9, 128.3]])
        >>> image.from_pattern([[127.9, 128.3]])  # doctest: +SKIP
        array([[63.5, 63.5]])
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
        title = f"{self._title()} training images, {conversion}"
        images.metadata.set_item("General.title", title.strip())
        return images


class LazySADPattern2D(LazySignal2D, SADPattern2D):
    """Lazy counterpart of `SADPattern2D`."""
