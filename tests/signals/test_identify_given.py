"""What a user knows of each frame reaches `identify` as it reaches the maps; axes that a file calls those of the scan are none."""

from __future__ import annotations

import hyperspy.api as hs
import numpy as np
import pytest

from napari_sadp import analyse_pattern, identify_patterns
from napari_sadp.geometry.conversions import convert_pattern
from napari_sadp.samples import simulated_sample
from napari_sadp.signals.combine import combine_signals
from napari_sadp.signals.sad_pattern2d import SADPattern2D

QUIET = {"show_progressbar": False}
BAR = np.zeros((256, 256), bool)
BAR[100:156] = True


@pytest.fixture(scope="module")
def patterns():
    return [simulated_sample("Al", 225, zone, seed=i) for i, zone in enumerate([(0, 0, 1), (0, 1, 1)])]


@pytest.fixture(scope="module")
def stack(patterns):
    return SADPattern2D(np.stack([p.data for p in patterns]))


def spots_of(found):
    return [result.lattice.n_spots for result in found.patterns]


@pytest.fixture(scope="module")
def plain(stack):
    return spots_of(stack.identify())


@pytest.mark.parametrize("lazy", [False, True])
def test_masks_of_each_frame(stack, plain, lazy):
    masks = hs.signals.Signal2D(np.stack([np.zeros_like(BAR), BAR]))
    found = (stack.as_lazy() if lazy else stack).identify(mask=masks.as_lazy() if lazy else masks)
    first, second = spots_of(found)
    assert first == plain[0]
    assert second == stack.analyse_frame(1, mask=BAR).lattice.n_spots < plain[1]


def test_beams_of_each_frame_as_the_map_gives_them(stack):
    beams = stack.find_direct_beam(**QUIET)
    found = stack.identify(beam_rc=beams)
    assert [result.beam.rc for result in found.patterns] == [pytest.approx(rc, abs=0.2) for rc in beams.data]
    node = stack.analyse_frame(1).lattice.node_rc(np.array([[1, 0]]))[0]
    holes = hs.signals.Signal1D(np.stack([np.full(2, np.nan), node]))
    first, second = (result.beam.rc for result in stack.identify(beam_rc=holes).patterns)
    assert first == pytest.approx(beams.data[0], abs=1e-9)
    assert second == pytest.approx(node, abs=0.3)
    both = stack.identify(beam_rc=beams.data[0]).patterns
    assert both[0].beam.rc == pytest.approx(beams.data[0], abs=0.2)


def test_beams_of_the_core_are_one_or_one_each(patterns):
    node = analyse_pattern(patterns[1]).lattice.node_rc(np.array([[1, 0]]))[0]
    found = identify_patterns(patterns, beam_rc=[[np.nan, np.nan], node])
    assert found.patterns[1].beam.rc == pytest.approx(node, abs=0.3)
    with pytest.raises(ValueError, match=r"beam_rc is given for 1 pattern\(s\), expected one for each"):
        identify_patterns(patterns, beam_rc=[node])


def test_a_mask_leaves_dead_pixels_masked(patterns):
    data = patterns[1].data.astype(float)
    data[:, 200:204] = np.nan
    s = SADPattern2D(data)
    mask = np.zeros_like(BAR)
    mask[:20, :20] = True
    [result] = s.identify(mask=mask).patterns
    assert result.pattern.mask[:, 200:204].all()
    assert result.pattern.mask[:20, :20].all()
    row = s.property_maps(mask=mask, **QUIET)
    assert result.lattice.n_spots == int(row.data[row.columns.index("n_spots")])


@pytest.mark.filterwarnings("ignore::hyperspy.exceptions.VisibleDeprecationWarning")
def test_the_mask_of_oblong_pixels_is_that_of_the_stored_frame(patterns):
    oblong = SADPattern2D(patterns[0].data[:, ::2].copy())
    for axis, scale in zip(oblong.axes_manager.signal_axes, (0.25, 0.125), strict=True):
        axis.units, axis.scale = "1/nm", scale
    mask = np.zeros((256, 128), bool)
    mask[:, 70:] = True
    expected = int(oblong.fit_lattice(mask=mask, **QUIET).data[-1])
    assert spots_of(oblong.identify(mask=mask)) == [expected]
    assert oblong.analyse_frame(mask=mask).lattice.n_spots == expected
    with pytest.raises(ValueError, match="mask has navigation shape"):
        oblong.identify(mask=np.zeros((256, 256), bool))


