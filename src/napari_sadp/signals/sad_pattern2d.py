"""The HyperSpy signal of selected-area diffraction patterns.

Methods are thin: they collect parameters and map a function of the core over the frames, lazily where the signal is
lazy. Positions are (row, col) in px of the frame, as everywhere in the package, and not HyperSpy's (x, y); oblong pixels count as
resampled to square ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hyperspy.signals import LazySignal2D, Signal2D

from napari_sadp._validate import check_option, check_range
from napari_sadp.geometry.convention import CONVERSIONS, G1_FRACTION, IMAGE_CONVENTION, IMAGE_SIZE
from napari_sadp.io.rosetta import stack_from_signal
from napari_sadp.signals import _frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyperspy.signals import BaseSignal, Signal1D

    from napari_sadp.geometry.analyse import PatternGeometry
    from napari_sadp.identify import Identification
    from napari_sadp.io.rosetta import PatternStack


class SADPattern2D(Signal2D):
    """Selected-area electron diffraction patterns; the signal axes are reciprocal space.

    Examples
    --------
    >>> import hyperspy.api as hs  # doctest: +SKIP
    >>> s = hs.load("pattern.dm3", signal_type="sadp")  # doctest: +SKIP
    >>> found = s.identify()  # doctest: +SKIP
    >>> found.space_groups.groups[0]  # doctest: +SKIP
    225
    """

    _signal_type = "sadp"

    def to_stack(self) -> PatternStack:
        """Return the frames as the package's own values, calibration, voltage and camera length included.

        Returns
        -------
        PatternStack
            ``len`` is the number of frames, indexing gives a `DiffractionPattern`; lazy frames stay lazy.

        Raises
        ------
        ValueError
            If the data are complex or hold no frame.
        """
        axes = self.axes_manager.as_dictionary()
        return stack_from_signal(
            {
                "data": self.data,
                "axes": [axes[f"axis-{index}"] for index in range(len(axes))],
                "metadata": self.metadata.as_dictionary(),
                "original_metadata": self.original_metadata.as_dictionary(),
            },
            source=str(self.metadata.get_item("General.original_filename", "") or self._title()),
        )

    def find_direct_beam(
        self, *, beam_rc: Sequence[float] | None = None, min_snr: float = 6.0, **map_options: Any
    ) -> Signal1D:
        """Find the direct beam in every frame.

        Parameters
        ----------
        beam_rc : sequence of 2 float, optional
            Direct beam (row, col) [px], if it is known; it is then refined on the lattice.
        min_snr : float
            Smallest signal to noise ratio of a spot.
        **map_options
            Options of `hyperspy.api.signals.BaseSignal.map`, such as ``show_progressbar`` and ``num_workers``.

        Returns
        -------
        hyperspy.api.signals.Signal1D
            Navigation axes of the patterns, signal (row, col) [px]; nan where no beam was found.
        """
        return self._map_rows(
            _frames.beam_row, ("row", "col"), "px", map_options, beam_rc=beam_rc, min_snr=min_snr
        )

    def fit_lattice(
        self, *, beam_rc: Sequence[float] | None = None, min_snr: float = 6.0, **map_options: Any
    ) -> Signal1D:
        """Fit the reduced spot lattice of every frame.

        Parameters
        ----------
        beam_rc : sequence of 2 float, optional
            Direct beam (row, col) [px], if it is known.
        min_snr : float
            Smallest signal to noise ratio of a spot.
        **map_options
            Options of `hyperspy.api.signals.BaseSignal.map`.

        Returns
        -------
        hyperspy.api.signals.Signal1D
            Signal axis: ``s.metadata.Sadp.columns``, that is direct beam, g1 and g2 as (row, col) [px], ratio, angle [deg],
            rms [px] and number of spots; nan where the frame is refused. See `analyse_frame` for the reason.
        """
        return self._map_rows(
            _frames.lattice_row,
            _frames.LATTICE_COLUMNS,
            "px and deg",
            map_options,
            beam_rc=beam_rc,
            min_snr=min_snr,
        )

    def analyse_frame(
        self, index: int = 0, *, beam_rc: Sequence[float] | None = None, min_snr: float = 6.0
    ) -> PatternGeometry:
        """Return beam, spots, lattice and background-subtracted image of one frame.

        Parameters
        ----------
        index : int
            Frame, flat index in C order over the navigation axes.
        beam_rc : sequence of 2 float, optional
            Direct beam (row, col) [px], if it is known.
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

        return analyse_pattern(self.to_stack()[index], beam_rc=beam_rc, min_snr=min_snr)

    def to_training_images(
        self,
        conversion: str = "aligned",
        size: int = IMAGE_SIZE,
        *,
        beam_rc: Sequence[float] | None = None,
        min_snr: float = 6.0,
        **map_options: Any,
    ) -> SADPattern2D:
        """Bring every frame into the image convention of the networks.

        Parameters
        ----------
        conversion : {"aligned", "article"}
            Whether to turn the shortest lattice vector on to the row axis.
        size : int
            Rows and columns of the images [px].
        beam_rc : sequence of 2 float, optional
            Direct beam (row, col) [px], if it is known.
        min_snr : float
            Smallest signal to noise ratio of a spot.
        **map_options
            Options of `hyperspy.api.signals.BaseSignal.map`.

        Returns
        -------
        SADPattern2D
            Images of 0 to 1, axes in units of the shortest lattice vector |g1|; zero where a frame is refused.
        """
        check_option("conversion", conversion, CONVERSIONS)
        check_range("size", size, 16, 4096, "px")
        images = self._mapped(
            _frames.training_image,
            conversion=conversion,
            size=size,
            beam_rc=beam_rc,
            min_snr=min_snr,
            inplace=False,
            ragged=False,
            output_signal_size=(size, size),
            output_dtype="float32",
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
        beam_rc: Sequence[float] | None = None,
        min_snr: float = 6.0,
        **map_options: Any,
    ) -> Signal1D:
        """Classify every frame; lazy signals are classified lazily.

        Parameters
        ----------
        weights : str, optional
            Weight file; the bundled network by default.
        device : str
            ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        beam_rc : sequence of 2 float, optional
            Direct beam (row, col) [px], if it is known.
        min_snr : float
            Smallest signal to noise ratio of a spot.
        **map_options
            Options of `hyperspy.api.signals.BaseSignal.map`.

        Returns
        -------
        hyperspy.api.signals.Signal1D
            Probabilities of the classes ``s.metadata.Sadp.columns`` and, last, of ``"none"``; nan where a frame is refused.
        """
        from napari_sadp.identify import NONE_LABEL
        from napari_sadp.models.predict import load_classifier

        scheme = load_classifier(weights, device).scheme
        return self._map_rows(
            _frames.class_row,
            (*scheme.labels, NONE_LABEL),
            "probability",
            map_options,
            weights=weights,
            device=device,
            n_classes=len(scheme),
            beam_rc=beam_rc,
            min_snr=min_snr,
        )

    def identify(self, *, rule: str = "product", **options: Any) -> Identification:
        """Name the space group, taking all frames as patterns of one crystal.

        Parameters
        ----------
        rule : {"product", "mean"}
            How the patterns combine.
        **options
            Options of `napari_sadp.identify_patterns`: ``weights``, ``device``, ``beam_rc``, ``min_snr``, ``progress``.

        Returns
        -------
        Identification
            Frozen dataclass; ``found.space_groups`` is the table, ``napari_sadp.report.format_table(found)`` its text.
        """
        from napari_sadp.identify import identify_patterns

        return identify_patterns(self.to_stack(), rule=rule, **options)

    def _mapped(self, function: Any, **options: Any) -> BaseSignal:
        """Map a function of `_frames` over the frames as `to_stack` gives them: real, grey, unsigned, with their kind."""
        stack = self.to_stack()
        # a stack has no navigation axes of length 1, the signal keeps them
        frames = self._deepcopy_with_new_data(stack.data.reshape(self.data.shape))
        return frames.map(function, kind=stack.kind, scale=stack.oblong_scale, **options)

    def _title(self) -> str:
        return str(self.metadata.get_item("General.title", ""))

    def _map_rows(
        self,
        function: Any,
        columns: tuple[str, ...],
        quantity: str,
        map_options: dict[str, Any],
        **options: Any,
    ) -> BaseSignal:
        """Map a function that gives one number for each column, and name the columns in the metadata."""
        found = self._mapped(
            function,
            inplace=False,
            ragged=False,
            output_signal_size=(len(columns),),
            output_dtype="float64",
            **map_options,
            **options,
        )
        found.set_signal_type("")
        found.metadata.set_item("Sadp.columns", list(columns))
        found.metadata.set_item("Signal.quantity", quantity)
        found.metadata.set_item("General.title", f"{self._title()} {function.__name__}".strip())
        return found


class LazySADPattern2D(LazySignal2D, SADPattern2D):
    """Lazy counterpart of `SADPattern2D`."""
