from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_sadp.dataset.library import build_library
from napari_sadp.dataset.stream import AlignedImperfections, PatternStream
from napari_sadp.geometry.convention import beam_position, g1_length, normalise_image
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.render import render_gaussians

PERFECT = AlignedImperfections(
    sigma_g1=(0.12, 0.12), gamma=(0.35, 0.35), b_iso=(0.0, 0.0), excitation=(1e3, 1e3), tilt_mrad=0.0,
    compression=(1.0, 1.0), scatter=0.0, angle_deg=0.0, scale=0.0, shift_g1=0.0, noise=(1e-9, 1e-9),
    background=0.0, beam_stop=0.0, field=0.0, steps=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def library():
    crystals = [("225", find_structure("Al", 225).crystal()), ("227a", find_structure("Si", 227).crystal())]
    return build_library(crystals, build_scheme())


def make(library, **options):
    return PatternStream(library, **({"size": 96, "n_classes": 60, "seed": 5} | options))


def test_images_are_in_the_convention(library):
    images, labels, rows = make(library).draw(16)
    assert images.shape == (16, 1, 96, 96)
    assert images.dtype == torch.float32
    assert float(images.min()) >= 0
    assert images.amax(dim=(1, 2, 3)).tolist() == pytest.approx([1.0] * 16)
    assert not images[:, 0, 46:50, 46:50].any()  # the direct beam is blank
    assert labels.tolist() == library.label[rows.numpy()].tolist()


def test_same_seed_same_images(library):
    first, second = (make(library).draw(8)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, make(library, seed=6).draw(8)[0])


def test_without_imperfections_it_is_the_renderer(library):
    stream = make(library, imperfections=PERFECT)
    stream.turns = torch.zeros_like(stream.turns)  # no choice among equal shortest vectors
    images = stream.render(torch.arange(len(library)))[:, 0].numpy()
    for row in range(0, len(library), 7):
        rc = library.position[row] * g1_length(96) + beam_position(96)
        mirrored = rc * [1, -1] + [0, 95]
        expected = [
            normalise_image(
                render_gaussians(p.astype(np.float32), library.intensity[row], 0.12 * g1_length(96), (96, 96))
            )
            for p in (rc, mirrored)
        ]
        # the power of 0.35 magnifies rounding where nothing is, so compare before it
        error = [np.abs(images[row] ** (1 / 0.35) - e ** (1 / 0.35)).max() for e in expected]
        assert min(error) < 1e-4


def test_classes_are_drawn_alike(library):
    labels = make(library, size=16).draw(3000)[1].numpy()
    counts = np.bincount(labels, minlength=60)
    present = np.unique(library.label)
    assert counts[present] == pytest.approx(3000 / len(present), rel=0.4)


def test_noise_stays_below_the_spots_that_decide(library):
    rows = torch.arange(len(library))
    stream = make(library, imperfections=PERFECT)
    level = stream._deciding(rows, stream.intensity)
    for row in range(0, len(library), 5):
        bits, height = library.evidence[row], library.intensity[row]
        expected = min(height[(bits >> c) & 1 == 1].max() for c in range(library.n_deciding[row]))
        assert float(level[row]) == pytest.approx(float(expected), rel=1e-6)
    assert float(level.min()) > 1e-4
    # an image of nothing: what comes back is the noise
    noisy = make(library, imperfections=replace(PERFECT, noise=(0.2, 0.2)))
    rest = noisy._expose(torch.zeros(len(rows), 96, 96), level)
    ratio = rest.std(dim=(1, 2)) / (0.2 * level).clip(max=0.1)
    assert ratio.numpy() == pytest.approx(np.ones(len(rows)), rel=0.1)


def test_steps_keep_the_spots_that_decide(library):
    rows = torch.arange(len(library))
    stream = make(library, imperfections=replace(PERFECT, steps=1.0))
    level = stream._deciding(rows, stream.intensity)
    image = stream._expose(level[:, None, None].expand(-1, 96, 96).clone(), level)
    assert (image > 0.5 * level[:, None, None]).all()


def test_covers_leave_something_that_decides(library):
    hidden = make(library, imperfections=replace(PERFECT, beam_stop=1.0, field=1.0), seed=1)
    rows = torch.arange(len(library)).repeat(4)
    images = hidden.render(rows)[:, 0]
    clean = make(library, imperfections=PERFECT, seed=1).render(rows)[:, 0]
    covered = ((images == 0) & (clean > 0.05)).flatten(1).any(1)
    assert 0.5 < float(covered.float().mean()) < 1.0
    # something of the pattern is always left, on more than one line
    assert float(images.flatten(1).gt(0.2).sum(1).min()) > 20


def test_dynamical_rows_are_left_as_they_are():
    silicon = [("227a", find_structure("Si", 227).crystal())]
    library = build_library(silicon, build_scheme(), dynamical_nm=(20.0, 40.0))
    stream = make(library, imperfections=AlignedImperfections(scatter=0.0))
    height = stream._intensities(torch.arange(len(library))).numpy()
    waves = library.thickness_nm > 0
    assert np.allclose(height[waves], library.intensity[waves], atol=1e-6)
    assert not np.allclose(height[~waves], library.intensity[~waves], atol=1e-2)
