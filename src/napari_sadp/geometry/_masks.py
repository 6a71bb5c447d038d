"""What in a frame is no signal: margins, bars, hot and dead pixels, streaks of full pixels."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage import measure

from napari_sadp.geometry._local import few_pixels, interpolation, median_3x3

_MAX_MARGIN = 0.15  # title bars and axes take at most this share of a side; more would cut the pattern
_FLAT_SHARE = 0.7  # of a row of a margin holds one value; the rest is lettering
_EMPTY_LINES = 0.4  # of the rows of a margin bear no lettering at all
_PLATEAU = 6  # touching pixels that share the largest value show that the camera was full
_FLAT_STEP = 0.25  # so much smaller the share of that value must be where the frame begins


def find_margins(data: np.ndarray) -> np.ndarray:
    """Return constant margins, and bars (titles, axes, colour bars) that a straight step cuts off the frame."""
    mask = np.zeros(data.shape, bool)
    low, high = np.percentile(few_pixels(data), [1, 99.9])
    spread = float(high - low)
    # margins at the sides are looked for between those above and below
    cuts = [max(_constant_run(view), _step_run(view, spread)) for view in (data, data[::-1])]
    mask[: cuts[0]] = mask[len(data) - cuts[1] :] = True
    between = data[cuts[0] : len(data) - cuts[1]].T
    if between.size:
        cuts = [max(_constant_run(view), _step_run(view, spread)) for view in (between, between[::-1])]
        mask[:, : cuts[0]] = mask[:, data.shape[1] - cuts[1] :] = True
    return mask


def _constant_run(lines: np.ndarray) -> int:
    """Return how many rows from the first on hold one and the same value, lettering aside; 0 if most of the frame does."""
    values, counts = np.unique(lines[0], return_counts=True)
    share = np.mean(lines == values[np.argmax(counts)], axis=1)
    bare = 0 if (share == 1).all() else int(np.argmin(share == 1))
    lettered = 0 if (share >= _FLAT_SHARE).all() else int(np.argmin(share >= _FLAT_SHARE))
    # a frame that is dark but for its spots has such rows too, but no end of them where another background begins
    sudden = np.max(share[lettered : lettered + 3]) < _FLAT_SHARE - _FLAT_STEP
    narrow = lettered <= _MAX_MARGIN * len(lines)
    if bare and narrow and sudden and np.mean(share[:lettered] == 1) >= _EMPTY_LINES:
        return lettered
    return bare


def _step_run(lines: np.ndarray, spread: float) -> int:
    """Return where the last full-width step within the outer part of the frame is, 0 if there is none."""
    n_edge = int(_MAX_MARGIN * len(lines))
    if n_edge < 2 or spread <= 0:
        return 0
    middle = np.median(lines[: n_edge + 1], axis=1)
    steps = np.flatnonzero(np.abs(np.diff(middle)) > 0.2 * spread)
    return int(steps[-1]) + 1 if len(steps) else 0


def find_scale_bar(data: np.ndarray) -> np.ndarray:
    """Return a burnt-in scale bar with the box where its lettering sits."""
    mask = np.zeros(data.shape, bool)
    low, top = float(np.median(few_pixels(data))), float(data.max())
    if top <= low:
        return mask
    bright = data >= low + 0.97 * (top - low)
    if np.count_nonzero(bright) < 0.05 * max(data.shape):
        return mask
    for region in measure.regionprops(measure.label(bright, connectivity=1)):
        r0, c0, r1, c1 = region.bbox
        thick, long = sorted((r1 - r0, c1 - c0))
        if not (long >= 4 * thick and long >= 0.05 * max(data.shape) and region.extent > 0.9):
            continue
        horizontal = c1 - c0 == long
        across, along = max(8 * thick, 0.25 * long), 0.15 * long + 3
        dr, dc = (across, along) if horizontal else (along, across)
        mask[max(0, int(r0 - dr)) : int(r1 + dr) + 1, max(0, int(c0 - dc)) : int(c1 + dc) + 1] = True
    return mask if mask.mean() < 0.1 else np.zeros(data.shape, bool)


def repair_pixels(data: np.ndarray, mask: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace hot and dead pixels by the median of their surroundings.

    A Gaussian spot of standard deviation 0.6 px or more raises the 3 x 3 median, and the middle ones of the four neighbours,
    to a quarter of its height; a hot pixel, or a small cluster of them, leaves both at the background.
    """
    hot = np.zeros(data.shape, bool)
    data, median = data.copy(), median_3x3(data)
    differs = np.abs(data - median) > 8 * noise
    for again in (False, True):
        if again:
            # what was repaired changes the medians beside it, and the surroundings a little farther off
            row, col = _pixels_around(hot, 1)
            median[row, col] = _median_around(data, row, col, 1)
            row, col = _pixels_around(hot, 3)
            differs = np.zeros(data.shape, bool)
            differs[row, col] = np.abs(data[row, col] - median[row, col]) > 8 * noise[row, col]
        padded = np.pad(data, 1, mode="edge")
        row, col = np.nonzero(differs & ~mask)
        if not len(row):
            break
        around = _median_around(data, row, col, 3)
        value, centre = data[row, col], median[row, col]
        height = value - around
        cross = np.sort(
            np.stack(
                [
                    padded[row, col + 1],
                    padded[row + 2, col + 1],
                    padded[row + 1, col],
                    padded[row + 1, col + 2],
                ]
            ),
            axis=0,
        )
        lone = np.abs(cross[1:3].mean(axis=0) - around) < 0.12 * np.abs(height)
        bad = (np.abs(value - centre) > 0.78 * np.abs(height)) & lone
        # a dark pixel inside a bright spot is dead only if it is nearly without counts
        bad &= (value > centre) | (value < 0.3 * np.maximum(centre, 0))
        if not bad.any():
            break
        row, col, centre = row[bad], col[bad], centre[bad]
        hot[row, col] = True
        data[row, col] = centre
    return data, hot


