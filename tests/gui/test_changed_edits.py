"""What a change of the results means, worked out without a window."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels, Points

from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.edit import Edits
from napari_sadp.geometry.results import DirectBeam
from napari_sadp.identify import PatternResult
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.widgets._edit import changed_edits
from napari_sadp.widgets._given import beam_of_frame, mask_of_frame
from napari_sadp.widgets._sources import source_from_layer
from napari_sadp.widgets._work import FrameResult


@pytest.fixture(scope="module")
def item(patterns):
    geometry = analyse_pattern(patterns[0])
    result = PatternResult(
        geometry.pattern,
        build_scheme((225,)),
        beam=geometry.beam,
        spots=geometry.spots,
        lattice=geometry.lattice,
    )
    return FrameResult(source_from_layer(Image(patterns[0].data)), 0, result)


def held(item) -> dict[str, np.ndarray]:
    result = item.result
    return {
        "beam": result.beam.rc[None],
        "spots": result.spots.rc,
        "vectors": result.lattice.node_rc(np.array([[1, 0], [0, 1]])),
    }


def test_nothing_changed_is_the_same_object(item):
    edits, seen = Edits(), held(item)
    assert changed_edits(edits, item, seen, {role: rows + 1e-6 for role, rows in seen.items()}) is edits
    assert changed_edits(edits, item, seen, {}) is edits  # layers that are gone say nothing


def test_a_moved_spot_is_one_deleted_and_one_added(item):
    seen = held(item)
    now = seen | {"spots": seen["spots"] + np.array([[3.0, 0]] + [[0, 0]] * (len(seen["spots"]) - 1))}
    edits = changed_edits(Edits(), item, seen, now)
    assert edits.removed_rc == pytest.approx(seen["spots"][:1])
    assert np.isnan(edits.spots.intensity[0])
    assert edits.spots.intensity[1:] == pytest.approx(item.result.spots.intensity[1:])
    assert edits.beam_rc is None


def test_vectors_start_from_the_beam_that_was_dragged_with_them(item):
    seen = held(item)
    now = seen | {"beam": seen["beam"] + 2, "vectors": seen["vectors"] + 2}
    edits = changed_edits(Edits(), item, seen, now)
    assert edits.beam_rc == pytest.approx(seen["beam"][0] + 2)
    assert edits.basis_px == pytest.approx(seen["vectors"] - seen["beam"])
    # without a beam there is nothing to start from
    edits = changed_edits(edits, item, now, now | {"beam": np.zeros((0, 2))})
    assert edits.beam_rc is None
    assert edits.basis_px is None


def test_one_tip_alone_says_nothing_and_three_are_shown_as_two(item):
    none = held(item) | {"vectors": np.zeros((0, 2))}
    edits = Edits()
    assert changed_edits(edits, item, none, none | {"vectors": np.ones((1, 2))}).basis_px is None
    seen = held(item)
    three = changed_edits(edits, item, seen, seen | {"vectors": np.ones((3, 2))})
    assert three is not edits
    assert three.basis_px is None


def test_tips_that_were_put_before_the_beam_count_once_it_is_there(item):
    bare = FrameResult(
        item.source, 0, PatternResult(item.result.pattern, item.result.scheme, reason="no lattice")
    )
    nothing = {"beam": np.zeros((0, 2)), "vectors": np.zeros((0, 2))}
    tips, beam = np.array([[50.0, 90.0], [90.0, 50.0]]), np.array([[50.0, 50.0]])
    edits = changed_edits(Edits(), bare, nothing, nothing | {"vectors": tips})
    assert not edits.any
    edits = changed_edits(edits, bare, nothing | {"vectors": tips}, {"vectors": tips, "beam": beam})
    assert edits.beam_rc == pytest.approx(beam[0])
    assert edits.basis_px == pytest.approx(tips - beam[0])
    # one tip waits on, and those of a lattice that was found follow from it
    one = nothing | {"vectors": tips[:1]}
    assert changed_edits(Edits(), bare, one, one | {"beam": beam}).basis_px is None
    seen = held(item)
    assert changed_edits(Edits(), item, seen, seen | {"beam": seen["beam"] + 2}).basis_px is None


def test_spots_can_be_added_where_none_were_found(item):
    bare = FrameResult(
        item.source,
        0,
        PatternResult(
            item.result.pattern, item.result.scheme, reason="empty", beam=DirectBeam(np.ones(2), 1, "x")
        ),
    )
    edits = changed_edits(Edits(), bare, {"spots": np.zeros((0, 2))}, {"spots": np.ones((2, 2))})
    assert len(edits.spots) == 2
    assert np.isnan(edits.spots.intensity).all()
    assert not len(edits.removed_rc)


def test_masks_by_frame_for_all_frames_and_of_oblong_pixels():
    image = Image(np.ones((2, 3, 32, 40)))
    source = source_from_layer(image)
    each = np.zeros((2, 3, 32, 40), np.uint8)
    each[1, 2, 4, 5] = 7
    labels = Labels(each)
    assert mask_of_frame(labels, source, 0) is None
    assert np.argwhere(mask_of_frame(labels, source, 5)).tolist() == [[4, 5]]
    for shape in ((32, 40), (1, 1, 32, 40)):
        plane = Labels(each[1, 2].reshape(shape))
        assert all(mask_of_frame(plane, source, frame)[4, 5] for frame in range(6))
    with pytest.raises(ValueError, match=r"has shape \(3, 32, 40\), expected \(32, 40\) or \(2, 3, 32, 40\)"):
        mask_of_frame(Labels(each[0]), source, 0)
    oblong = source_from_layer(Image(np.ones((32, 40)), scale=(1, 2), units=("1/nm", "1/nm")))
    mask = mask_of_frame(Labels(each[1, 2]), oblong, 0)
    assert mask.shape == oblong.load(0).shape == (32, 80)
    assert mask[4, 10:12].all()
    place = np.array([[3.0, 11.0]])
    assert oblong.from_layer(oblong.to_layer(place)) == pytest.approx(place)


def test_beams_are_compared_where_the_viewer_shows_them():
    image = Image(np.ones((3, 32, 40)), scale=(1, 0.5, 0.5), translate=(0, -4, -5))
    source = source_from_layer(image)
    world = np.array([2.0, -4 + 0.5 * 7, -5 + 0.5 * 9])  # frame 2, row 7, column 9
    points = Points([world, [0, 1, 1], world + np.array([0, 0.5, 0])])
    assert beam_of_frame(points, image, source, 2) == pytest.approx([8, 9])  # the last counts
    assert beam_of_frame(points, image, source, 1) is None
    plane = Points(world[None, 1:])
    assert [beam_of_frame(plane, image, source, k).tolist() for k in range(3)] == [[7, 9]] * 3
