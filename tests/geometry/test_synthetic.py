"""Closed-form patterns: known basis in, the same basis out; transformed pattern in, transformed basis out."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.center import find_direct_beam
from napari_sadp.geometry.lattice import fit_lattice, move_origin, reduce_basis
from napari_sadp.geometry.results import DirectBeam, SpotList
from napari_sadp.geometry.spots import find_spots
from napari_sadp.pattern import DiffractionPattern

# (ratio, angle in degrees) of nets of cubic zone axes
NETS = {
    "001": (1.0, 90.0),
    "011 P": (2**0.5, 90.0),
    "011 I and F": (2 / 3**0.5, 54.7356 + 0.0),
    "111": (1.0, 60.0),
    "112 F": ((8 / 3) ** 0.5, 90.0),
    "013 P": (10**0.5, 90.0),
    "123 P": ((5 / 3) ** 0.5, 75.0368),
    "014 P": (17**0.5, 90.0),
}


def net(ratio: float, angle_deg: float, length: float = 22.0, turn_deg: float = 17.0) -> np.ndarray:
    angle, turn = np.radians([angle_deg, turn_deg])
    c, s = np.cos(turn), np.sin(turn)
    flat = length * np.array([[1, 0], [ratio * np.cos(angle), ratio * np.sin(angle)]])
    return flat @ np.array([[c, s], [-s, c]])


def draw(
    basis,
    *,
    beam=(127.5, 127.5),
    shape=(256, 256),
    sigma=1.8,
    seed=0,
    peak=600.0,
    direct=2500.0,
    heights=None,
    absent=None,
) -> np.ndarray:
    """Gaussian spots with equal Friedel mates, a flat background of 10 counts and Poisson noise."""
    rng = np.random.default_rng(seed)
    reach = int(2 * max(shape) / np.linalg.norm(basis, axis=1).min())
    m, n = (axis.ravel() for axis in np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1)))
    row, col = np.mgrid[: shape[0], : shape[1]]
    image = np.full(shape, 10.0)
    for i, j in zip(m, n, strict=True):
        g = np.array([i, j]) @ basis
        key = (i, j) if (i, j) > (0, 0) else (-i, -j)
        mate_rng = np.random.default_rng([seed, key[0] + 1000, key[1] + 1000])
        height = peak * np.exp(-0.5 * (g @ g) / (0.35 * min(shape)) ** 2) * mate_rng.uniform(0.25, 1)
        height = direct if (i, j) == (0, 0) else height
        height = (heights or {}).get((i, j), height)
        if absent is not None and absent(i, j):
            continue
        r, c = np.asarray(beam) + g
        if -4 * sigma < r < shape[0] + 4 * sigma and -4 * sigma < c < shape[1] + 4 * sigma and height > 0.1:
            image += height * np.exp(-((row - r) ** 2 + (col - c) ** 2) / (2 * sigma**2))
    return rng.poisson(image).astype(np.float32)


def basis_of(lattice) -> np.ndarray:
    return np.stack([lattice.g1_px, lattice.g2_px])


def assert_same_lattice(found, true, rel=0.003):
    change = found @ np.linalg.inv(true)
    whole = np.round(change)
    assert abs(round(np.linalg.det(whole))) == 1, f"another lattice: {change}"
    assert np.abs(change - whole).max() < rel


@pytest.mark.parametrize("name", NETS)
def test_basis_of_zone_axes(name):
    ratio, angle = NETS[name]
    basis = net(ratio, angle, length=16.0 if ratio > 3 else 22.0)
    result = analyse_pattern(DiffractionPattern(draw(basis)))
    assert_same_lattice(basis_of(result.lattice), basis)
    np.testing.assert_allclose(result.beam.rc, [127.5, 127.5], atol=0.15)
    assert result.lattice.rms_px < 0.3
    np.testing.assert_allclose(
        basis_of(result.lattice), reduce_basis(basis_of(result.lattice)), rtol=0.02, atol=0.3
    )


@pytest.mark.parametrize(
    ("sigma", "length", "size"), [(1.0, 8.0, 128), (1.5, 12.0, 128), (2.5, 30.0, 256), (4.0, 60.0, 512)]
)
def test_spot_sizes(sigma, length, size):
    basis = net(1.0, 60.0, length=length)
    beam = (size / 2 + 3.2, size / 2 - 4.7)
    data = draw(basis, beam=beam, shape=(size, size), sigma=sigma)
    result = analyse_pattern(DiffractionPattern(data))
    assert_same_lattice(basis_of(result.lattice), basis)
    np.testing.assert_allclose(result.beam.rc, beam, atol=0.3)
    assert 0.6 * sigma < result.spots.sigma_px < 1.6 * sigma


@pytest.mark.parametrize("change", ["rot90", "flipud", "fliplr", "transpose"])
def test_metamorphic_laws(change):
    basis, beam = net((5 / 3) ** 0.5, 75.04), (120.0, 133.0)
    data = draw(basis, beam=beam)
    base = analyse_pattern(DiffractionPattern(data))
    array = getattr(np, change)(data).copy()
    turned = analyse_pattern(DiffractionPattern(array))
    linear = {
        "rot90": np.array([[0, -1], [1, 0]]),
        "flipud": np.diag([-1, 1]),
        "fliplr": np.diag([1, -1]),
        "transpose": np.array([[0, 1], [1, 0]]),
    }[change]
    expected = basis_of(base.lattice) @ linear.T
    assert_same_lattice(basis_of(turned.lattice), expected, rel=0.002)
    centre = 127.5 + linear @ (base.beam.rc - 127.5)
    np.testing.assert_allclose(turned.beam.rc, centre, atol=0.05)
    assert turned.lattice.ratio == pytest.approx(base.lattice.ratio, rel=0.002)
    assert turned.lattice.angle_deg == pytest.approx(base.lattice.angle_deg, abs=0.1)


def test_saturated_direct_beam():
    basis = net(1.0, 90.0)
    data = np.minimum(draw(basis, direct=30000.0), 700.0)
    result = analyse_pattern(DiffractionPattern(data))
    assert_same_lattice(basis_of(result.lattice), basis)
    np.testing.assert_allclose(result.beam.rc, [127.5, 127.5], atol=0.3)


def test_beam_stop_over_the_centre():
    basis = net(1.0, 60.0)
    data = draw(basis) + 200.0 * np.exp(-((np.mgrid[:256, :256] - 127.5) ** 2).sum(0) / 2 / 60**2).astype(
        np.float32
    )
    data[:140, 120:136] = 0
    result = analyse_pattern(DiffractionPattern(data))
    assert_same_lattice(basis_of(result.lattice), basis)
    np.testing.assert_allclose(result.beam.rc, [127.5, 127.5], atol=0.3)
    assert result.mask[60, 128]
    assert not result.mask[60, 60]


def test_stronger_diffracted_beam():
    basis = net(2**0.5, 90.0)
    data = draw(basis, heights={(1, 0): 4000.0, (-1, 0): 3000.0})
    result = analyse_pattern(DiffractionPattern(data))
    np.testing.assert_allclose(result.beam.rc, [127.5, 127.5], atol=0.2)


def test_systematic_absences_keep_the_lattice():
    # glide rows: odd orders absent along both axes through the origin, all others present
    basis = net(1.3, 90.0)
    data = draw(basis, absent=lambda m, n: (m == 0 and n % 2) or (n == 0 and m % 2))
    assert_same_lattice(basis_of(analyse_pattern(DiffractionPattern(data)).lattice), basis)


def test_centred_net_is_not_halved():
    # h + k odd absent everywhere: the primitive net of what is present is the answer
    basis = net(1.0, 90.0, length=14.0)
    data = draw(basis, absent=lambda m, n: (m + n) % 2 == 1)
    found = basis_of(analyse_pattern(DiffractionPattern(data)).lattice)
    assert_same_lattice(found, np.array([[1, 1], [1, -1]]) @ basis)


def test_weak_superlattice_rows_are_not_left_out():
    basis = net(1.0, 90.0, length=15.0)
    weak = {(m, n): 60.0 for m in (-1, 1) for n in range(-3, 4)}
    data = draw(basis, heights=weak, absent=lambda m, n: m % 2 == 1 and abs(m) > 1)
    assert_same_lattice(basis_of(analyse_pattern(DiffractionPattern(data)).lattice), basis)


def test_off_centre_beam_and_given_beam():
    basis, beam = net(1.0, 60.0), (92.3, 151.8)
    pattern = DiffractionPattern(draw(basis, beam=beam))
    np.testing.assert_allclose(analyse_pattern(pattern).beam.rc, beam, atol=0.2)
    given = analyse_pattern(pattern, beam_rc=beam)
    assert given.beam.method == "given"
    np.testing.assert_allclose(given.lattice.beam_rc, beam, atol=0.2)
    with pytest.raises(PatternRefusedError, match="given beam"):
        analyse_pattern(pattern, beam_rc=np.array(beam) + basis.sum(axis=0) / 2)


def test_two_grains_are_refused():
    first, second = net(1.0, 90.0, length=24), net(1.0, 90.0, length=24, turn_deg=49.0)
    data = draw(first) + draw(second, seed=3)
    with pytest.raises(PatternRefusedError) as caught:
        analyse_pattern(DiffractionPattern(data))
    assert caught.value.reason in ("several crystals", "no lattice")


def test_one_row_is_refused():
    data = draw(net(1.0, 90.0), absent=lambda m, n: n != 0)
    with pytest.raises(PatternRefusedError):
        analyse_pattern(DiffractionPattern(data))


@pytest.mark.parametrize("seed", range(12))
def test_random_spots_are_refused(seed):
    rng = np.random.default_rng(seed)
    image = np.full((192, 192), 15.0)
    row, col = np.mgrid[:192, :192]
    for r, c in rng.uniform(4, 188, (rng.integers(8, 81), 2)):
        image += rng.uniform(60, 600) * np.exp(-((row - r) ** 2 + (col - c) ** 2) / 4)
    with pytest.raises(PatternRefusedError):
        analyse_pattern(DiffractionPattern(rng.poisson(image)))


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_empty(seed):
    rng = np.random.default_rng(seed)
    with pytest.raises(PatternRefusedError) as caught:
        analyse_pattern(DiffractionPattern(rng.poisson(20.0, (256, 256))))
    assert caught.value.reason == "empty"


def test_constant_masked_and_real_space_frames():
    for pattern, reason in (
        (DiffractionPattern(np.full((64, 64), 3.0)), "empty"),
        (DiffractionPattern(np.full((64, 64), np.nan)), "empty"),
        (DiffractionPattern(np.zeros((5, 5))), "empty"),
        (DiffractionPattern(draw(net(1.0, 90.0)), kind="image"), "image"),
    ):
        with pytest.raises(PatternRefusedError) as caught:
            analyse_pattern(pattern)
        assert caught.value.reason == reason


def test_rings_are_refused():
    radius = np.hypot(*(np.mgrid[:256, :256] - 127.5))
    image = 20 + sum(200 * np.exp(-((radius - r) ** 2) / 8) for r in (40, 46, 66, 77))
    with pytest.raises(PatternRefusedError) as caught:
        analyse_pattern(DiffractionPattern(np.random.default_rng(0).poisson(image)))
    assert caught.value.reason == "rings"
    np.testing.assert_allclose(caught.value.beam.rc, 127.5, atol=1)


def test_hot_pixels_are_no_spots():
    rng = np.random.default_rng(5)
    data = rng.poisson(20.0, (256, 256)).astype(np.float32)
    hot = rng.integers(0, 256, (60, 2))
    data[hot[:, 0], hot[:, 1]] = 4000
    assert len(find_spots(DiffractionPattern(data))) <= 1


def _on_a_grid(draw_one, seed=0):
    """Return the counts of 49 things, 16 px apart; each is drawn by a function of image, (row, col) and generator."""
    rng = np.random.default_rng(seed)
    image = np.full((128, 128), 20.0)
    for row in range(16, 128, 16):
        for col in range(16, 128, 16):
            draw_one(image, (row, col), rng)
    return DiffractionPattern(rng.poisson(image).astype(np.float32))


@pytest.mark.parametrize("sigma", [0.6, 0.7, 0.85])
def test_spots_as_sharp_as_a_pixel_are_found(sigma):
    true = []

    def spot(image, at, rng):
        true.append(np.array(at) + rng.uniform(-0.5, 0.5, 2))
        row, col = np.indices(image.shape)
        distance = np.hypot(row - true[-1][0], col - true[-1][1])
        image += rng.uniform(100, 300) * np.exp(-0.5 * (distance / sigma) ** 2)

    spots = find_spots(_on_a_grid(spot))
    miss = np.linalg.norm(spots.rc[:, None] - np.array(true), axis=2)
    assert 48 <= len(spots) <= 49  # one with its centre in the middle of a pixel may pass for a hot one
    assert miss.min(axis=1).max() < 0.3


def test_clusters_of_hot_pixels_and_strokes_are_no_spots():
    def square(image, at, rng):
        image[at[0] : at[0] + 2, at[1] : at[1] + 2] += 300 * rng.uniform(0.5, 1, (2, 2))

    def equal_square(image, at, _):
        image[at[0] : at[0] + 2, at[1] : at[1] + 2] += 2000

    def stroke(image, at, rng):
        image[at[0], at[1] - 2 : at[1] + 3] += rng.uniform(100, 300)

    for thing in (square, equal_square, stroke):
        assert len(find_spots(_on_a_grid(thing))) <= 2


def test_spot_positions_and_intensities():
    true = np.array([[60.3, 70.8], [120.0, 90.5], [180.7, 200.2]])
    row, col = np.mgrid[:256, :256]
    image = 10 + sum(500 * np.exp(-((row - r) ** 2 + (col - c) ** 2) / (2 * 4)) for r, c in true)
    spots = find_spots(DiffractionPattern(np.random.default_rng(1).poisson(image)))
    order = np.argsort(spots.rc[:, 0])
    np.testing.assert_allclose(spots.rc[order], true, atol=0.1)
    np.testing.assert_allclose(spots.intensity, 500 * 2 * np.pi * 4, rtol=0.12)


@pytest.mark.parametrize("method", ["brightest", "friedel", "inversion", "auto"])
def test_beam_methods(method):
    pattern = DiffractionPattern(draw(net(1.0, 60.0)))
    beam = find_direct_beam(pattern, method=method)
    np.testing.assert_allclose(beam.rc, 127.5, atol=1.5 if method == "inversion" else 0.3)
    assert 0 <= beam.score <= 1


def test_bad_arguments():
    pattern = DiffractionPattern(draw(net(1.0, 60.0)))
    with pytest.raises(ValueError, match="method is 'best'"):
        find_direct_beam(pattern, method="best")
    with pytest.raises(ValueError, match="lattice is None"):
        find_direct_beam(pattern, method="lattice")
    with pytest.raises(ValueError, match="min_snr"):
        find_spots(pattern, min_snr=0)
    with pytest.raises(ValueError, match="beam_rc"):
        analyse_pattern(pattern, beam_rc=(1, 2, 3))


def test_fit_lattice_on_a_list():
    basis = net(1.2, 80.0)
    m = np.arange(-3, 4)
    nodes = np.stack(np.meshgrid(m, m), -1).reshape(-1, 2)
    noise = np.random.default_rng(2).normal(0, 0.1, (49, 2))
    spots = SpotList(nodes @ basis + 100 + noise, np.full(49, 100.0), np.full(49, 30.0), 1.5)
    lattice = fit_lattice(spots, DirectBeam(np.array([100.4, 99.8]), 1.0, "given"))
    assert_same_lattice(basis_of(lattice), basis)
    np.testing.assert_allclose(lattice.beam_rc, 100, atol=0.1)
    assert lattice.indexed.all()
    np.testing.assert_allclose(lattice.node_rc(lattice.indices), spots.rc, atol=0.5)
    # no better than the systematic part, no worse than 1 %
    relative = np.sqrt(np.diag(lattice.covariance)[:2].sum() / 2) / np.linalg.norm(lattice.g1_px)
    assert 0.005 <= relative < 0.01
    assert np.linalg.eigvalsh(lattice.covariance).min() > 0
    moved = move_origin(lattice, lattice.beam_rc + lattice.g2_px)
    np.testing.assert_array_equal(moved.indices, lattice.indices - [0, 1])


def test_reduce_basis():
    for _ in range(50):
        rng = np.random.default_rng(_)
        reduced = reduce_basis(rng.normal(size=(2, 2)) * 20)
        a, b = reduced
        assert a @ a <= b @ b * (1 + 1e-9)
        assert -1e-9 <= a @ b <= a @ a / 2 * (1 + 1e-9)
