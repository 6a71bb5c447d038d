"""The whole chain: patterns in, classes and space groups out. The one function that every front end calls.

A pattern is analysed (beam, spots, lattice), turned into the image convention of the network and classified; the shape of
its lattice limits the classes and gives the probability that it is none of them. Patterns of one crystal are combined.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp._validate import check_option
from napari_sadp.ensemble.ambiguity import same_patterns
from napari_sadp.ensemble.combine import RULES, SpaceGroupPosterior, combine
from napari_sadp.ensemble.lattice_classes import LatticeClasses, classify_lattice
from napari_sadp.ensemble.next_axis import ZONE_KNOWN, NextAxis, rank_next_axes, zone_probabilities
from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.pattern import DiffractionPattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from napari_sadp.ensemble.combine import Rule
    from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList
    from napari_sadp.labels.scheme import PatternScheme, Zone
    from napari_sadp.models.predict import Classifier

#: Reason of a file or frame that could not be read.
UNREADABLE = "unreadable"
#: Patterns of one class whose |g1| differ by less than this (natural logarithm) are taken as one zone axis.
SAME_LENGTH = 0.04
#: Label of a pattern whose lattice fits no class of the scheme.
NONE_LABEL = "none"


@dataclass(frozen=True, eq=False)
class PatternResult:
    """What was found in one pattern.

    Parameters
    ----------
    pattern : DiffractionPattern
        The pattern.
    scheme : PatternScheme
        The classes.
    reason, detail : str or None
        Why it was refused, in one word and in a sentence; None when it was used.
    beam : DirectBeam or None
        Direct beam, also of refused patterns where it was found.
    spots : SpotList or None
        Spots, also of refused patterns where they were found.
    lattice : SpotLattice or None
        Lattice; None when refused.
    training_image : (size, size) ndarray of float32 or None
        What the network saw.
    network : (n_classes,) ndarray of float64 or None
        P(class) from the network alone.
    lattice_classes : LatticeClasses or None
        What the lattice alone says.
    class_probabilities : (n_classes,) ndarray of float64 or None
        Network times shape likelihood, given that it is one of the classes; sum to 1.
    none_of_these : float
        Probability that the lattice fits no class.
    notes : tuple of str
        What was decided on the way.
    """

    pattern: DiffractionPattern
    scheme: PatternScheme
    reason: str | None = None
    detail: str | None = None
    beam: DirectBeam | None = None
    spots: SpotList | None = None
    lattice: SpotLattice | None = None
    training_image: np.ndarray | None = None
    network: np.ndarray | None = None
    lattice_classes: LatticeClasses | None = None
    class_probabilities: np.ndarray | None = None
    none_of_these: float = 0.0
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def used(self) -> bool:
        """Whether the pattern was classified."""
        return self.class_probabilities is not None

    @property
    def best_class(self) -> tuple[str, float] | None:
        """Most probable class and its probability, ``("none", p)`` where no class fits; None when refused."""
        if self.class_probabilities is None:
            return None
        best = int(np.argmax(self.class_probabilities))
        probability = (1 - self.none_of_these) * float(self.class_probabilities[best])
        if self.none_of_these > probability:
            return NONE_LABEL, float(self.none_of_these)
        return self.scheme.labels[best], probability

    @property
    def g1_inv_angstrom(self) -> float | None:
        """Length of the shortest lattice vector [1/Å], None when refused or uncalibrated."""
        size = self.pattern.pixel_size_inv_angstrom
        if self.lattice is None or size is None:
            return None
        return float(np.linalg.norm(self.lattice.g1_px) * size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, the ``patterns`` entry of the JSON output."""
        best = self.best_class
        return {
            "path": self.pattern.source,
            "frame": self.pattern.frame,
            "status": "ok" if self.used else "refused",
            "reason": self.reason,
            "detail": self.detail,
            "beam_rc": None if self.beam is None else [float(x) for x in self.beam.rc],
            "lattice": None if self.lattice is None else _lattice_dict(self.lattice),
            "g1_inv_angstrom": self.g1_inv_angstrom,
            "class": {"label": best[0], "probability": best[1]} if best else None,
            "class_probabilities": self._by_label(
                self.class_probabilities, 1 - self.none_of_these, self.none_of_these
            ),
            "network_probabilities": self._by_label(self.network),
            "lattice_probabilities": self._by_label(
                None if self.lattice_classes is None else self.lattice_classes.probabilities
            ),
            "none_of_these": float(self.none_of_these) if self.used else None,
            "pixel_size_inv_angstrom": self.pattern.pixel_size_inv_angstrom,
            "voltage_kv": self.pattern.voltage_kv,
            "camera_length_mm": self.pattern.camera_length_mm,
            "notes": list(self.notes),
        }

    def _by_label(
        self, values: np.ndarray | None, factor: float = 1.0, none: float | None = None
    ) -> dict[str, float] | None:
        if values is None:
            return None
        table = {label: factor * float(p) for label, p in zip(self.scheme.labels, values, strict=True)}
        return table if none is None else table | {NONE_LABEL: float(none)}