def _pixels_around(where: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns (n,) of all pixels of the squares around some few, each once."""
    row, col = np.nonzero(where)
    offset = np.arange(-reach, reach + 1)
    rows, cols = np.broadcast_arrays(row[:, None, None] + offset[:, None], col[:, None, None] + offset)
    inside = (rows >= 0) & (rows < where.shape[0]) & (cols >= 0) & (cols < where.shape[1])
    return np.divmod(np.unique(rows[inside] * where.shape[1] + cols[inside]), where.shape[1])


def _median_around(data: np.ndarray, row: np.ndarray, col: np.ndarray, reach: int) -> np.ndarray:
    """Return the median of the squares around pixels (n,), the edge of the frame repeated."""
    offset = np.arange(-reach, reach + 1)
    rows = np.clip(row[:, None, None] + offset[None, :, None], 0, data.shape[0] - 1)
    cols = np.clip(col[:, None, None] + offset[None, None, :], 0, data.shape[1] - 1)
    values = np.sort(data[rows, cols].reshape(len(row), -1), axis=1)  # faster than `numpy.median`
    return values[:, values.shape[1] // 2]


def without_streaks(
    data: np.ndarray, mask: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """Subtract streaks along columns and rows that start from saturated spots, and mask where they are saturated too.

    Returns
    -------
    data, mask : ndarray
        Without streaks; where they hide everything.
    note : str
        What was done, empty for nothing.
    """
    top = float(data[~mask].max()) if not mask.all() else 0.0
    full = (data >= top) & ~mask
    level = float(np.median(noise[::4, ::4]))
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for axis in (0, 1):
        lines, plateau, covered = (a if axis == 0 else a.T for a in (data, full, mask))
        found = _streaks(lines, plateau, plateau | covered, level)
        if found is not None and (best is None or found[0].sum() > best[0]):
            streak, lost = (a if axis == 0 else a.T for a in found)
            best = float(streak.sum()), streak, lost
    if best is None:
        return data, mask, ""
    return data - best[1], mask | best[2], "subtracted streaks of saturated spots"


def _streaks(
    lines: np.ndarray, plateau: np.ndarray, bad: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what streaks along the columns add, and where they are saturated, None without any."""
    columns = np.flatnonzero(plateau.any(axis=0))
    if not len(columns):
        return None
    near = np.zeros(lines.shape[1], bool)
    near[columns] = True
    near = ndimage.binary_dilation(near, iterations=max(3, len(lines) // 64))
    block = max(8, len(lines) // 16)
    n = len(lines) // block
    tiles = np.sort(np.where(bad, np.nan, lines)[: n * block].reshape(n, block, -1), axis=1)
    count = np.isfinite(tiles).sum(axis=1)
    pick = np.clip(np.round(0.4 * (count - 1)), 0, None).astype(int)
    middle = np.take_along_axis(tiles, pick[:, None, :], 1)[:, 0, :]
    middle = np.where(count > 0.4 * block, middle, np.nan)
    excess = middle - _interpolate_rows(np.where(near, np.nan, middle))
    known = np.isfinite(excess)
    # spilt charge fills whole columns
    line = near & (np.median(np.where(known, excess, 0.0), axis=0) > noise)
    line &= np.mean(np.where(known, excess, np.inf) > 0.7 * noise, axis=0) > 0.8
    if not line.any() or line.mean() > 0.2:
        return None
    streak = interpolation(n, len(lines), block) @ _interpolate_rows(excess.T).T
    streak = np.where(line, np.clip(streak, 0, None), 0.0).astype(np.float32)
    body = plateau.sum(axis=1)
    beyond = np.abs(np.arange(len(lines)) - int(np.argmax(body)))[:, None] > max(4.0, 1.5 * float(body.max()))
    return streak, ndimage.binary_dilation(plateau & line & beyond, iterations=2)


def _interpolate_rows(values: np.ndarray) -> np.ndarray:
    """Return a copy with the NaN of each row interpolated linearly."""
    filled = values.copy()
    place = np.arange(values.shape[1])
    for row in filled:
        bad = ~np.isfinite(row)
        row[bad] = np.interp(place[bad], place[~bad], row[~bad]) if not bad.all() else 0.0
    return filled


def is_saturated(data: np.ndarray, mask: np.ndarray) -> bool:
    """Tell whether more than a few touching pixels share the largest value."""
    good = np.where(mask, -np.inf, data)
    top = good.max()
    if not np.isfinite(top) or top <= np.median(few_pixels(data)):
        return False
    full = good >= top
    if np.count_nonzero(full) < _PLATEAU:
        return False
    labels, _ = ndimage.label(full)
    return bool(np.bincount(labels.ravel())[1:].max() >= _PLATEAU)
