"""The chain as one function, and its report."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_sadp.identify import (
    NONE_LABEL,
    Knowledge,
    classify_geometry,
    combine_results,
    identify_pattern,
    identify_patterns,
    pool_classes,
    stage_angle,
)
from napari_sadp.identify._pattern import combine_none, lattice_trust
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.models.predict import load_classifier
from napari_sadp.models.resnet import build_resnet
from napari_sadp.models.weights import WeightsCard, save_weights
from napari_sadp.pattern import DiffractionPattern
from napari_sadp.report import (
    contrast_limits,
    format_table,
    headline,
    leading_groups,
    plot_identification,
    same_patterns,
)
from napari_sadp.samples import SAMPLES, sample_stack, simulated_sample


@pytest.fixture(scope="module")
def classifier():
    return load_classifier(None, "cpu")


@pytest.mark.parametrize("key", sorted(SAMPLES))
def test_every_sample_crystal_is_named(key):
    """Four zone axes each, simulated from structures of the catalogue (training formulas: this is no accuracy)."""
    found = identify_patterns(sample_stack(SAMPLES[key]))
    assert found.n_used == 4
    assert found.space_groups.groups[0] == SAMPLES[key].space_group


@pytest.mark.parametrize("operation", [np.rot90, np.flipud, np.fliplr, np.transpose])
def test_turning_or_mirroring_the_camera_changes_nothing(classifier, operation):
    pattern = simulated_sample("Si", 227, (0, 1, 1), seed=3)
    first = identify_pattern(pattern, classifier)
    second = identify_pattern(DiffractionPattern(operation(pattern.data).copy()), classifier)
    assert second.lattice.ratio == pytest.approx(first.lattice.ratio, rel=2e-3)
    assert second.lattice.angle_deg == pytest.approx(first.lattice.angle_deg, abs=0.2)
    assert second.best_class[0] == first.best_class[0] == "D4-3"


def test_scaling_the_counts_changes_nothing(classifier):
    pattern = simulated_sample("Al", 225, (0, 1, 1), seed=3)
    first = identify_pattern(pattern, classifier)
    second = identify_pattern(DiffractionPattern(0.01 * pattern.data), classifier)
    assert second.class_probabilities == pytest.approx(first.class_probabilities, abs=0.02)


def test_refused_patterns_are_carried_and_not_used(classifier):
    noise = DiffractionPattern(np.random.default_rng(0).poisson(50, (128, 128)), source="noise.tif")
    good = identify_pattern(simulated_sample("Al", 225, (0, 1, 3), seed=1), classifier)
    found = combine_results([identify_pattern(noise, classifier), good])
    assert found.n_used == 1
    assert found.space_groups.groups[0] == 225
    text = format_table(found)
    assert "noise.tif[0]" in text
    assert "refused" in text
    assert json.loads(json.dumps(found.to_dict()))["patterns"][0]["status"] == "refused"


def test_a_foreign_net_is_none_of_these(classifier):
    # a rectangular net of ratio 1.69, as no cubic zone axis of the scheme shows
    rows, cols = np.mgrid[:256, :256]
    image = np.full((256, 256), 20.0)
    for m in range(-4, 5):
        for n in range(-3, 4):
            centre = 128 + m * np.array([0, 28.0]) + n * np.array([47.3, 0])
            image += (
                900 / (1 + m * m + n * n) * np.exp(-((rows - centre[0]) ** 2 + (cols - centre[1]) ** 2) / 12)
            )
    pattern = DiffractionPattern(np.random.default_rng(1).poisson(image))
    found = combine_results([identify_pattern(pattern, classifier)])
    assert found.patterns[0].best_class[0] == NONE_LABEL
    assert "None of these is more likely" in format_table(found)
    assert "Next:" not in format_table(found)
    assert found.current_zone is None
    # it says nothing about the groups
    assert np.ptp(found.space_groups.probabilities) < 0.2


def test_advice_after_a_pattern_that_leaves_four_groups(classifier):
    one = identify_pattern(simulated_sample("Al", 225, (0, 0, 1), seed=1), classifier)
    found = combine_results([one])
    content = json.loads(json.dumps(found.to_dict()))
    best = content["next_zone_axes"][0]
    assert best["zone"] == [0, 1, 3]
    assert best["gain_bits"] == pytest.approx(2.1, abs=0.15)
    assert best["tilt_deg"] == pytest.approx(18.435, abs=1e-3)
    assert len(content["next_zone_axes"]) == 15  # all but [001]
    same = {group["number"]: group["indistinguishable"] for group in content["space_groups"]}
    assert same[225] == [196, 202, 209, 216]
    assert same[227] == [203]
    [line] = [line for line in format_table(found).splitlines() if line.startswith("Next:")]
    assert "[013] would tell most, 2." in line
    assert line.endswith("18.4 deg from [001] (last pattern).")
    # [013] then names the group, less is left to learn, and no axis is advised twice
    both = combine_results(
        [one, identify_pattern(simulated_sample("Al", 225, (0, 1, 3), seed=1), classifier)]
    )
    assert both.space_groups.groups[0] == 225
    assert both.next_axes[0].gain_bits < found.next_axes[0].gain_bits - 0.5
    assert not {(0, 0, 1), (0, 1, 3)} & {axis.zone for axis in both.next_axes}


def test_no_advice_without_a_pattern(classifier):
    found = combine_results([identify_pattern(DiffractionPattern(np.zeros((64, 64))), classifier)])
    assert found.current_zone is None
    assert found.to_dict()["next_zone_axes"] == []
    assert "Next:" not in format_table(found)


def test_progress_can_stop_the_work():
    def stop(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        identify_patterns(sample_stack(SAMPLES["al"]), progress=stop)


def test_no_pattern_is_an_error():
    with pytest.raises(ValueError, match="at least one pattern"):
        identify_patterns([])


def test_groups_that_no_pattern_tells_apart():
    assert same_patterns(221) == (195, 200, 207, 215)
    assert same_patterns(225) == (196, 202, 209, 216)
    assert same_patterns(229) == (197, 199, 204, 211, 217)
    assert same_patterns(213) == (212,)


def test_contrast_limits_show_weak_spots_beside_a_saturated_beam():
    data = np.full((100, 100), 10.0)
    data[50:52, 50:52] = 65535
    data[20:24, 20:30] = 200
    low, high = contrast_limits(data)
    assert low == 10
    assert high <= 200
    assert contrast_limits(np.full((4, 4), 3.0)) == (3.0, 4.0)
    assert contrast_limits(np.full((4, 4), np.nan)) == (0.0, 1.0)


def test_picture_holds_every_part(classifier):
    good = identify_pattern(simulated_sample("Al", 225, (0, 1, 3), seed=1), classifier)
    bad = identify_pattern(DiffractionPattern(np.zeros((64, 64))), classifier)
    figure = plot_identification(combine_results([good, bad]))
    figure.draw_without_rendering()
    texts = " ".join(t.get_text() for axes in figure.axes for t in axes.texts)
    assert "refused: empty" in texts
    assert "Most probable: 225 Fm-3m" in " ".join(texts.split())


def test_groups_of_equal_probability_are_named_together(classifier):
    found = combine_results([identify_pattern(simulated_sample("Al", 225, (0, 0, 1), seed=1), classifier)])
    assert leading_groups(found) == (221, 225, 227, 229)
    assert headline(found).startswith("Equally probable: 221 Pm-3m, 225 Fm-3m, 227 Fd-3m, 229 Im-3m (about 2")
    assert headline(
        combine_results([identify_pattern(DiffractionPattern(np.zeros((64, 64))), classifier)])
    ).startswith("No pattern could be used")


@pytest.fixture(scope="module")
def aluminium(classifier):
    """Two patterns of one crystal, 18.4 deg apart."""
    return [
        identify_pattern(simulated_sample("Al", 225, zone, seed=1), classifier)
        for zone in [(0, 0, 1), (0, 1, 3)]
    ]


def test_zone_axes_and_miller_indices_of_every_pattern(aluminium):
    content = json.loads(json.dumps(combine_results(aluminium).to_dict()))
    for entry, zone in zip(content["patterns"], [(0, 0, 1), (0, 1, 3)], strict=True):
        best = entry["zone_axes"][0]
        assert tuple(best["zone"]) == zone
        assert best["probability"] > 0.9
        assert sum(axis["probability"] for axis in entry["zone_axes"]) <= 1 + 1e-9
        found = entry["indexing"]
        assert found["group"] == "225"
        for spot in found["spots"]:
            assert np.dot(spot["hkl"], zone) == 0
            assert len({index % 2 for index in spot["hkl"]}) == 1  # face-centred: all even or all odd
        # the longer the vector, the farther the spot
        length = [np.linalg.norm(spot["hkl"]) for spot in found["spots"]]
        distance = [np.linalg.norm(np.subtract(spot["rc"], entry["beam_rc"])) for spot in found["spots"]]
        assert np.corrcoef(length, distance)[0, 1] > 0.999
    assert content["shared_camera_constant"] > 0.95


def test_what_cannot_be_separated_is_said_in_words(aluminium):
    content = combine_results(aluminium).to_dict()
    assert content["indistinguishable"] == [225, 196, 202, 209, 216]
    assert content["indistinguishable_text"].startswith("225, 196, 202, 209 and 216 give the same patterns")
    classes = content["extinction_classes"]
    assert classes[0]["groups"] == [225, 196, 202, 209, 216]
    assert sum(item["probability"] for item in classes) == pytest.approx(1)
    one = combine_results(aluminium[:1])
    assert "do not separate 221, 225, 227 and 229" in one.indistinguishable_text
    assert {221, 195, 203, 225, 229} <= set(one.indistinguishable)
    text = format_table(one)
    assert "extinction class" in text
    assert "zone axis [001]" in text


def test_elements_and_candidates_are_priors(aluminium):
    only = combine_results(aluminium[:1], knowledge=Knowledge(candidates=("229", "221", "999")))
    assert set(only.space_groups.groups[:2]) == {221, 229}
    assert only.space_groups.probability(225) == pytest.approx(0, abs=1e-12)
    assert "999: there is no such space group" in only.messages[0]
    assert only.messages[0] in format_table(only)
    silicon = combine_results(aluminium[:1], knowledge=Knowledge(elements=("Si", "Qq")))
    assert silicon.space_groups.groups[0] == 227
    assert "Si (227)" in silicon.to_dict()["phases"]
    assert "'Qq' is no chemical element" in silicon.messages[0]
    mean = combine_results(aluminium[:1], rule="mean", knowledge=Knowledge(candidates=("229", "221")))
    assert mean.space_groups.probability(229) == pytest.approx(0.5, abs=0.02)


def test_no_intensities_without_a_table_of_structures(tmp_path):
    """A network for other groups: symmetry is all that is known, and that is what is said."""
    torch.manual_seed(0)
    scheme = build_scheme((225, 229))
    card = WeightsCard("two", "resnet18", 48, scheme.groups, scheme.labels, scheme.version)
    weights = save_weights(tmp_path, card, build_resnet("resnet18", len(scheme)))
    sample = simulated_sample("Al", 225, (0, 0, 1), seed=1)
    results = [identify_pattern(sample, load_classifier(weights, "cpu"))]
    found = combine_results(results, knowledge=Knowledge(intensities=True))
    assert any(
        "Intensities are not weighed: for these groups there is no table" in line for line in found.messages
    )
    assert not any("weigh how bright spots are" in line for line in found.messages)
    plain = combine_results(results)
    assert found.space_groups.probabilities == pytest.approx(plain.space_groups.probabilities)


def test_intensities_of_known_structures_count_where_asked_for(aluminium):
    """[001] of aluminium is as bright on all kinds of nodes as few structures of 221 are; spots and gaps do not know."""
    asked = Knowledge(intensities=True)
    plain, weighed = combine_results(aluminium[:1]), combine_results(aluminium[:1], knowledge=asked)
    assert weighed.space_groups.probability(221) < 0.7 * plain.space_groups.probability(221)
    leader = plain.space_groups.groups[0]
    said = f"Spots and gaps alone say: {leader} {100 * plain.space_groups.probability(leader):.0f} %"
    assert said in " ".join(weighed.messages)
    assert "alone say" not in " ".join(plain.messages)
    mean = [combine_results(aluminium, rule="mean", knowledge=k).space_groups for k in (None, asked)]
    assert (mean[0].probabilities == mean[1].probabilities).all()


def test_tilts_between_patterns(aluminium):
    right = combine_results(aluminium, knowledge=Knowledge(tilt_deg=(18.4,)))
    assert right.known_zones == ((0, 0, 1), (0, 1, 3))
    stage = combine_results(aluminium, knowledge=Knowledge(tilt_deg=((0.0, 0.0), (18.4, 0.0))))
    assert stage.space_groups.probabilities == pytest.approx(right.space_groups.probabilities, abs=1e-6)
    wrong = combine_results(aluminium, knowledge=Knowledge(tilt_deg=(55.0,)))
    assert any("contradict each other" in message for message in wrong.messages)
    odd = combine_results(aluminium, knowledge=Knowledge(tilt_deg=(1.0, 2.0, 3.0)))
    assert "tilts were given for 3 pattern(s)" in odd.messages[0]
    assert odd.space_groups.groups[0] == 225
    with pytest.raises(ValueError, match="tilt_deg is 200"):
        Knowledge(tilt_deg=(200.0,))
    with pytest.raises(ValueError, match="thickness_nm is -1"):
        Knowledge(thickness_nm=-1)


def test_the_stage_of_the_file_is_used(aluminium):

    staged = [
        replace(result, pattern=replace(result.pattern, stage_deg=stage))
        for result, stage in zip(aluminium, [(-5.0, 3.0), (60.0, 3.0)], strict=True)
    ]
    found = combine_results(staged)
    assert any("contradict each other" in message for message in found.messages)  # 65 deg are not 18.4
    assert stage_angle((-5.0, 3.0), (60.0, 3.0)) == pytest.approx(65, abs=0.3)
    assert stage_angle((10, 20), (10, 20)) == pytest.approx(0, abs=1e-6)


def test_a_duplicate_changes_nothing(aluminium):
    once, twice = combine_results(aluminium), combine_results([*aluminium, aluminium[1]])
    assert twice.space_groups.probabilities == pytest.approx(once.space_groups.probabilities, abs=1e-6)


def test_pooling_keeps_what_both_agree_on(aluminium):
    result = aluminium[1]
    best = int(np.argmax(result.class_probabilities))
    pooled = pool_classes(result.network, result.lattice_classes)
    assert pooled == pytest.approx(result.class_probabilities)
    # a network that knows nothing leaves the lattice's own answer, and the other way round
    blank = np.full(len(result.network), 1 / len(result.network))
    assert int(np.argmax(pool_classes(blank, result.lattice_classes))) == best


def test_a_doubtful_lattice_leaves_the_class_open(aluminium, classifier):
    from napari_sadp.geometry.analyse import analyse_pattern

    geometry = analyse_pattern(aluminium[1].pattern)
    odds = (float("nan"), -150.0, -8.0, -2.0)
    found = [
        classify_geometry(replace(geometry, lattice=replace(geometry.lattice, log_nfa=value)), classifier)
        for value in odds
    ]
    trusts = [result.lattice_trust for result in found]
    assert trusts[0] == 1 > trusts[1] > 0.95 > trusts[2] > trusts[3]
    noted = [any("lattices like this one" in note for note in result.notes) for result in found]
    assert noted == [trust < 0.9 for trust in trusts]
    assert noted[-1]
    said = [result.best_class[1] for result in found]
    assert said == sorted(said, reverse=True)
    assert said[0] - said[-1] > 0.1
    for result in found:
        # which one it is most probably does not change, nor what follows if the lattice is right
        assert result.best_class[0] == found[0].best_class[0]
        assert np.array_equal(result.class_probabilities, found[0].class_probabilities)
        assert result.stated.sum() == pytest.approx(1)
        entry = result.to_dict()
        assert entry["class"]["probability"] == pytest.approx(max(entry["class_probabilities"].values()))
        assert entry["lattice_trust"] == result.lattice_trust


def test_lattices_are_trusted_by_chance_leftover_and_size(aluminium):
    from napari_sadp.geometry.grains import leftover_spots

    lattice = aluminium[1].lattice
    left = leftover_spots(lattice)
    here = lattice_trust(lattice, left, 256)
    assert lattice_trust(replace(lattice, log_nfa=0.2 * lattice.log_nfa), left, 256) < here
    assert lattice_trust(lattice, replace(left, share=0.3), 256) < here
    large = replace(lattice, spots=replace(lattice.spots, sigma_px=3 * lattice.spots.sigma_px))
    assert lattice_trust(large, left, 256) < here
    # the same pattern on a larger camera
    assert lattice_trust(large, left, 768) == pytest.approx(here)
    assert lattice_trust(replace(lattice, log_nfa=float("nan")), left, 256) == 1


def test_the_mean_rule_counts_a_placed_lattice_of_no_class(aluminium):
    foreign = replace(aluminium[1], lattice_trust=1.0, none_of_these=1.0)
    found = combine_results([foreign, aluminium[0]], rule="mean")
    assert np.isfinite(found.space_groups.probabilities).all()
    assert sum(found.space_groups.probabilities) == pytest.approx(1)


def test_of_two_patterns_that_differ_the_surer_lattice_counts_more(aluminium, classifier):
    """The more a lattice may be chance, the more the pattern may have nothing to do with the other."""
    pair = aluminium[:2]
    sure = [replace(result, lattice_trust=0.998) for result in pair]
    doubtful = [sure[0], replace(sure[1], lattice_trust=0.75)]
    both, one = combine_results(sure), combine_results(doubtful)
    assert one.outlier[1] > both.outlier[1]
    assert one.outlier[1] > 1.5 * one.outlier[0]


def test_none_by_shape_or_by_image():
    assert combine_none(0.3, None) == pytest.approx(0.3)  # weights without a score change nothing
    assert combine_none(1.0, -50.0) == 1.0  # a shape that is none stays none
    assert combine_none(0.0, 0.0, prior=0.05) == pytest.approx(0.05)
    # one alternative, one prior: that neither the image nor what is left over says anything leaves it
    assert combine_none(0.0, 0.0, 0.0, prior=0.05) == pytest.approx(0.05)
    # odds of 1 : 19 before, 9 : 1 for none by an image whose ln odds count half
    by_image = combine_none(0.0, 2 * np.log(9.0), prior=0.05, weight=0.5)
    assert by_image == pytest.approx((9 / 19) / (1 + 9 / 19))
    assert combine_none(0.4, 2 * np.log(9.0), prior=0.05, weight=0.5) == pytest.approx(0.4 + 0.6 * by_image)


def test_the_outlier_score_of_the_weights_reaches_the_answer(classifier):
    import torch

    from napari_sadp.models.outliers import OutlierScore

    pattern = simulated_sample("Al", 225, (0, 1, 1), seed=3)
    plain = identify_pattern(pattern, classifier)
    n_classes = len(classifier.scheme)
    for constant, low, high in ((120.0, 0.99, 1.0), (-120.0, 0.0, plain.none_of_these + 1e-6)):
        weights = torch.zeros(515)
        weights[0] = constant
        score = OutlierScore(torch.eye(512), torch.zeros(n_classes, 512), weights)
        found = identify_pattern(pattern, replace(classifier, outliers=score))
        assert low <= found.none_of_these <= high
        assert found.class_probabilities == pytest.approx(plain.class_probabilities)


def test_spots_below_a_share_of_the_strongest_do_not_count_on_request(classifier):
    """Caesium chloride without its superlattice looks body-centred: the net of [011] is half as dense."""
    pattern = simulated_sample("CsCl", 221, (0, 1, 1), seed=3)
    whole = identify_pattern(pattern, classifier)
    strong = identify_pattern(pattern, classifier, faintest=0.28)
    assert np.linalg.norm(strong.lattice.g1_px) == pytest.approx(
        np.sqrt(2) * np.linalg.norm(whole.lattice.g1_px), rel=0.01
    )
    assert whole.lattice.ratio == pytest.approx(np.sqrt(2), rel=0.01)
    assert strong.lattice.ratio == pytest.approx(np.sqrt(2), rel=0.01)
    assert any("fainter than 28 %" in note for note in strong.notes)
    same = identify_pattern(pattern, classifier, faintest=1e-6)
    assert same.best_class == whole.best_class
    with pytest.raises(ValueError, match=r"faintest is 0\.8"):
        identify_pattern(pattern, classifier, faintest=0.8)


# ---- what was measured and decided, for other programs and for people ------------------------------------------------


def test_the_json_holds_what_was_measured(classifier):
    sample = replace(simulated_sample("Al", 225, (0, 1, 1), seed=3), pixel_size_inv_angstrom=0.0125)
    result = identify_pattern(sample, classifier)
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    lattice, beam = found["lattice"], np.array(found["beam_rc"])
    basis = np.array([lattice["g1_px"], lattice["g2_px"]])
    on = [spot for spot in found["spots"] if spot["node"] is not None]
    assert len(on) == lattice["n_spots"] > 10
    for spot in on:
        assert spot["rc"] == pytest.approx(beam + np.array(spot["node"]) @ basis, abs=1.0)
        # the profile alone makes 3 %, noise adds to it
        assert spot["intensity_error"] > np.hypot(0.03 * spot["intensity"], spot["intensity"] / spot["snr"])
    states = [node["state"] for node in found["nodes"]]
    assert {name: states.count(name) for name in ("present", "absent", "unknown")} == {
        "present": result.nodes.present.sum(),
        "absent": result.nodes.absent.sum(),
        "unknown": len(result.nodes) - result.nodes.present.sum() - result.nodes.absent.sum(),
    }
    # what cannot be seen has no intensity
    assert any(node["intensity"] is None for node in found["nodes"])
    assert all(node["state"] == "unknown" for node in found["nodes"] if node["intensity"] is None)
    assert sum(lattice["type_probabilities"].values()) == pytest.approx(1)
    # [011] of a face-centred lattice: centred rectangle of sides 1 and root 2, a = 4.05 Å
    assert lattice["type_probabilities"]["D"] > 0.9
    lengths = found["calibrated"]
    assert lengths["d_angstrom"][0] == pytest.approx(4.05 / np.sqrt(3), rel=0.02)
    assert lengths["d_error_angstrom"][0] / lengths["d_angstrom"][0] == pytest.approx(0.005, abs=0.003)
    assert lengths["camera_constant_px_angstrom"] == pytest.approx(80)
    uncalibrated = identify_pattern(replace(sample, pixel_size_inv_angstrom=None), classifier).to_dict()
    assert uncalibrated["calibrated"] is None


def test_what_was_decided_is_said_of_refused_patterns_too(classifier):
    noise = DiffractionPattern(np.random.default_rng(0).poisson(50, (128, 128)), source="noise.tif")
    noise = noise.with_note("calibration of 9 1/nm taken as none")
    mask = np.zeros(noise.shape, bool)
    mask[:16] = True
    refused = identify_pattern(noise, classifier, mask=mask)
    assert not refused.used
    assert "masked by the user: 12.5 % of the frame" in refused.notes
    sample = simulated_sample("Al", 225, (0, 1, 1), seed=3).with_note("calibration of 9 1/nm taken as none")
    text = format_table(combine_results([refused, identify_pattern(sample, classifier)]))
    assert text.count("calibration of 9 1/nm taken as none") == 1
    assert "  all 2 patterns: calibration of 9 1/nm taken as none" in text
    assert "  noise.tif[0]: masked by the user: 12.5 % of the frame" in text
    nothing = format_table(combine_results([identify_pattern(replace(noise, notes=()), classifier)]))
    assert "what was decided" not in nothing