def test_signals_that_are_combined_take_what_identify_takes(stack, plain):
    found = combine_signals(stack.inav[0], stack.inav[1], mask=BAR)
    assert all(masked < whole for masked, whole in zip(spots_of(found), plain, strict=True))
    results = stack.identify()
    with pytest.raises(ValueError, match="min_snr given, expected none: results are combined as they are"):
        combine_signals(results, min_snr=8.0)


def test_maps_and_classes_leave_out_the_same_faint_spots(stack):
    options = {"faintest": 0.05, **QUIET}
    maps = stack.property_maps(classify=True, **options)
    best = stack.classify(**options).data.argmax(axis=-1)
    assert maps.image("class").data.tolist() == best.tolist()
    nodes = maps.columns.index("nodes_present")
    assert (maps.data[:, nodes] < stack.property_maps(**QUIET).data[:, nodes]).all()
    assert (stack.property_maps(**options).data[:, nodes] == maps.data[:, nodes]).all()
    with pytest.raises(ValueError, match=r"faintest is 0\.9"):
        stack.property_maps(faintest=0.9, **QUIET)


# ---- axes that the file calls those of the scan --------------------------------------------------------------------


def calibrated(s, frame, scan):
    for axes, unit, scale in ((frame, "1/nm", 0.125), (scan, "nm", 3.0)):
        for axis in axes:
            axis.units, axis.scale = unit, scale
    return s


@pytest.fixture(scope="module")
def straight(patterns):
    s = SADPattern2D(np.stack([p.data for p in patterns]).reshape(2, 1, 256, 256))
    return calibrated(s, s.axes_manager.signal_axes, s.axes_manager.navigation_axes)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_scan_in_the_fastest_axes_gives_the_same_maps(straight, lazy):
    """As Gatan writes some 4-D STEM sets: the signal axes of the file are those of the scan."""
    swapped = SADPattern2D(np.ascontiguousarray(straight.data.transpose(2, 3, 0, 1)))
    axes = swapped.axes_manager
    calibrated(swapped, axes.navigation_axes, axes.signal_axes)
    swapped = swapped.as_lazy() if lazy else swapped
    found, expected = swapped.property_maps(**QUIET), straight.property_maps(**QUIET)
    found.compute(**QUIET) if lazy else None
    assert found.axes_manager.navigation_shape == (1, 2)
    np.testing.assert_allclose(found.data, expected.data)
    assert [axis.units for axis in found.axes_manager.navigation_axes] == ["nm", "nm"]
    assert any("calls them the scan" in note for note in found.metadata.Sadp.notes)
    assert (
        spots_of(swapped.identify()) == expected.data[..., expected.columns.index("n_spots")].ravel().tolist()
    )
    images = swapped.to_training_images(size=64, **QUIET)
    images.compute(**QUIET) if lazy else None
    np.testing.assert_array_equal(images.data, straight.to_training_images(size=64, **QUIET).data)
    masks = hs.signals.Signal2D(np.zeros(straight.data.shape, bool))
    masks.data[1, 0] = BAR
    lattices = swapped.fit_lattice(mask=masks, **QUIET)
    lattices.compute(**QUIET) if lazy else None
    np.testing.assert_allclose(lattices.data, straight.fit_lattice(mask=masks, **QUIET).data)


def test_nothing_is_masked_but_what_is_given(stack, patterns):
    data = np.stack([pattern.data for pattern in patterns])
    data[:, :14] = data.max()
    covered = SADPattern2D(data)
    before = covered.to_training_images(conversion="article", size=96, **QUIET).data
    covered.metadata.set_item("Sadp.find_covers", False)
    assert not covered.to_stack()[0].find_covers
    geometry = covered.analyse_frame(1)
    assert not geometry.mask.any()
    images = covered.to_training_images(conversion="article", size=96, **QUIET).data
    # maps and single frames are of one mind
    assert np.array_equal(images[1], convert_pattern(geometry, "article", size=96).data)
    assert not np.array_equal(images, before)
    found = covered.inav[1:].identify()
    assert "beam stops, margins and bars are not looked for" in found.patterns[0].notes
