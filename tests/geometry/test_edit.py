"""What the user changes in an analysed pattern, and what follows: the word of the user counts, the rest is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry._finder import SpotsGiven
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.background import prepare_image
from napari_sadp.geometry.edit import Edits, analyse_edited, lattice_from_basis, measure_spots
from napari_sadp.geometry.results import SpotList
from napari_sadp.samples import simulated_sample


@pytest.fixture(scope="module")
def pattern():
    """Aluminium [011]."""
    return simulated_sample("Al", 225, (0, 1, 1), seed=1)


@pytest.fixture(scope="module")
def found(pattern):
    return analyse_pattern(pattern)


def rows(spots: SpotList, keep) -> SpotList:
    return SpotList(spots.rc[keep], spots.intensity[keep], spots.snr[keep], spots.sigma_px)


def with_added(spots: SpotList, rc) -> SpotList:
    rc = np.atleast_2d(rc)
    unknown = np.full(len(rc), np.nan)
    return SpotList(
        np.concatenate([spots.rc, rc]),
        np.append(spots.intensity, unknown),
        np.append(spots.snr, unknown),
        spots.sigma_px,
    )


def without_spot(found, number: int) -> Edits:
    keep = np.arange(len(found.spots)) != number
    return Edits(spots=rows(found.spots, keep), removed_rc=found.spots.rc[[number]])


def farthest(found) -> int:
    distance = np.linalg.norm(found.spots.rc - found.lattice.beam_rc, axis=1)
    return int(np.argmax(distance * found.lattice.indexed))


# ---- without edits, beam, mask -----------------------------------------------------------------------------------


def test_no_edits_are_the_analysis(pattern, found):
    same = analyse_edited(pattern, Edits())
    np.testing.assert_array_equal(same.lattice.g1_px, found.lattice.g1_px)
    np.testing.assert_array_equal(same.beam.rc, found.beam.rc)
    assert same.notes == found.notes
    assert not Edits().any


def test_a_beam_and_a_mask_are_those_of_the_analysis(pattern, found):
    node = found.lattice.node_rc(np.array([[1, 0]]))[0]
    mask = np.zeros(pattern.shape, bool)
    mask[:60] = True
    ours = analyse_edited(pattern, Edits(beam_rc=node, mask=mask))
    core = analyse_pattern(pattern, beam_rc=node, mask=mask)
    np.testing.assert_array_equal(ours.lattice.beam_rc, core.lattice.beam_rc)
    assert ours.lattice.n_spots == core.lattice.n_spots < found.lattice.n_spots
    assert any("direct beam given by the user" in note for note in ours.notes)
    assert "masked by the user: 23.4 % of the frame" in ours.notes


# ---- spots -------------------------------------------------------------------------------------------------------


def test_the_same_spots_give_the_same_lattice(pattern, found):
    ours = analyse_edited(pattern, Edits(spots=found.spots))
    # the profile is learnt from spots at slightly other places: a hundredth of a pixel
    assert ours.lattice.g1_px == pytest.approx(found.lattice.g1_px, abs=0.01)
    assert ours.lattice.beam_rc == pytest.approx(found.lattice.beam_rc, abs=0.01)
    np.testing.assert_array_equal(ours.spots.rc, found.spots.rc)
    assert np.array_equal(ours.nodes.state, found.nodes.state)


def test_a_deleted_spot_is_neither_fitted_nor_measured(pattern, found):
    number = farthest(found)
    node = tuple(found.lattice.indices[number])
    ours = analyse_edited(pattern, without_spot(found, number))
    assert len(ours.spots) == len(found.spots) - 1
    assert ours.lattice.n_spots == found.lattice.n_spots - 1
    assert not np.array_equal(ours.lattice.g1_px, found.lattice.g1_px)
    assert ours.lattice.g1_px == pytest.approx(found.lattice.g1_px, abs=0.3)
    state = {tuple(n): s for n, s in zip(ours.nodes.indices.tolist(), ours.nodes.state, strict=True)}
    before = {tuple(n): s for n, s in zip(found.nodes.indices.tolist(), found.nodes.state, strict=True)}
    assert (before[node], state[node]) == (1, -1)
    assert {n for n in before if before[n] != state[n]} == {node}
    row, col = np.round(found.spots.rc[number]).astype(int)
    assert ours.image[row, col] == 0 < found.image[row, col]
    assert "spots deleted by the user: 1" in ours.notes


def test_a_lattice_that_the_direct_beam_alone_shows_outlives_a_deleted_spot(pattern, found, monkeypatch):
    """The analysis looks for a lattice through the direct beam where the spots alone show none; so must what follows an edit."""
    find, tried = SpotsGiven.find, []

    def through_a_beam_only(self, beam=None):
        tried.append(beam)
        if beam is None:
            raise PatternRefusedError("no lattice", "the spots alone show none", spots=self.spots)
        return find(self, beam)

    monkeypatch.setattr(SpotsGiven, "find", through_a_beam_only)
    ours = analyse_edited(pattern, without_spot(found, farthest(found)))
    assert tried[0] is None
    assert ours.lattice.g1_px == pytest.approx(found.lattice.g1_px, abs=0.3)
    assert ours.beam.rc == pytest.approx(found.beam.rc, abs=0.3)
    # the user's own beam is the only one that is tried
    del tried[:]
    analyse_edited(pattern, replace(without_spot(found, farthest(found)), beam_rc=found.beam.rc))
    assert [beam.method for beam in tried] == ["given"]


def test_a_false_spot_no_longer_pulls_the_lattice(pattern, found):
    # spots halfway along g1 make the lattice twice as fine; deleting them brings it back
    half = np.array([[1, 0], [-1, 0], [1, 2], [-1, 2], [1, -2], [-1, -2], [3, 0], [-3, 0]]) / [2, 1]
    places = found.lattice.node_rc(half)
    image = pattern.data.copy()
    r, c = np.mgrid[: image.shape[0], : image.shape[1]]
    for place in places:
        image += 400 * np.exp(-((r - place[0]) ** 2 + (c - place[1]) ** 2) / (2 * found.spots.sigma_px**2))
    spoilt = replace(pattern, data=image)
    fine = analyse_pattern(spoilt)
    area = abs(np.linalg.det([found.lattice.g1_px, found.lattice.g2_px]))
    assert abs(np.linalg.det([fine.lattice.g1_px, fine.lattice.g2_px])) < 0.6 * area
    distance = np.linalg.norm(fine.spots.rc[:, None] - places, axis=2).min(axis=1)
    false = distance < 2
    edits = Edits(spots=rows(fine.spots, ~false), removed_rc=fine.spots.rc[false])
    ours = analyse_edited(spoilt, edits)
    assert abs(np.linalg.det([ours.lattice.g1_px, ours.lattice.g2_px])) == pytest.approx(area, rel=0.01)


def test_an_added_spot_is_moved_to_its_maximum_and_measured(pattern, found):
    number = farthest(found)
    keep = np.arange(len(found.spots)) != number
    true = found.spots.rc[number]
    edits = Edits(spots=with_added(rows(found.spots, keep), true + np.array([0.8, -0.7])))
    ours = analyse_edited(pattern, edits)
    assert ours.lattice.n_spots == found.lattice.n_spots
    assert np.linalg.norm(ours.spots.rc[-1] - true) < 0.4  # it was placed 1.06 px away
    assert ours.spots.intensity[-1] == pytest.approx(found.spots.intensity[number], rel=0.05)
    assert ours.lattice.g1_px == pytest.approx(found.lattice.g1_px, abs=0.05)
    assert "spots added by the user: 1" in ours.notes


def test_a_spot_put_where_nothing_is_has_the_intensity_of_the_noise(pattern, found):
    prepared = prepare_image(pattern)
    place = found.lattice.node_rc(np.array([[0.5, 0.5]]))
    spots = measure_spots(prepared, with_added(found.spots, place))
    assert spots.snr[-1] < 4
    assert 0 < spots.intensity[-1] < 0.1 * np.median(found.spots.intensity)
    np.testing.assert_array_equal(spots.rc[:-1], found.spots.rc)


def test_a_spot_that_was_moved_a_little_masks_nothing(pattern, found):
    number = farthest(found)
    keep = np.arange(len(found.spots)) != number
    moved = with_added(rows(found.spots, keep), found.spots.rc[number] + 1.0)
    ours = analyse_edited(pattern, Edits(spots=moved, removed_rc=found.spots.rc[[number]]))
    assert np.array_equal(ours.mask, found.mask)


def test_spots_under_the_mask_do_not_count(pattern, found):
    mask = np.zeros(pattern.shape, bool)
    mask[:60] = True
    ours = analyse_edited(pattern, Edits(spots=found.spots, mask=mask))
    assert len(ours.spots) == np.count_nonzero(found.spots.rc[:, 0] >= 59.5)


def test_too_few_spots_are_refused_with_what_is_left(pattern, found):
    keep = np.arange(len(found.spots)) < 4
    with pytest.raises(PatternRefusedError, match="too few spots: 4 spots") as refusal:
        analyse_edited(pattern, Edits(spots=rows(found.spots, keep), removed_rc=found.spots.rc[~keep]))
    assert len(refusal.value.spots) == 4
    assert refusal.value.beam is not None


# ---- lattice -----------------------------------------------------------------------------------------------------


def test_vectors_near_the_lattice_find_it(pattern, found):
    basis = np.stack([found.lattice.g1_px, found.lattice.g2_px]) + np.array([[1.0, -0.8], [-0.9, 1.1]])
    ours = analyse_edited(pattern, Edits(beam_rc=found.beam.rc, spots=found.spots, basis_px=basis))
    assert ours.lattice.g1_px == pytest.approx(found.lattice.g1_px, abs=0.01)
    assert ours.lattice.n_spots == found.lattice.n_spots
    assert "lattice vectors given by the user" in ours.notes


@pytest.mark.parametrize(("steps", "index"), [([[0.5, 0], [0, 1]], 0.5), ([[2, 0], [0, 1]], 2.0)])
def test_a_finer_and_a_coarser_lattice_are_taken_as_given(pattern, found, steps, index):
    old = np.stack([found.lattice.g1_px, found.lattice.g2_px])
    ours = analyse_edited(
        pattern, Edits(beam_rc=found.beam.rc, spots=found.spots, basis_px=np.array(steps) @ old + 0.5)
    )
    basis = np.stack([ours.lattice.g1_px, ours.lattice.g2_px])
    # refined on the spots: the vectors span what was meant
    spanned = np.array(steps) @ old @ np.linalg.inv(basis)
    assert spanned == pytest.approx(np.round(spanned), abs=0.005)
    assert abs(np.linalg.det(basis) / np.linalg.det(old)) == pytest.approx(index, rel=0.005)
    assert ours.lattice.ratio >= 1
    assert np.count_nonzero(ours.nodes.absent) > np.count_nonzero(found.nodes.absent) or index > 1


def test_a_lattice_that_no_spot_supports_stays_as_given(pattern, found):
    basis = (
        0.77 * np.stack([found.lattice.g1_px, found.lattice.g2_px]) @ np.array([[0.9, 0.44], [-0.44, 0.9]])
    )
    ours = lattice_from_basis(found.spots, found.beam.rc, basis)
    steps = basis @ np.linalg.inv(np.stack([ours.g1_px, ours.g2_px]))
    assert steps == pytest.approx(np.round(steps), abs=1e-9)
    np.testing.assert_array_equal(ours.beam_rc, found.beam.rc)
    # a hand is less certain than a fit
    assert np.all(np.diag(ours.covariance) >= found.spots.sigma_px**2)
    empty = rows(found.spots, np.zeros(len(found.spots), bool))
    assert lattice_from_basis(empty, found.beam.rc, basis).n_spots == 0


def test_a_lattice_can_be_given_to_a_pattern_that_was_refused(pattern, found):
    keep = np.argsort(np.linalg.norm(found.spots.rc - found.beam.rc, axis=1))[:4]
    edits = Edits(
        beam_rc=found.beam.rc,
        spots=rows(found.spots, keep),
        basis_px=np.stack([found.lattice.g1_px, found.lattice.g2_px]),
    )
    ours = analyse_edited(pattern, edits)
    assert ours.lattice.ratio == pytest.approx(found.lattice.ratio)
    assert len(ours.nodes) == len(found.nodes)


@pytest.mark.parametrize("basis", [[[20, 0], [40, 0.5]], [[2, 0], [0, 30]], [[0, 0], [0, 0]]])
def test_vectors_that_span_nothing_are_refused(pattern, found, basis):
    edits = Edits(beam_rc=found.beam.rc, spots=found.spots, basis_px=np.array(basis))
    with pytest.raises(PatternRefusedError, match="no lattice: the given vectors") as refusal:
        analyse_edited(pattern, edits)
    assert refusal.value.beam.method == "given"


# ---- wrong arguments ---------------------------------------------------------------------------------------------


def test_wrong_edits_are_named(pattern):
    with pytest.raises(ValueError, match="beam_rc is None"):
        Edits(basis_px=np.eye(2))
    with pytest.raises(ValueError, match=r"beam_rc is \[nan, 1.0\]"):
        Edits(beam_rc=np.array([np.nan, 1.0]))
    with pytest.raises(ValueError, match="removed_rc is"):
        Edits(removed_rc=np.zeros(3))
    with pytest.raises(ValueError, match="mask has shape"):
        analyse_edited(pattern, Edits(mask=np.zeros((3, 3), bool), removed_rc=np.zeros((0, 2))))
