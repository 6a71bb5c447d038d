from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from napari_sadp.dataset.conversion_stream import conversion_stream
from napari_sadp.dataset.library import build_library
from napari_sadp.dataset.stream import AlignedImperfections, PatternStream
from napari_sadp.geometry.convention import beam_position, g1_length, normalise_image
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.render import render_gaussians

PERFECT = AlignedImperfections(
    sigma_g1=(0.12, 0.12), gamma=(0.35, 0.35), b_iso=(0.0, 0.0), excitation=(1e3, 1e3), tilt_mrad=0.0,
    compression=(1.0, 1.0), scatter=0.0, asymmetry=0.0, faintest=1e-9, angle_deg=0.0, scale=0.0, shift_g1=0.0,
    discs=0.0, snr=(1e9, 1e9), background=0.0, halo=0.0, rings=0.0, saturated=0.0, beam_stop=0.0, field=0.0, steps=0.0,
    grain=0.0, lines=0.0, coarse_snr=(1e9, 1e9),
)  # fmt: skip


PERFECT_ALIGNED = replace(PERFECT, coarse=0.0)


@pytest.fixture(scope="module")
def coarse_library():
    # Fe and Ti scatter nearly alike
    return build_library([("221", find_structure("FeTi", 221).crystal())], build_scheme())


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
    noisy = make(library, imperfections=replace(PERFECT, snr=(80.0, 80.0)))
    width = torch.full((len(rows),), 1.5)
    rest = noisy._expose(torch.zeros(len(rows), 96, 96), level, width, rows < 0)
    # an ideal filter for a Gaussian of standard deviation 1.5 px sees root pi times 1.5 as much as a pixel does; correlated noise
    # has that much less in a pixel as the filter sees more of it
    white = level * np.sqrt(np.pi) * 1.5 / 80
    ratio = (rest.std(dim=(1, 2)) / white).numpy()
    like_white = np.abs(ratio - 1) < 0.1
    assert (like_white | (np.abs(ratio - 1 / 3) < 0.05)).all()
    assert 0.2 < like_white.mean() < 0.9


def test_spots_too_faint_for_any_image_are_lifted(library):
    faint = replace(
        library, intensity=np.where(library.intensity > 0.5, 1.0, library.intensity * 1e-7).astype(np.float32)
    )
    rows = torch.arange(len(library))
    seen = []
    stream = make(faint, imperfections=replace(PERFECT, faintest=1e-3))
    draw = stream._draw_spots
    stream._draw_spots = lambda position, height: seen.append(height) or draw(position, height)
    stream.render(rows)
    assert float(stream._deciding(rows, stream.intensity).min()) < 1e-5
    assert float(stream._deciding(rows, seen[0]).min()) == pytest.approx(1e-3, rel=0.02)


def test_a_coarser_alignment_has_the_noise_that_hides_spots(library):
    rows = torch.arange(len(library))
    stream = make(library, imperfections=replace(PERFECT, snr=(1e9, 1e9), coarse_snr=(4.0, 4.0)))
    level, width = torch.full((len(rows),), 0.01), torch.full((len(rows),), 1.5)
    rest = stream._expose(torch.zeros(len(rows), 96, 96), level, width, rows % 2 == 0)
    noise = rest.std(dim=(1, 2)).numpy()
    assert noise[1::2].max() < 1e-8
    white = 0.01 * np.sqrt(np.pi) * 1.5 / 4
    assert noise[::2] == pytest.approx(white, rel=0.7)


def test_a_second_grain_shows_every_spot_once_more_in_some_images(library):
    weight = replace(PERFECT, grain=0.25, grain_weight=(0.1, 0.1))
    position = torch.tensor([[[48.0, 68.0], [20.0, 47.5]]]).expand(100, -1, -1)
    height = torch.tensor([[1.0, 0.5]]).expand(100, -1)
    with_grain, without = (
        make(library, imperfections=item)._draw_spots(position, height)[0] for item in (weight, PERFECT)
    )
    second = with_grain - without
    strongest = second.amax(dim=(1, 2))
    shown = strongest > 0.01
    assert 15 <= int(shown.sum()) <= 36  # 99 % of all seeds
    # a narrow spot between the pixels is up to a quarter lower
    assert ((strongest[shown] > 0.074) & (strongest[shown] < 0.101)).all()
    # turned about the direct beam: as far from it as the first
    axis = torch.arange(96) - beam_position(96)
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    far = (radius - 20.5).abs() > 4
    assert float((second[shown] * (far & ((radius - 27.5).abs() > 4))).abs().max()) < 1e-3
    assert float(second[~shown].abs().max()) < 1e-6