def _lattice_dict(lattice: SpotLattice) -> dict[str, Any]:
    return {
        "g1_px": [float(x) for x in lattice.g1_px],
        "g2_px": [float(x) for x in lattice.g2_px],
        "ratio": lattice.ratio,
        "angle_deg": lattice.angle_deg,
        "rms_px": float(lattice.rms_px),
        "n_spots": lattice.n_spots,
    }


@dataclass(frozen=True, eq=False)
class Identification:
    """What a set of patterns of one crystal says.

    Parameters
    ----------
    patterns : tuple of PatternResult
        One for each pattern, in the order given.
    space_groups : SpaceGroupPosterior
        Combined probabilities.
    scheme : PatternScheme
        The classes.
    """

    patterns: tuple[PatternResult, ...]
    space_groups: SpaceGroupPosterior
    scheme: PatternScheme

    @property
    def n_used(self) -> int:
        """Number of patterns that were not refused."""
        return sum(result.used for result in self.patterns)

    @cached_property
    def known_zones(self) -> tuple[Zone | None, ...]:
        """Zone axis of each pattern used, None where it is not certain."""
        zones: list[Zone | None] = []
        for result in (result for result in self.patterns if result.used):
            chance = zone_probabilities(result.class_probabilities, self.space_groups, self.scheme)
            best = int(np.argmax(chance))
            certain = result.none_of_these <= 1 - ZONE_KNOWN and chance[best] >= ZONE_KNOWN
            zones.append(self.scheme.zones[best] if certain else None)
        return tuple(zones)

    @property
    def current_zone(self) -> Zone | None:
        """Zone axis of the last pattern used, where the crystal is taken to be now; None where it is not certain."""
        return self.known_zones[-1] if self.known_zones else None

    @cached_property
    def next_axes(self) -> tuple[NextAxis, ...]:
        """Zone axes not yet seen, ranked by what a pattern on them would tell about the space group."""
        if not self.n_used:
            return ()
        ranked = rank_next_axes(self.space_groups, self.scheme, current_zone=self.current_zone)
        return tuple(axis for axis in ranked if axis.zone not in self.known_zones)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values: the JSON object that the command line prints."""
        found = self.space_groups
        rows = zip(found.groups, found.symbols, found.probabilities, strict=True)
        return {
            "patterns": [result.to_dict() for result in self.patterns],
            "space_groups": [
                {
                    "number": number,
                    "symbol": name,
                    "probability": float(p),
                    "indistinguishable": list(same_patterns(number)),
                }
                for number, name, p in rows
            ]
            if self.n_used
            else [],
            "rule": found.rule,
            "n_used": self.n_used,
            "none_of_these": found.none_of_these if self.n_used else None,
            "next_zone_axes": [
                {"zone": list(axis.zone), "gain_bits": axis.gain_bits, "tilt_deg": axis.tilt_deg}
                for axis in self.next_axes
            ],
            "scheme": self.scheme.version,
        }


def identify_pattern(
    pattern: DiffractionPattern,
    classifier: Classifier,
    *,
    beam_rc: Sequence[float] | None = None,
    min_snr: float = 6.0,
) -> PatternResult:
    """Analyse and classify one pattern; a pattern that cannot be used is a result too.

    Parameters
    ----------
    pattern : DiffractionPattern
        The pattern.
    classifier : Classifier
        The network.
    beam_rc : sequence of 2 float, optional
        Direct beam (row, col) [px], if the user knows it.
    min_snr : float
        Smallest signal to noise ratio of a spot.

    Returns
    -------
    PatternResult
        Classified or refused.
    """
    scheme = classifier.scheme
    try:
        geometry = analyse_pattern(pattern, beam_rc=beam_rc, min_snr=min_snr)
    except PatternRefusedError as refusal:
        return PatternResult(
            pattern,
            scheme,
            reason=refusal.reason,
            detail=refusal.detail,
            beam=refusal.beam,
            spots=refusal.spots,
            notes=pattern.notes,
        )
    image = classifier.training_image(geometry.image, geometry.lattice)
    if not image.any():
        detail = "no diffracted intensity around the direct beam; is the beam that was given right?"
        return PatternResult(
            pattern,
            scheme,
            reason="no lattice",
            detail=detail,
            beam=geometry.beam,
            spots=geometry.spots,
            notes=geometry.notes,
        )
    network = classifier.probabilities(image[None])[0]
    by_lattice = classify_lattice(geometry.lattice, scheme)
    # the alternative "none" was weighed against all classes; of those, the network then chooses by appearance
    gated = network * by_lattice.shape_likelihood
    none = by_lattice.none_of_these
    if gated.sum() <= 0:
        gated, none = network, 1.0
    return PatternResult(
        pattern,
        scheme,
        beam=geometry.beam,
        spots=geometry.spots,
        lattice=geometry.lattice,
        training_image=image,
        network=network,
        lattice_classes=by_lattice,
        class_probabilities=gated / gated.sum(),
        none_of_these=none,
        notes=geometry.notes,
    )


def unreadable_result(
    source: str, frame: int | None, error: Exception, scheme: PatternScheme
) -> PatternResult:
    """Return the result of a file or frame that could not be read, so that it is listed like a refused pattern.

    Parameters
    ----------
    source : str
        Path or name.
    frame : int or None
        Frame, None where the file as a whole cannot be read.
    error : Exception
        What happened.
    scheme : PatternScheme
        The classes.

    Returns
    -------
    PatternResult
        Refused with the reason ``"unreadable"``.
    """
    nothing = DiffractionPattern(np.zeros((1, 1)), source=source, frame=frame)
    return PatternResult(nothing, scheme, reason=UNREADABLE, detail=str(error))


def combine_results(results: Iterable[PatternResult], *, rule: Rule = "product") -> Identification:
    """Combine the results of single patterns of one crystal.

    Parameters
    ----------
    results : iterable of PatternResult
        At least one; refused ones are carried along and not used.
    rule : {"product", "mean"}
        See `napari_sadp.ensemble.combine`.

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
    used = [result for result in results if result.used]
    table = np.array([result.class_probabilities for result in used])
    none = np.array([result.none_of_these for result in used])
    if rule == "product" and used:
        # frames of one zone axis are one piece of evidence, however many there are
        same = _same_axis(used)
        weight = np.array([same == label for label in np.unique(same)], dtype=float)
        weight /= weight.sum(axis=1, keepdims=True)
        table, none = weight @ table, weight @ none
    posterior = replace(combine(table, scheme, rule=rule, none_of_these=none), n_patterns=len(used))
    return Identification(results, posterior, scheme)


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
    weights: Path | str | None = None,
    device: str = "auto",
    beam_rc: Sequence[float] | None = None,
    min_snr: float = 6.0,
    progress: Callable[[PatternResult], None] | None = None,
) -> Identification:
    """Identify a crystal from patterns on one or more zone axes.

    Parameters
    ----------
    patterns : iterable of DiffractionPattern
        Patterns of one crystal.
    rule : {"product", "mean"}
        How to combine them.
    weights : path-like, optional
        Weight file; the bundled network by default.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    beam_rc : sequence of 2 float, optional
        Direct beam (row, col) [px] of all patterns, if the user knows it.
    min_snr : float
        Smallest signal to noise ratio of a spot.
    progress : callable, optional
        Called with each result; an exception that it raises stops the work.

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
    from napari_sadp.models.predict import load_classifier

    check_option("rule", rule, RULES)
    classifier = load_classifier(weights, device)
    results = []
    for pattern in patterns:
        result = identify_pattern(pattern, classifier, beam_rc=beam_rc, min_snr=min_snr)
        results.append(result)
        if progress is not None:
            progress(result)
    return combine_results(results, rule=rule)
