"""One pattern through the chain with what the user gave."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.edit import Edits
from napari_sadp.identify import identify_pattern
from napari_sadp.models.predict import load_classifier
from napari_sadp.samples import simulated_sample


@pytest.fixture(scope="module")
def pattern():
    return simulated_sample("Al", 225, (0, 1, 1), seed=1)


def test_edits_reach_lattice_nodes_and_class(pattern, weights_file):
    classifier = load_classifier(weights_file, "cpu")
    plain = identify_pattern(pattern, classifier)
    basis = np.stack([0.5 * plain.lattice.g1_px, plain.lattice.g2_px])
    found = identify_pattern(
        pattern, classifier, edits=Edits(beam_rc=plain.beam.rc, spots=plain.spots, basis_px=basis)
    )
    assert np.linalg.norm(found.lattice.g1_px) == pytest.approx(
        np.linalg.norm(plain.lattice.g1_px) / 2, rel=0.01
    )
    assert len(found.nodes) > 1.8 * len(plain.nodes)
    assert not np.allclose(found.lattice_classes.probabilities, plain.lattice_classes.probabilities)
    assert not np.array_equal(found.training_image, plain.training_image)
    refused = identify_pattern(
        pattern, classifier, edits=Edits(beam_rc=plain.beam.rc, basis_px=np.array([[1.0, 0.0], [0.0, 30.0]]))
    )
    assert not refused.used
    assert refused.reason == "no lattice"
    assert refused.beam.rc == pytest.approx(plain.beam.rc)


def test_a_mask_and_a_beam_are_edits(pattern, weights_file):
    classifier = load_classifier(weights_file, "cpu")
    mask = np.zeros(pattern.shape, bool)
    mask[:60] = True
    node = analyse_pattern(pattern).lattice.node_rc(np.array([[1, 0]]))[0]
    one = identify_pattern(pattern, classifier, beam_rc=node, mask=mask)
    other = identify_pattern(pattern, classifier, edits=Edits(beam_rc=node, mask=mask))
    assert one.lattice.n_spots == other.lattice.n_spots
    assert one.beam.rc == pytest.approx(node)
    assert one.notes == other.notes
    with pytest.raises(ValueError, match="edits are given with beam_rc or mask"):
        identify_pattern(pattern, classifier, beam_rc=node, edits=Edits(mask=mask))
