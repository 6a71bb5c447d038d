"""Pictures of an evaluation: confusion of the classes, calibration, sweeps. Bound to no display."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.models.calibrate import calibration_curve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from napari_sadp.evaluate.metrics import Share

#: Patterns in a bin of a calibration curve, at least.
_FEW = 15
_BLUE, _ORANGE, _GREY = "#1f6fb4", "#d9731a", "#777777"


def plot_confusion(matrix: np.ndarray, labels: Sequence[str]) -> Figure:
    """Draw a confusion matrix, every row over its sum.

    Parameters
    ----------
    matrix : (n, n) ndarray of int
        Counts, true classes in rows.
    labels : sequence of str
        Of the classes.

    Returns
    -------
    matplotlib.figure.Figure
        A dot on the diagonal is a class that is always right; empty rows are classes without a pattern.
    """
    from matplotlib.figure import Figure

    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 0.14 * len(labels) + 1.6)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    # the square root shows what is rare
    shown = axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(labels))
    axes.set_xticks(ticks, labels, rotation=90, fontsize=6)
    axes.set_yticks(ticks, labels, fontsize=6)
    axes.set_xlabel("class found")
    axes.set_ylabel("visible class")
    bar = figure.colorbar(shown, ax=axes, shrink=0.6, ticks=np.sqrt([0, 0.01, 0.05, 0.2, 0.5, 1]))
    bar.ax.set_yticklabels(["0", "1 %", "5 %", "20 %", "50 %", "100 %"])
    bar.set_label("share of the patterns of a class")
    return figure


def plot_calibration(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Draw how often stated probabilities are right.

    Parameters
    ----------
    curves : mapping of str to (confidence, hits)
        For each name, (n,) stated probabilities and whether they were right.

    Returns
    -------
    matplotlib.figure.Figure
        Neighbouring bins with few patterns are one; bars are standard errors, with one right and one wrong pattern added so that a bin
        that is all right has one too.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=_GREY, lw=1, ls="--", zorder=0)
    markers = "osD^v" * len(curves)
    colours = (_BLUE, _ORANGE, "#3a923a", "#8a5ba6", "#444444") * len(curves)
    for (name, (confidence, hits)), colour, marker in zip(curves.items(), colours, markers, strict=False):
        stated, right, counts = _with_few_joined(*calibration_curve(confidence, hits))
        smooth = (right * counts + 1) / (counts + 2)
        error = np.sqrt(smooth * (1 - smooth) / (counts + 2))
        axes.errorbar(
            stated, right, error, color=colour, marker=marker, ms=4, lw=1, elinewidth=0.8, capsize=2,
            label=f"{name}, {counts.sum()}",
        )  # fmt: skip
    axes.set(xlim=(0, 1.02), ylim=(0, 1.05), xlabel="probability stated", ylabel="share that is right")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def _with_few_joined(
    stated: np.ndarray, right: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a calibration curve whose bins have so many patterns that a share means something, the low ones joined first."""
    sums = np.stack([stated * counts, right * counts, counts], axis=1)[counts > 0]
    joined: list[np.ndarray] = []
    for part in sums:
        if joined and joined[-1][2] < _FEW:
            joined[-1] = joined[-1] + part
        else:
            joined.append(part)
    stated, right, counts = np.array(joined).reshape(-1, 3).T
    return stated / counts, right / counts, counts.astype(int)


def plot_sweeps(sweeps: Mapping[str, Mapping[float, tuple[Share, Share, float]]]) -> Figure:
    """Draw accuracy against what was varied.

    Parameters
    ----------
    sweeps : mapping of str to mapping of float to tuple
        By name and value: share of right classes of the frames that are used, share of those used, and the share of frames whose
        visible class is that by symmetry.

    Returns
    -------
    matplotlib.figure.Figure
        One panel for each.
    """
    from matplotlib.figure import Figure

    columns = min(4, max(len(sweeps), 1))
    rows = -(-len(sweeps) // columns)
    figure = Figure(figsize=(3.3 * columns, 2.7 * rows), layout="constrained")
    for number, (name, values) in enumerate(sweeps.items()):
        axes = figure.add_subplot(rows, columns, number + 1, ylim=(0, 1.03))
        x = np.arange(len(values))
        right = [item[0] for item in values.values()]
        middle = np.array([item.value for item in right])
        ends = np.array([[item.value - item.low, item.high - item.value] for item in right]).T
        axes.errorbar(x, middle, np.nan_to_num(ends).clip(0), color=_BLUE, marker="o", ms=4, lw=1.2, capsize=2,
                      label="visible class, of those used")  # fmt: skip
        axes.plot(x, [item[1].value for item in values.values()], color=_ORANGE, marker="s", ms=3, lw=1,
                  label="used")  # fmt: skip
        axes.plot(x, [item[2] for item in values.values()], color=_GREY, ls=":", label="visible = symmetry")
        axes.set_xticks(x, [f"{value:g}" for value in values], fontsize=8)
        axes.set_xlabel(name, fontsize=8)
        if number == 0:
            axes.legend(frameon=False, fontsize=7, loc="lower left")
    return figure
