"""What a network says about the frames of a signal: classes of each, the space group of all.

A map of classes has two steps: every frame is measured by itself, then the images of a chunk go through the network as one batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp._validate import check_range
from napari_sadp.geometry._checks import with_mask
from napari_sadp.signals import _frames
from napari_sadp.signals._mapping import MappedPatterns, each_frame
from napari_sadp.signals._options import known_options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hyperspy.signal import BaseSignal
    from hyperspy.signals import Signal1D

    from napari_sadp.identify import Identification, Knowledge, PatternResult
    from napari_sadp.models.predict import Classifier, Precision, Views
    from napari_sadp.signals._mapping import Beam, Mask


class ClassifiedPatterns(MappedPatterns):
    """Two-dimensional patterns that a network classifies."""

    @known_options
    def classify(
        self,
        *,
        model: Path | str | Classifier | None = None,
        device: str = "auto",
        views: Views = "mirrors",
        precision: Precision = "single",
        beam_rc: Beam = None,
        mask: Mask = None,
        min_snr: float = 6.0,
        faintest: float = 0.0,
        **map_options: Any,
    ) -> Signal1D:
        """Classify every frame; lazy signals are classified lazily.

        Parameters
        ----------
        model : str, path-like or Classifier, optional
            Name of a network, its weight file, or one that `napari_sadp.load_classifier` gave, which has a device, views and a precision
            of its own; the bundled network by default. A cluster needs less traffic for a name or file that its workers know.
        device : str
            ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        views : {"mirrors", "one", "turns"}
            What the network's answer is averaged over, see `napari_sadp.models.predict.image_views`.
        precision : {"single", "half"}
            Half precision is faster on GPUs, see `napari_sadp.models.predict.load_classifier`.
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
            Options of `hyperspy.api.signals.BaseSignal.map`: ``show_progressbar``, ``num_workers``,
            ``lazy_output`` and ``navigation_chunks``.

        Returns
        -------
        hyperspy.api.signals.Signal1D
            Probabilities of the classes ``metadata.Sadp.columns`` and, last, of ``"none"``; nan where a frame is refused. The signal axis holds
            the numbers of the columns, also after ``isig``.

        Raises
        ------
        TypeError
            If there is no such option.
        ValueError
            If a parameter is out of range, or mask or beam fit neither a frame nor the navigation axes.
        """
        check_range("faintest", faintest, 0.0, 0.5)
        network = _frames.Model(model, device, views, precision)
        columns = dict.fromkeys(self._class_names(network), "probability")
        return self._map_classes(
            network, columns, "classes", map_options, faintest=faintest, **self._given(beam_rc, mask, min_snr)
        )

    @known_options
    def identify(
        self,
        *,
        rule: str = "product",
        model: Path | str | Classifier | None = None,
        device: str = "auto",
        views: Views = "mirrors",
        precision: Precision = "single",
        beam_rc: Beam = None,
        mask: Mask = None,
        min_snr: float = 6.0,
        faintest: float = 0.0,
        progress: Callable[[PatternResult], None] | None = None,
        knowledge: Knowledge | None = None,
    ) -> Identification:
        """Name the space group, taking all frames as patterns of one crystal.

        Parameters
        ----------
        rule : {"product", "mean"}
            How the patterns combine.
        model : str, path-like or Classifier, optional
            Name of a network, its weight file, or one that `napari_sadp.load_classifier` gave, which has a device, views and a precision
            of its own; the bundled network by default.
        device : str
            ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        views : {"mirrors", "one", "turns"}
            What the network's answer is averaged over, see `napari_sadp.models.predict.image_views`.
        precision : {"single", "half"}
            Half precision is faster on GPUs, see `napari_sadp.models.predict.load_classifier`.
        beam_rc : sequence of 2 float or signal, optional
            Direct beam (row, col) [px], if it is known: one for all frames, or a signal with the navigation axes of this one, such as
            `find_direct_beam` gives; nan stands for not known.
        mask : ndarray of bool or signal, optional
            True where the data mean nothing: one frame (n_rows, n_cols) for all, or a signal with one for each.
        min_snr : float
            Smallest signal to noise ratio of a spot.
        faintest : float
            Intensity of the weakest spot that counts, over that of the strongest diffracted beam; 0 to 0.5.
        progress : callable, optional
            Called with the result of each frame; an exception that it raises stops the work.
        knowledge : napari_sadp.identify.Knowledge, optional
            Elements, candidates, thickness or tilts, where they are known.

        Returns
        -------
        Identification
            Frozen dataclass; ``found.space_groups`` is the table, ``napari_sadp.report.format_table(found)`` its text.

        Raises
        ------
        TypeError
            If there is no such option.
        CheckpointError
            If the weights cannot be used.
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
        return identify_patterns(
            patterns,
            rule=rule,
            model=model,
            device=device,
            views=views,
            precision=precision,
            beam_rc=beams,
            min_snr=given["min_snr"],
            faintest=faintest,
            progress=progress,
            knowledge=knowledge,
        )

    def _class_names(self, network: _frames.Model) -> tuple[str, ...]:
        """Return the names of the classes of a network, and that of none of them."""
        from napari_sadp.identify import NONE_LABEL

        return (*network.load().scheme.labels, NONE_LABEL)

    def _map_classes(
        self,
        network: _frames.Model,
        columns: dict[str, str],
        what: str,
        map_options: dict[str, Any],
        **options: Any,
    ) -> BaseSignal:
        """Map the class columns, after those of properties where `columns` begin with these; each chunk is one batch of the network."""
        wanted = dict(map_options)
        lazy = wanted.pop("lazy_output", None)
        found = self._mapped(
            _frames.measured,
            model=network,
            inplace=False,
            ragged=False,
            output_signal_size=(1,),
            output_dtype=object,
            lazy_output=True,
            **wanted,
            **options,
        )
        n_axes, blocks = found.axes_manager.navigation_dimension, found.data
        found.data = blocks.map_blocks(
            _frames.class_rows,
            model=network,
            n_axes=n_axes,
            n_columns=len(columns),
            with_properties="reason" in columns,
            chunks=(*blocks.chunks[:n_axes], (len(columns),)),
            meta=np.empty((0,) * blocks.ndim),
        )
        found.get_dimensions_from_data()
        found = self._with_columns(found, columns, what)
        classifier = network.load()
        about = {
            "name": classifier.card.name,
            "sha256": classifier.card.sha256,
            "views": classifier.views,
            "precision": classifier.precision,
        }
        found.metadata.set_item("Sadp.made_with.model", about)
        if not (self._lazy if lazy is None else lazy):
            chosen = ("show_progressbar", "num_workers")
            found.compute(**{name: wanted[name] for name in chosen if name in wanted})
        return found
