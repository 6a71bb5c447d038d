"""The stream of training images for each conversion of a pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_sadp._validate import check_option
from napari_sadp.dataset.node_stream import NodeStream
from napari_sadp.dataset.stream import PatternStream
from napari_sadp.geometry.conversions import PATTERN_CONVERSIONS

if TYPE_CHECKING:
    from napari_sadp.dataset.library import SpotLibrary
    from napari_sadp.geometry.conversions import PatternConversion


def conversion_stream(
    conversion: PatternConversion, library: SpotLibrary, *, size: int, n_classes: int, **options: Any
) -> PatternStream:
    """Return the stream of training images that look like patterns after a conversion.

    Parameters
    ----------
    conversion : {"aligned", "article", "rendered"}
        See `napari_sadp.geometry.conversions.convert_pattern`.
    library : SpotLibrary
        Spots to draw from.
    size : int
        Image size [px].
    n_classes : int
        Classes of the scheme.
    **options
        Further parameters of `PatternStream`.

    Returns
    -------
    PatternStream
        Its images carry the errors that the conversion leaves in measured patterns.

    Raises
    ------
    ValueError
        If the conversion is unknown.
    """
    check_option("conversion", conversion, PATTERN_CONVERSIONS)
    if conversion == "rendered":
        return NodeStream(library, size=size, n_classes=n_classes, **options)
    return PatternStream(library, size=size, n_classes=n_classes, turned=conversion == "article", **options)
