"""What the *Identify* widget does off the GUI thread. No Qt, no viewer and no layers in here.

Nothing in this file may touch the viewer, a layer or a widget: it runs in another thread. Torch is loaded here, inside the
run, so that importing the plugin stays quick.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.errors import SadpError, UnreadableFileError
from napari_sadp.geometry.edit import Edits
from napari_sadp.identify import (
    Identification,
    PatternResult,
    combine_results,
    identify_pattern,
    unreadable_result,
)
from napari_sadp.report import same_patterns

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from napari_sadp.ensemble.combine import Rule
    from napari_sadp.models.predict import Classifier
    from napari_sadp.widgets._sources import Source

#: Results of more patterns than this are kept without their images, which would fill the memory.
MAX_KEPT_IMAGES = 64


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The result of one frame of one layer.

    Parameters
    ----------
    source : Source
        The layer.
    frame : int
        Flat index of the frame in the layer.
    result : PatternResult
        What was found, in pixels of the square-pixel frame.
    edits : Edits
        What the user gave.
    """

    source: Source
    frame: int
    result: PatternResult
    edits: Edits = field(default_factory=Edits)


@dataclass(frozen=True, eq=False)
class RunOptions:
    """What the user chose, read once at the start of a run.

    Parameters
    ----------
    rule : {"product", "mean"}
        How to combine the patterns.
    min_snr : float
        Smallest signal to noise ratio of a spot.
    faintest : float
        Intensity of the weakest spot that counts, over that of the strongest diffracted beam.
    weights : pathlib.Path or str, optional
        Weight file or name of a network; the bundled one by default.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    nodes : bool
        Whether a layer shows all nodes.
    left_out : bool
        Whether a layer shows the pixels that did not count.
    pixel_size : float
        Pixel size that counts instead of that of the layer [1/Å]; 0 for none.
    find_covers : bool
        Whether beam stops, margins and bars are looked for.
    """

    rule: Rule = "product"
    min_snr: float = 6.0
    faintest: float = 0.0
    weights: Path | str | None = None
    device: str = "auto"
    nodes: bool = False
    left_out: bool = False
    pixel_size: float = 0.0
    find_covers: bool = True


class Ticket:
    """Says whether work that goes on in another thread is still wanted."""

    def __init__(self) -> None:
        self.wanted = True


@dataclass(frozen=True, eq=False)
class Outcome:
    """All results and what they say together.

    Parameters
    ----------
    frames : tuple of FrameResult
        In the order in which they were analysed.
    found : Identification
        Combined space groups.
    same : dict of int to tuple of int
        For each space group the others with the same patterns on every axis.
    """

    frames: tuple[FrameResult, ...]
    found: Identification
    same: dict[int, tuple[int, ...]]


def identify_sources(
    sources: Sequence[Source],
    options: RunOptions | None = None,
    *,
    given: Mapping[tuple[str, int], Edits] | None = None,
) -> Generator[FrameResult | None, None, Outcome]:
    """Analyse and classify the frames of layers.

    Parameters
    ----------
    sources : sequence of Source
        Layers.
    options : RunOptions, optional
        Defaults otherwise.
    given : mapping of (layer id, frame) to Edits, optional
        Beams and masks that the user gave.

    Yields
    ------
    FrameResult or None
        None once the network is loaded, then one result a frame: between any two the run can be stopped.

    Returns
    -------
    Outcome
        Everything.

    Raises
    ------
    SadpError
        If the weights or a frame cannot be read, or the device fails.
    ValueError
        If an option is wrong.
    """
    options, given = options or RunOptions(), given or {}
    with _device_errors(options.device):
        classifier = _classifier(options)
        yield None
        frames: list[FrameResult] = []
        total = sum(len(source.frames) for source in sources)
        for source in sources:
            for frame in source.frames:
                edits = given.get((source.layer_id, frame), Edits())
                found = _identified(source, frame, edits, classifier, options)
                frames.append(found if total <= MAX_KEPT_IMAGES else _light(found))
                yield frames[-1]
        return combine_frames(frames, rule=options.rule)


def reanalyse(
    frames: Sequence[FrameResult], changes: Mapping[int, Edits], options: RunOptions, ticket: Ticket
) -> tuple[dict[int, FrameResult], Outcome] | None:
    """Analyse some frames again, with what the user changed in them, and combine all.

    Parameters
    ----------
    frames : sequence of FrameResult
        All results.
    changes : mapping of int to Edits
        Position in `frames`, and what the user gave.
    options : RunOptions
        Those of the run.
    ticket : Ticket
        Looked at between two frames.

    Returns
    -------
    (dict of int to FrameResult, Outcome) or None
        The new results by their position, and what all say together; None where the work is no longer wanted.

    Raises
    ------
    SadpError
        If the weights or a frame cannot be read, or the device fails.
    ValueError
        If a mask has the wrong shape.
    """
    with _device_errors(options.device):
        classifier = _classifier(options)
        new: dict[int, FrameResult] = {}
        for number, edits in changes.items():
            if not ticket.wanted:
                return None
            old = frames[number]
            found = _identified(old.source, old.frame, edits, classifier, options)
            new[number] = found if len(frames) <= MAX_KEPT_IMAGES else _light(found)
        together = [new.get(number, item) for number, item in enumerate(frames)]
        return new, combine_frames(together, rule=options.rule)


@contextmanager
def _device_errors(device: str) -> Iterator[None]:
    """Turn what torch raises for a full or failing device into an error of ours.

    A worker would take a `RuntimeError` for its own end and fall silent.
    """
    try:
        yield
    except RuntimeError as error:
        cause = (str(error).strip() or "no message").splitlines()[0]
        raise SadpError(f"the network cannot run on device {device!r}: {cause}") from error


def _classifier(options: RunOptions) -> Classifier:
    from napari_sadp.models.predict import load_classifier

    return load_classifier(options.weights, options.device)


def _identified(
    source: Source, frame: int, edits: Edits, classifier: Classifier, options: RunOptions
) -> FrameResult:
    """Return the result of one frame, also where it cannot be read."""
    try:
        pattern = source.load(frame)
        if options.pixel_size > 0:
            pattern = pattern.with_pixel_size(options.pixel_size)
        if not options.find_covers:
            pattern = pattern.with_given_covers()
        result = identify_pattern(
            pattern, classifier, edits=edits, min_snr=options.min_snr, faintest=options.faintest
        )
    except UnreadableFileError as error:
        result = unreadable_result(source.label(frame), frame, error, classifier.scheme)
    return FrameResult(source, frame, result, edits)


def combine_frames(frames: Sequence[FrameResult], *, rule: Rule = "product") -> Outcome:
    """Combine the results of frames of one crystal.

    Parameters
    ----------
    frames : sequence of FrameResult
        At least one.
    rule : {"product", "mean"}
        How to combine them.

    Returns
    -------
    Outcome
        Results and space groups.
    """
    found = combine_results((item.result for item in frames), rule=rule)
    same = {number: same_patterns(number) for number in found.space_groups.groups}
    return Outcome(tuple(frames), found, same)


def _light(item: FrameResult) -> FrameResult:
    """Drop the images from a result."""
    pattern = replace(item.result.pattern, data=np.zeros((1, 1), np.float32), mask=None)
    return replace(item, result=replace(item.result, pattern=pattern, training_image=None, left_out=None))