class _Calls(TorchDispatchMode):
    """Notes what the host tells the device to do."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name())
        if function.name().startswith("aten::index"):  # by a mask, whose length the device alone knows
            indices = args[1] if isinstance(args[1], (list, tuple)) else []
            masks = [item for item in indices if item is not None and item.dtype == torch.bool]
            self.names |= {"aten::nonzero"} if masks else set()
        return function(*args, **(kwargs or {}))


#: Each of them makes the host wait for a GPU: numbers brought there, and asked for.
WAITING = {"aten::lift_fresh", "aten::scalar_tensor", "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}  # fmt: skip


@pytest.mark.parametrize("conversion", ["aligned", "article", "rendered"])
def test_nothing_makes_the_host_wait_for_the_device(library, conversion):
    stream = conversion_stream(conversion, library, size=64, n_classes=60, device="cpu", seed=3)
    with _Calls() as calls:
        stream.draw(32)
    assert "aten::bmm" in calls.names
    assert not calls.names & WAITING


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.new_tensor(np.ones(2)),
        lambda x: torch.where(x > 0, x, 0.0),
        lambda x: x[x > 0],
        lambda x: bool((x > 0).any()),
    ],
)
def test_what_makes_the_host_wait_is_noticed(wait):
    with _Calls() as calls:
        wait(torch.ones(3))
    assert calls.names & WAITING


def test_lines_are_straight_and_no_stronger_than_they_may(library):
    stream = make(library, imperfections=replace(PERFECT, lines=1.0))
    level, width = torch.full((16,), 0.02), torch.ones(16)
    image = stream._expose(torch.zeros(16, 96, 96), level, width, torch.zeros(16, dtype=torch.bool))
    assert 0.005 < float(image.abs().amax()) < 3.1 * 1.5 * 0.02
    # of parallel lines the gradient has one direction everywhere
    for item in image:
        d_row, d_col = (grad.flatten() for grad in torch.gradient(item))
        along, across = torch.linalg.eigvalsh(torch.cov(torch.stack([d_row, d_col])))
        assert float(along) < 0.1 * float(across)


def test_classes_have_their_share_of_coarser_alignments(coarse_library):
    stream = make(coarse_library, size=16, imperfections=replace(PERFECT, coarse=0.5))
    drawn = coarse_library.coarse[stream.draw(3000)[2].numpy()]
    per_class = {
        label: coarse_library.coarse[coarse_library.label == label].any()
        for label in set(coarse_library.label)
    }
    share = 0.5 * sum(per_class.values())
    assert drawn.mean() == pytest.approx(share / (len(per_class) + share), rel=0.15)
    assert not coarse_library.coarse[
        make(coarse_library, size=16, imperfections=PERFECT_ALIGNED).draw(300)[2].numpy()
    ].any()


def test_discs_are_flat_as_high_as_spots_and_as_wide_as_they_say(library):
    rows = torch.arange(len(library))
    stream = make(library, imperfections=replace(PERFECT, discs=1.0, radius_g1=(0.5, 0.5)))
    centre = beam_position(96)
    position = torch.tensor([[[centre, centre], [2.0, centre]]]).expand(len(rows), -1, -1)
    height = torch.tensor([[1.0, 0.5]]).expand(len(rows), -1)
    image, width = stream._draw_spots(position, height)
    radius = 0.5 * g1_length(96)
    assert width.tolist() == pytest.approx([radius] * len(rows))
    axis = torch.arange(96) - centre
    distance = (axis[:, None] ** 2 + axis**2).sqrt()
    assert image[0][distance < radius - 1.6].numpy() == pytest.approx(1.0, abs=0.03)
    assert float(image[0][(distance > radius + 1.5) & (distance < 15)].max()) < 0.02
    # a disc at the upper border does not come back at the lower one
    assert float(image[0][80:].max()) < 1e-4
    assert float(image[0][2, 47]) == pytest.approx(0.5, abs=0.02)


def test_steps_keep_the_spots_that_decide(library):
    rows = torch.arange(len(library))
    stream = make(library, imperfections=replace(PERFECT, steps=1.0))
    level = stream._deciding(rows, stream.intensity)
    image = stream._expose(
        level[:, None, None].expand(-1, 96, 96).clone(), level, torch.ones(len(rows)), rows < 0
    )
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
    stream = make(library, imperfections=AlignedImperfections(scatter=0.0, asymmetry=0.0))
    height = stream._intensities(torch.arange(len(library))).numpy()
    waves = library.thickness_nm > 0
    assert np.allclose(height[waves], library.intensity[waves], atol=1e-6)
    assert not np.allclose(height[~waves], library.intensity[~waves], atol=1e-2)
