"""Patterns of one crystal together: space groups, zone axes, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp._validate import check_option, check_range
from napari_sadp.ensemble.combine import RULES, SpaceGroupPosterior, combine, none_of_all, sorted_posterior
from napari_sadp.ensemble.contrast import measured_contrast, weakest_visible
from napari_sadp.ensemble.joint import SURPRISE, Evidence, Joint, joint_posterior
from napari_sadp.ensemble.priors import GroupPrior, group_prior
from napari_sadp.ensemble.views import view_table
from napari_sadp.identify._pattern import identify_pattern
from napari_sadp.identify._results import Identification, PatternResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from napari_sadp.ensemble.combine import Rule
    from napari_sadp.labels.scheme import PatternScheme
    from napari_sadp.models.predict import Classifier, Precision, Views
    from napari_sadp.pattern import DiffractionPattern

#: Patterns of one class whose |g1| differ by less than this (natural logarithm) are taken as one zone axis.
SAME_LENGTH = 0.04
#: Error of a length between patterns (natural logarithm): focus of the lenses, fit, calibration.
LENGTH_ERROR = 0.012
#: Error of the weakest visible intensity (natural logarithm): a spot search misses some that their nodes would show. By the log loss of
#: images of decorated training structures.
WEAKEST_ERROR = 1.0
#: Prior that patterns share a camera constant: calibrated each; frames of one file; files of one camera, uncalibrated.
SHARED_CALIBRATED, SHARED_STACK, SHARED_FILES = 0.95, 0.9, 0.5
#: Error of an angle between two patterns by the stage or the user [deg]: goniometer, and axes that are not exactly hit.
TILT_ERROR_DEG = 1.5
#: What is said where intensities should count, and the package has no table of structures for the scheme.
_NO_INTENSITIES = "Intensities are not weighed: for these groups there is no table of known structures. The probabilities rest on symmetry alone."
#: From this probability on a pattern is said not to fit the others.
_STRANGER = 0.5


@dataclass(frozen=True)
class Knowledge:
    """What is known about crystal and microscope besides the patterns.

    Parameters
    ----------
    elements : tuple of str
        Elements in the specimen.
    candidates : tuple of str or int
        Space groups, formulas or source ids that come into question.
    thickness_nm : float, optional
        Thickness of the specimen [nm].
    tilt_deg : tuple
        One (alpha, beta) of the stage for each pattern [deg], refused ones included; or numbers, the angle between each pattern
        and the one before it. Takes the place of what the files say.
    intensities : bool
        Whether the product rule weighs how bright the spots are, by what known structures of each group show, too. That reaches more
        than spots and gaps, and rests on the crystal being like known ones; what spots and gaps say alone is then among the messages.

    Raises
    ------
    ValueError
        If the thickness or an angle is out of range.
    """

    elements: tuple[str, ...] = ()
    candidates: tuple[str | int, ...] = ()
    thickness_nm: float | None = None
    tilt_deg: tuple[float | tuple[float, float], ...] = ()
    intensities: bool = False

    def __post_init__(self) -> None:
        if self.thickness_nm is not None:
            check_range("thickness_nm", self.thickness_nm, 0, 1e4, "nm", low_inclusive=False)
        for item in self.tilt_deg:
            for angle in item if isinstance(item, tuple) else (item,):
                check_range("tilt_deg", angle, -180, 180, "deg")


def combine_results(
    results: Iterable[PatternResult], *, rule: Rule = "product", knowledge: Knowledge | None = None
) -> Identification:
    """Combine the results of single patterns of one crystal.

    Parameters
    ----------
    results : iterable of PatternResult
        At least one; refused ones are carried along and not used.
    rule : {"product", "mean"}
        See `napari_sadp.ensemble.combine`. The mean rule of the article uses nothing but the classes; zone axes and
        patterns that do not fit are judged by the product rule in either case.
    knowledge : Knowledge, optional
        What is known besides the patterns.

    Returns
    -------
    Identification
        All results and the space groups.

    Raises
    ------
    ValueError
        If there is no result, or the rule is unknown.
    """
    check_option("rule", rule, RULES)
    results = tuple(results)
    if not results:
        raise ValueError("results is empty, expected at least one pattern")
    scheme = results[0].scheme
    if any(result.scheme.version != scheme.version for result in results):
        raise ValueError("results come from networks with different class schemes, expected one scheme")
    knowledge = knowledge or Knowledge()
    prior = group_prior(scheme, elements=knowledge.elements, candidates=knowledge.candidates)
    used = [result for result in results if result.used]
    if not used:
        posterior = replace(combine([], scheme, rule=rule), n_patterns=0)
        return Identification(results, posterior, scheme, prior=prior, messages=prior.messages)
    # frames of one zone axis are one piece of evidence, however many there are
    same = _same_axis(used)
    members = [np.flatnonzero(same == label) for label in np.unique(same)]
    place = np.array([next(i for i, m in enumerate(members) if j in m) for j in range(len(used))])
    shared, comparable = _shared_scale(used)
    angles, tilt_messages = _angles(results, used, members, knowledge)
    evidence = [_evidence([used[i] for i in m], comparable) for m in members]
    plain = [replace(item, contrast=None) for item in evidence]
    reason = partial(
        joint_posterior,
        scheme=scheme,
        group_prior=prior.probabilities,
        thickness_nm=knowledge.thickness_nm,
        shared_scale=shared,
        tilt_deg=angles,
        tilt_error_deg=TILT_ERROR_DEG,
        surprise=[max(SURPRISE, 1 - max(used[i].lattice_trust for i in m)) for m in members],
    )
    joint = reason(evidence if knowledge.intensities else plain)
    stated = np.array([result.stated for result in used])
    none = stated[:, -1]
    if rule == "product":
        each = np.array([none[m].mean() for m in members])
        posterior = sorted_posterior(joint.groups, scheme, "product", len(used), none_of_all(each))
    else:
        # a lattice that the user placed, of the shape of no class, leaves nothing to share out
        table = np.array(
            [
                row[:-1] / row[:-1].sum() if row[-1] < 1 else r.class_probabilities
                for row, r in zip(stated, used, strict=True)
            ]
        )
        posterior = combine(table, scheme, rule=rule, none_of_these=none)
        if prior.phases or knowledge.candidates:
            posterior = _with_prior(posterior, prior, scheme)
    messages = (*prior.messages, *tilt_messages, *_strangers(used, place, joint))
    if knowledge.intensities and rule == "product":
        known = view_table(scheme).contrast is not None
        messages += (_without_intensities(reason(plain), scheme) if known else _NO_INTENSITIES,)
    return Identification(
        results,
        posterior,
        scheme,
        zones=joint.zones[place],
        zones_of_group=joint.zones_of_group[:, place],
        outlier=joint.outlier[place],
        shared_scale=joint.shared_scale,
        prior=prior,
        messages=messages,
    )


def _without_intensities(joint: Joint, scheme: PatternScheme) -> str:
    """Return what spots and gaps alone say, in words."""
    order = np.argsort(-joint.groups.round(6), kind="stable")
    parts = ", ".join(
        f"{scheme.groups[i]} {100 * joint.groups[i]:.0f} %" for i in order if joint.groups[i] >= 0.005
    )
    return f"The probabilities weigh how bright spots are in known structures. Spots and gaps alone say: {parts}."


def _evidence(results: list[PatternResult], comparable: bool) -> Evidence:
    """Return what patterns of one zone axis say, as one pattern."""
    rows, lengths, weakest, contrasts = [], [], [], []
    for result in results:
        found, none = result.lattice_classes, result.none_of_these
        # the pooled classes, on the scale on which the lattice weighed them against none of them
        level = float(found.likelihood.sum())
        rows.append(np.append(result.class_probabilities * level, found.none_likelihood))
        if none >= 1 or level <= 0:
            rows[-1] = np.append(np.zeros(len(result.class_probabilities)), 1.0)
        size = result.pattern.pixel_size_inv_angstrom or 1.0
        lengths.append(np.log(np.linalg.norm(result.lattice.g1_px) * size))
        if result.nodes is not None:
            weakest.append(weakest_visible(result.nodes))
            basis = np.stack([result.lattice.g1_px, result.lattice.g2_px])
            contrasts.append(measured_contrast(result.nodes, basis))
    known = [value for value in weakest if value is not None]
    shown = [value for value in contrasts if value is not None]
    mean = np.mean([row / row.sum() for row in rows], axis=0)
    return Evidence(
        mean,
        float(np.mean(lengths)) if comparable else None,
        LENGTH_ERROR,
        min(known) if known else None,
        WEAKEST_ERROR,
        np.mean(shown, axis=0) if shown else None,
    )


def _shared_scale(used: list[PatternResult]) -> tuple[float, bool]:
    """Return the prior that the patterns share a camera constant, and whether their lengths compare at all."""
    patterns = [result.pattern for result in used]
    calibrated = [p.pixel_size_inv_angstrom is not None for p in patterns]
    if all(calibrated):
        return SHARED_CALIBRATED, True
    lengths = {p.camera_length_mm for p in patterns}
    if any(calibrated) or len({p.shape for p in patterns}) > 1 or len(lengths) > 1:
        return 0.0, False
    one_file = len({p.source for p in patterns}) == 1 and bool(patterns[0].source)
    return (SHARED_STACK if one_file else SHARED_FILES), True


def stage_angle(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Return the angle between two settings (alpha, beta) of a double-tilt stage [deg]; beta tilts inside of alpha.

    Examples
    --------
    >>> round(stage_angle((0, 0), (30, 0)), 3), round(stage_angle((10, 20), (10, -20)), 3)
    (30.0, 40.0)
    """
    a1, b1, a2, b2 = np.radians([*first, *second])
    cosine = np.sin(b1) * np.sin(b2) + np.cos(b1) * np.cos(b2) * np.cos(a1 - a2)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _angles(
    results: tuple[PatternResult, ...],
    used: list[PatternResult],
    members: list[np.ndarray],
    knowledge: Knowledge,
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the angles between the pieces of evidence [deg], NaN where not known, and what is wrong with them."""
    given, n = knowledge.tilt_deg, len(results)
    table = np.full((n, n), np.nan)
    if given and all(isinstance(item, tuple) for item in given) and len(given) == n:
        stages: list[tuple[float, float] | None] = list(given)
    elif given and not any(isinstance(item, tuple) for item in given) and len(given) == n - 1:
        stages = [None] * n
        for i, angle in enumerate(given):
            table[i, i + 1] = table[i + 1, i] = abs(float(angle))
    elif given:
        message = (
            f"tilts were given for {len(given)} pattern(s), expected an (alpha, beta) for each of {n} or the {max(n - 1, 0)} "
            "angle(s) between neighbours; they are not used"
        )
        return None, (message,)
    else:
        stages = [result.pattern.stage_deg for result in results]
        if len({stage for stage in stages if stage is not None}) < 2:
            return None, ()  # one setting for all: the stage was not read for each pattern
    for i in range(n):
        for j in range(i):
            if stages[i] is not None and stages[j] is not None:
                table[i, j] = table[j, i] = stage_angle(stages[i], stages[j])
    number = [k for k, result in enumerate(results) if result.used]
    first = [number[m[0]] for m in members]
    angles = table[np.ix_(first, first)]
    known = np.isfinite(angles[~np.eye(len(first), dtype=bool)]).any() if len(first) > 1 else False
    return (angles if known else None), ()


def _strangers(used: list[PatternResult], place: np.ndarray, joint: Joint) -> list[str]:
    """Return sentences about patterns that do not fit the others."""
    if len(joint.outlier) < 2:
        return []
    odd = [i for i in range(len(joint.outlier)) if joint.outlier[i] > _STRANGER]
    names = [used[int(np.flatnonzero(place == i)[0])].pattern.name for i in range(len(joint.outlier))]
    if odd and len(odd) * 2 < len(names):
        return [
            f"{', '.join(names[i] for i in odd)} does not fit the other patterns (P = {joint.outlier[odd].min():.2f}): another "
            "crystal, or tilted off its axis. The space groups rest on the others."
        ]
    if joint.outlier.sum() > 0.6:
        pairs = ", ".join(f"{name} {p:.2f}" for name, p in zip(names, joint.outlier, strict=True))
        return [
            "The patterns contradict each other as patterns of one crystal: the stack may mix two crystals. Probability that a "
            f"pattern is foreign: {pairs}. Identify them apart."
        ]
    return []


def _with_prior(
    posterior: SpaceGroupPosterior, prior: GroupPrior, scheme: PatternScheme
) -> SpaceGroupPosterior:
    """Return the posterior of the mean rule with a prior that is not equal."""
    weight = np.array([posterior.probability(n) for n in scheme.groups]) * prior.probabilities
    if weight.sum() <= 0:
        weight = prior.probabilities
    return sorted_posterior(
        weight / weight.sum(), scheme, posterior.rule, posterior.n_patterns, posterior.none_of_these
    )


def _same_axis(results: list[PatternResult]) -> np.ndarray:
    """Return a number for each pattern, equal for those of the same class and the same lattice: one zone axis."""
    numbers: list[int] = []
    seen: list[tuple[str, float, float | None]] = []
    for result in results:
        label, length, size = (
            result.best_class[0],
            float(np.linalg.norm(result.lattice.g1_px)),
            result.pattern.pixel_size_inv_angstrom,
        )
        for number, (other, other_length, other_size) in enumerate(seen):
            # lengths compare where both are calibrated, or neither is
            ratio = length / other_length
            if size is not None and other_size is not None:
                ratio *= size / other_size
            if label == other and abs(np.log(ratio)) < SAME_LENGTH:
                numbers.append(number)
                break
        else:
            numbers.append(len(seen))
            seen.append((label, length, size))
    return np.array(numbers)


def identify_patterns(
    patterns: Iterable[DiffractionPattern],
    *,
    rule: Rule = "product",
    model: Path | str | Classifier | None = None,
    device: str = "auto",
    views: Views = "mirrors",
    precision: Precision = "single",
    beam_rc: Sequence[float] | Iterable[Sequence[float]] | None = None,
    min_snr: float = 6.0,
    faintest: float = 0.0,
    progress: Callable[[PatternResult], None] | None = None,
    knowledge: Knowledge | None = None,
) -> Identification:
    """Identify a crystal from patterns on one or more zone axes.

    Parameters
    ----------
    patterns : iterable of DiffractionPattern
        Patterns of one crystal.
    rule : {"product", "mean"}
        How to combine them.
    model : str, path-like or Classifier, optional
        Name of a network, its weight file, or one that `napari_sadp.load_classifier` gave, which has a device, views and a precision of
        its own; the bundled network by default.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    views : {"mirrors", "one", "turns"}
        What the network's answer is averaged over, see `napari_sadp.models.predict.image_views`.
    precision : {"single", "half"}
        Half precision is faster on GPUs, see `napari_sadp.models.predict.load_classifier`.
    beam_rc : sequence of 2 float or iterable of these, optional
        Direct beam (row, col) [px], if the user knows it: one for all patterns, or one for each, nan where it is not known.
    min_snr : float
        Smallest signal to noise ratio of a spot.
    faintest : float
        Intensity of the weakest spot that counts, over that of the strongest diffracted beam; 0 for all that can be seen.
    progress : callable, optional
        Called with each result; an exception that it raises stops the work.
    knowledge : Knowledge, optional
        What is known besides the patterns.

    Returns
    -------
    Identification
        Results and space groups.

    Raises
    ------
    ValueError
        If there is no pattern or an argument is wrong.
    CheckpointError
        If the weights cannot be used.
    """
    from napari_sadp.models.predict import as_classifier

    check_option("rule", rule, RULES)
    classifier = as_classifier(model, device, views=views, precision=precision)
    results = []
    beams = _beam_of_each(beam_rc)
    for number, pattern in enumerate(patterns):
        try:
            beam = next(beams)
        except StopIteration:
            raise ValueError(f"beam_rc is given for {number} pattern(s), expected one for each") from None
        result = identify_pattern(pattern, classifier, beam_rc=beam, min_snr=min_snr, faintest=faintest)
        results.append(result)
        if progress is not None:
            progress(result)
    return combine_results(results, rule=rule, knowledge=knowledge)


def _beam_of_each(
    beam_rc: Sequence[float] | Iterable[Sequence[float]] | None,
) -> Iterator[np.ndarray | None]:
    """Return the given direct beam of each pattern in turn, None where it is not known; the same for all for ever."""
    if beam_rc is None or (isinstance(beam_rc, (Sequence, np.ndarray)) and np.ndim(beam_rc) == 1):
        return repeat(None if beam_rc is None else np.asarray(beam_rc, dtype=float))
    rows = (np.asarray(row, dtype=float) for row in beam_rc)
    return (None if np.isnan(row).any() else row for row in rows)
