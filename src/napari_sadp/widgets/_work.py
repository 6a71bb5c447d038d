"""What the *Identify* widget does off the GUI thread. No Qt, no viewer and no layers in here.

Nothing in this file may touch the viewer, a layer or a widget: it runs in another thread. Torch is loaded here, inside the
run, so that importing the plugin stays quick.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.errors import SadpError, UnreadableFileError
from napari_sadp.identify import (
    Identification,
    PatternResult,
    combine_results,
    identify_pattern,
    unreadable_result,
)
from napari_sadp.report import same_patterns

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_sadp.ensemble.combine import Rule
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
    """

    source: Source
    frame: int
    result: PatternResult


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
    *,
    rule: Rule = "product",
    weights: Path | str | None = None,
    device: str = "auto",
    min_snr: float = 6.0,
) -> Generator[FrameResult | None, None, Outcome]:
    """Analyse and classify the frames of layers.

    Parameters
    ----------
    sources : sequence of Source
        Layers.
    rule : {"product", "mean"}
        How to combine the patterns.
    weights : pathlib.Path or str, optional
        Weight file; the bundled network by default.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    min_snr : float
        Smallest signal to noise ratio of a spot.

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
    try:
        from napari_sadp.models.predict import load_classifier

        classifier = load_classifier(weights, device)
        yield None
        frames: list[FrameResult] = []
        total = sum(len(source.frames) for source in sources)
        for source in sources:
            for frame in source.frames:
                try:
                    result = identify_pattern(source.load(frame), classifier, min_snr=min_snr)
                except UnreadableFileError as error:
                    result = unreadable_result(source.label(frame), frame, error, classifier.scheme)
                frames.append(
                    FrameResult(source, frame, result if total <= MAX_KEPT_IMAGES else _light(result))
                )
                yield frames[-1]
        return combine_frames(frames, rule=rule)
    except RuntimeError as error:
        # torch reports a full or failing device so; the worker would take it for its own end and fall silent
        cause = (str(error).strip() or "no message").splitlines()[0]
        raise SadpError(f"the network cannot run on device {device!r}: {cause}") from error


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


def _light(result: PatternResult) -> PatternResult:
    """Drop the images from a result."""
    pattern = replace(result.pattern, data=np.zeros((1, 1), np.float32), mask=None)
    return replace(result, pattern=pattern, training_image=None)
