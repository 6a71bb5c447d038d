"""What the chain returns: one value for each pattern, one for the crystal."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp.ensemble.ambiguity import indistinguishable, same_patterns
from napari_sadp.ensemble.constants import PRIOR_NONE
from napari_sadp.ensemble.indexing import Indexing, index_lattice
from napari_sadp.ensemble.next_axis import ZONE_KNOWN, NextAxis, rank_next_axes
from napari_sadp.identify._as_dict import (
    calibrated_dict,
    lattice_dict,
    leftover_dict,
    node_dicts,
    spot_dicts,
)
from napari_sadp.labels.spacegroups import CUBIC_GROUPS, behaviours, symbol, zone_name

if TYPE_CHECKING:
    from napari_sadp.ensemble.combine import SpaceGroupPosterior
    from napari_sadp.ensemble.lattice_classes import LatticeClasses
    from napari_sadp.ensemble.priors import GroupPrior
    from napari_sadp.geometry.grains import Leftover
    from napari_sadp.geometry.nodes import NodeMap
    from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList
    from napari_sadp.labels.scheme import PatternScheme, Zone
    from napari_sadp.pattern import DiffractionPattern

#: Label of a pattern whose lattice fits no class of the scheme.
NONE_LABEL = "none"
#: Groups with at least this part of the probability of the best are named together.
TIE = 0.85
#: Zone axes below this probability are not listed.
_FAINT_ZONE = 0.005


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
    nodes : NodeMap or None
        What every node of the lattice shows.
    lattice_classes : LatticeClasses or None
        What the lattice alone says: its shape, its spots and its gaps.
    class_probabilities : (n_classes,) ndarray of float64 or None
        Lattice and network together, given that the lattice is right and of one of the classes; sum to 1.
    none_of_these : float
        Probability that the lattice fits no class, given that it is right.
    lattice_trust : float
        Probability that the lattice is right; what is stated of the pattern, `stated`, takes it into account.
    notes : tuple of str
        What was decided on the way.
    left_out : (n_rows, n_cols) ndarray of bool or None
        Pixels that did not count: masked by the user or the file, or found to mean nothing, as those behind a beam stop.
    leftover : Leftover or None
        Spots on no node of the lattice, as a second grain makes them; None when refused.
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
    nodes: NodeMap | None = None
    lattice_classes: LatticeClasses | None = None
    class_probabilities: np.ndarray | None = None
    none_of_these: float = 0.0
    lattice_trust: float = 1.0
    notes: tuple[str, ...] = field(default_factory=tuple)
    left_out: np.ndarray | None = None
    leftover: Leftover | None = None

    @property
    def used(self) -> bool:
        """Whether the pattern was classified."""
        return self.class_probabilities is not None

    @cached_property
    def stated(self) -> np.ndarray | None:
        """Probability of each class and, last, of none of them (n_classes + 1,); None when refused.

        Of a lattice that is wrong, nothing follows for the class.
        """
        if self.class_probabilities is None:
            return None
        fits = np.append((1 - self.none_of_these) * self.class_probabilities, self.none_of_these)
        usual = np.append((1 - PRIOR_NONE) * self.scheme.class_given_group.mean(axis=0), PRIOR_NONE)
        return self.lattice_trust * fits + (1 - self.lattice_trust) * usual

    @property
    def best_class(self) -> tuple[str, float] | None:
        """Most probable class and its probability, ``("none", p)`` where no class fits; None when refused."""
        if self.class_probabilities is None:
            return None
        best = int(np.argmax(self.stated))
        return (*self.scheme.labels, NONE_LABEL)[best], float(self.stated[best])

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
            "beam_score": None if self.beam is None else float(self.beam.score),
            "beam_method": None if self.beam is None else self.beam.method,
            "spots": [] if self.spots is None else spot_dicts(self.spots, self.lattice),
            "lattice": None if self.lattice is None else lattice_dict(self.lattice),
            "leftover": None if self.leftover is None else leftover_dict(self.leftover),
            "nodes": [] if self.nodes is None else node_dicts(self.nodes),
            "g1_inv_angstrom": self.g1_inv_angstrom,
            "calibrated": calibrated_dict(self),
            "class": {"label": best[0], "probability": best[1]} if best else None,
            "class_probabilities": self._by_label(self.stated),
            "network_probabilities": self._by_label(self.network),
            "lattice_probabilities": self._by_label(
                None if self.lattice_classes is None else self.lattice_classes.probabilities
            ),
            "none_of_these": float(self.stated[-1]) if self.used else None,
            "lattice_trust": float(self.lattice_trust) if self.used else None,
            "pixel_size_inv_angstrom": self.pattern.pixel_size_inv_angstrom,
            "stage_deg": None if self.pattern.stage_deg is None else list(self.pattern.stage_deg),
            "voltage_kv": self.pattern.voltage_kv,
            "camera_length_mm": self.pattern.camera_length_mm,
            "notes": list(self.notes),
        }

    def _by_label(self, values: np.ndarray | None) -> dict[str, float] | None:
        """Return probabilities of the classes, and of none of them where there is one more, by name."""
        if values is None:
            return None
        labels = (*self.scheme.labels, NONE_LABEL)[: len(values)]
        return {label: float(p) for label, p in zip(labels, values, strict=True)}


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
    zones : (n_used, n_zones) ndarray of float64 or None
        Probabilities of the zone axes of each pattern used, given all patterns; None where none was used.
    zones_of_group : (n_groups, n_used, n_zones) ndarray of float64 or None
        The same, given each group of the scheme.
    outlier : (n_used,) ndarray of float64 or None
        Probability that a pattern has nothing to do with the crystal; None where the rule does not say.
    shared_scale : float or None
        Probability that the patterns share a camera constant; None where that was no question.
    prior : GroupPrior or None
        What was known beforehand.
    messages : tuple of str
        What the user should know: what could not be used, patterns that do not fit the others.
    """

    patterns: tuple[PatternResult, ...]
    space_groups: SpaceGroupPosterior
    scheme: PatternScheme
    zones: np.ndarray | None = None
    zones_of_group: np.ndarray | None = None
    outlier: np.ndarray | None = None
    shared_scale: float | None = None
    prior: GroupPrior | None = None
    messages: tuple[str, ...] = ()

    @property
    def n_used(self) -> int:
        """Number of patterns that were not refused."""
        return sum(result.used for result in self.patterns)

    @cached_property
    def used(self) -> tuple[PatternResult, ...]:
        """The patterns that were not refused."""
        return tuple(result for result in self.patterns if result.used)

    @cached_property
    def known_zones(self) -> tuple[Zone | None, ...]:
        """Zone axis of each pattern used, None where it is not certain."""
        if self.zones is None:
            return ()
        best = self.zones.argmax(axis=1)
        sure = self.zones.max(axis=1) * (1 - self._strange) >= ZONE_KNOWN
        return tuple(self.scheme.zones[i] if yes else None for i, yes in zip(best, sure, strict=True))

    @property
    def _strange(self) -> np.ndarray:
        """Probability for each pattern used that it is on no axis of the scheme."""
        return np.array([result.stated[-1] for result in self.used])

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

    @property
    def leading_groups(self) -> tuple[int, ...]:
        """The most probable space group, or all that are nearly as probable."""
        groups = self.space_groups
        pairs = zip(groups.groups, groups.probabilities, strict=True)
        return tuple(sorted(n for n, p in pairs if p > TIE * groups.probabilities[0]))

    @cached_property
    def extinction_classes(self) -> tuple[tuple[tuple[int, ...], float], ...]:
        """Sets of groups with the same reflection conditions, all cubic ones included, with their probabilities."""
        sets = indistinguishable(self.scheme, self.space_groups)
        return tuple((_with_alike(item.groups), float(item.probability)) for item in sets)

    @property
    def indistinguishable(self) -> tuple[int, ...]:
        """Space groups that these data cannot separate from the most probable one, itself included."""
        return _with_alike(self.leading_groups) if self.n_used else ()

    @property
    def indistinguishable_text(self) -> str:
        """The same in words."""
        if not self.n_used:
            return "No pattern could be used: nothing is separated."
        if self.space_groups.none_of_these > 0.5:
            return "The lattices fit none of these groups: nothing is said about which of them are separated."
        leaders = self.leading_groups
        alike = [(leader, _in_words(_with_alike((leader,)))) for leader in leaders]
        if len(leaders) == 1:
            others = same_patterns(leaders[0]) if leaders[0] in CUBIC_GROUPS else ()
            if not others:
                return f"No other cubic group gives the patterns of {leaders[0]} on every axis."
            return (
                f"{alike[0][1]} give the same patterns on every axis: spots and gaps cannot separate them, only intensities, "
                "convergent-beam symmetry or chemistry can."
            )
        same = "; ".join(text for _, text in alike)
        return (
            f"These patterns do not separate {_in_words(leaders)}; another zone axis may. The groups that no axis separates by "
            f"spots and gaps: {same}."
        )

    def zone_axes(self, index: int) -> list[tuple[Zone, float]]:
        """Return the zone axes of a pattern used, most probable first, with their probabilities.

        Parameters
        ----------
        index : int
            Position among the patterns used.

        Returns
        -------
        list of (zone axis, float)
            Sum up to one less `none_of_these` of the pattern, but for faint ones.
        """
        chance = self.zones[index] * (1 - self._strange[index])
        order = np.argsort(-chance.round(9), kind="stable")
        return [(self.scheme.zones[i], float(chance[i])) for i in order if chance[i] >= _FAINT_ZONE]

    def indexing(self, index: int) -> Indexing | None:
        """Return the Miller indices of a pattern used, under the best hypothesis about group and zone axis.

        Parameters
        ----------
        index : int
            Position among the patterns used.

        Returns
        -------
        Indexing or None
            None where no likely hypothesis fits the lattice.
        """
        result, found = self.used[index], self.space_groups
        if result.lattice is None or self.zones_of_group is None or result.none_of_these > 0.5:
            return None
        chance = (
            self.zones_of_group[:, index]
            * np.array([found.probability(n) for n in self.scheme.groups])[:, None]
        )
        for cell in np.argsort(-chance, axis=None)[:12]:
            group, zone = np.unravel_index(cell, chance.shape)
            shown = result.class_probabilities
            kinds = sorted(
                behaviours(self.scheme.groups[group]),
                key=lambda b, z=zone: -shown[self.scheme.index_of[b.name, self.scheme.zones[z]]],
            )
            done = index_lattice(result.lattice, kinds[0], self.scheme.zones[zone], result.nodes)
            if done is not None:
                return done
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values: the JSON object that the command line prints."""
        found, some = self.space_groups, bool(self.n_used)
        rows = zip(found.groups, found.symbols, found.probabilities, strict=True)
        patterns, number = [], 0
        for result in self.patterns:
            extra: dict[str, Any] = {"zone_axes": [], "indexing": None, "outlier": None}
            if result.used:
                extra = self._pattern_dict(number)
                number += 1
            patterns.append(result.to_dict() | extra)
        return {
            "patterns": patterns,
            "space_groups": [
                {
                    "number": group,
                    "symbol": name,
                    "probability": float(p),
                    "indistinguishable": list(same_patterns(group)) if group in CUBIC_GROUPS else [],
                }
                for group, name, p in rows
            ]
            if some
            else [],
            "extinction_classes": [
                {"groups": list(groups), "probability": p} for groups, p in self.extinction_classes
            ]
            if some
            else [],
            "indistinguishable": list(self.indistinguishable),
            "indistinguishable_text": self.indistinguishable_text,
            "rule": found.rule,
            "n_used": self.n_used,
            "none_of_these": found.none_of_these if some else None,
            "shared_camera_constant": self.shared_scale,
            "next_zone_axes": [
                {"zone": list(axis.zone), "gain_bits": axis.gain_bits, "tilt_deg": axis.tilt_deg}
                for axis in self.next_axes
            ],
            "phases": list(self.prior.phases) if self.prior is not None else [],
            "messages": list(self.messages),
            "scheme": self.scheme.version,
        }

    def _pattern_dict(self, index: int) -> dict[str, Any]:
        axes = [{"zone": list(zone), "probability": p} for zone, p in self.zone_axes(index)]
        done, lattice = self.indexing(index), self.used[index].lattice
        indexing = None
        if done is not None and lattice is not None:
            rows = np.flatnonzero(lattice.indexed & lattice.indices.any(axis=1))
            spots = zip(
                lattice.spots.rc[rows].tolist(), done.hkl(lattice.indices[rows]).tolist(), strict=True
            )
            indexing = {
                "group": done.behaviour.name,
                "zone": list(done.zone),
                "g1_hkl": done.basis_hkl[0].tolist(),
                "g2_hkl": done.basis_hkl[1].tolist(),
                "spots": [{"rc": rc, "hkl": hkl} for rc, hkl in spots],
            }
        outlier = None if self.outlier is None else float(self.outlier[index])
        return {"zone_axes": axes, "indexing": indexing, "outlier": outlier}


def zone_text(found: Identification, index: int) -> str:
    """Return the likely zone axes of a pattern used as text: ``"[013] 92 %"``, two of them where the first is not sure."""
    axes = found.zone_axes(index)
    count = 1 if axes and axes[0][1] >= ZONE_KNOWN else 3
    return ", ".join(f"{zone_name(zone)} {100 * p:.0f} %" for zone, p in axes[:count]) or "none"


def group_names(groups: tuple[int, ...]) -> str:
    """Return groups with their symbols as text."""
    return ", ".join(f"{number} {symbol(number)}" for number in groups)


def _with_alike(groups: tuple[int, ...]) -> tuple[int, ...]:
    """Return groups, each followed by those with the same patterns on every axis."""
    found: dict[int, None] = {}
    for number in groups:
        found |= dict.fromkeys((number, *(same_patterns(number) if number in CUBIC_GROUPS else ())))
    return tuple(found)


def _in_words(groups: tuple[int, ...]) -> str:
    names = list(map(str, groups))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
