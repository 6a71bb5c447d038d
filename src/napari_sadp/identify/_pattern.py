"""One pattern through the chain: geometry, nodes, network, classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit

from napari_sadp._validate import check_range
from napari_sadp.ensemble.constants import PRIOR_NONE
from napari_sadp.ensemble.lattice_classes import classify_lattice
from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.edit import Edits, analyse_edited
from napari_sadp.geometry.faint import without_faint
from napari_sadp.geometry.grains import leftover_spots
from napari_sadp.identify._results import PatternResult
from napari_sadp.pattern import DiffractionPattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.ensemble.lattice_classes import LatticeClasses
    from napari_sadp.geometry.analyse import PatternGeometry
    from napari_sadp.geometry.grains import Leftover
    from napari_sadp.geometry.results import SpotLattice
    from napari_sadp.labels.scheme import PatternScheme
    from napari_sadp.models.predict import Classifier

#: Reason of a file or frame that could not be read.
UNREADABLE = "unreadable"
#: Network and nodes look at the same spots, so that their evidence is not independent and must not count twice: a geometric
#: pool. On 1 000 frames of benchmarks/class_pool.py smaller exponents lose less (log loss 0.30, not 0.32, at 0.5 and 0.3), but name fewer right
#: and state too little of medium frames. A network for nodes that are drawn anew, pooled as a third voice, gained nothing at any exponent: its
#: evidence is that of the nodes.
NETWORK_WEIGHT = 0.7
NODE_WEIGHT = 0.3
#: How much a coarser lattice, found where weak spots were missed, counts against that of the class. The network has learnt to see such
#: spots: on these frames the log loss of the class is 0.38 at 0, 0.33 at 0.03, 0.32 from 0.2 on. It is no better
#: in proportion to the distrust of the lattice (`lattice_trust`).
MISSED_WEIGHT = 0.3
#: How much of the ln odds of the network's outlier score counts. By a trial that no script repeats, on frames of training structures with
#: other elements, made as `napari-sadp evaluate` makes them (1 066 of medium strength, 600 of the article's condition, 300 mild ones, 200 of two crystals, 200 of
#: non-cubic lattices), *none* is the answer to 22 and 2 of the first two at 0, 24 and 3 at 0.1, 29 and 7 at 0.3; the area under the curve of two
#: crystals against mild ones is 0.940, 0.949, 0.941; of the non-cubic lattices all are *none* at any weight, by their shape.
OUTLIER_WEIGHT = 0.1
#: ln odds of two crystals, for the share of the amplitude that lies on no node; and for a lattice of their own beyond doubt. Between the
#: two decimal logarithms of its number of false alarms `OWN_LATTICE`, the one goes over into the other. Frequencies among simulated frames
#: of training structures (benchmarks/none_pool.py).
LEFTOVER_LOG_ODDS: tuple[tuple[float, ...], tuple[float, ...]] = (
    (0.0, 0.02, 0.1, 0.3),
    (-1.7, 0.0, 1.2, 2.0),
)
SECOND_LATTICE_LOG_ODDS = 4.0
OWN_LATTICE = (-8.0, -2.0)
#: ln odds that a lattice is right: a constant, and weights of the logarithms of (minus the decimal logarithm of the number of false
#: alarms), (the share of the amplitude left over), and (the size of a spot in a frame of 256 px). A logistic fit to 623 lattices in simulated
#: frames at three strengths, of which 96 % were right (benchmarks/lattice_trust.py). Large spots hide those between them: a lattice that
#: is too coarse is the commonest error, and what chance makes is rarer than the number says.
LATTICE_TRUST = (-0.63, 0.87, -0.50, -1.06)
#: The share left over has this much added; nothing is more certain than this.
_LEFT_OVER, _MOST_TRUST = 0.01, 0.998
#: A lattice that is less certain is pointed out.
_DOUBTFUL = 0.9


def pool_classes(network: np.ndarray, by_lattice: LatticeClasses) -> np.ndarray | None:
    """Pool what the network and the nodes say about the class, and the shape of the lattice.

    Parameters
    ----------
    network : (n_classes,) ndarray of float
        P(class) from the network, equal prior.
    by_lattice : LatticeClasses
        Likelihoods of shape and nodes.

    Returns
    -------
    (n_classes,) ndarray of float64 or None
        Sum 1; None where the shape is that of no class.
    """
    nodes = np.maximum(by_lattice.node_likelihood, 1e-12)
    own = (1 - MISSED_WEIGHT) * nodes**NODE_WEIGHT * by_lattice.shape_likelihood
    # the nodes of a lattice that was not found are not known
    missed = MISSED_WEIGHT * by_lattice.missed_likelihood
    pooled = np.maximum(network, 1e-12) ** NETWORK_WEIGHT * (own + missed)
    total = pooled.sum()
    return pooled / total if total > 0 else None


def leftover_log_odds(leftover: Leftover) -> float:
    """Return the ln odds that spots are left over because a second crystal is in the pattern.

    Parameters
    ----------
    leftover : Leftover
        What the lattice leaves over.

    Returns
    -------
    float
        ln of P(such spots | two crystals) over P(such spots | one).
    """
    by_share = float(np.interp(leftover.unexplained_share, *LEFTOVER_LOG_ODDS))
    if leftover.turned_deg is not None:
        return by_share  # a second grain of the same crystal, on the same axis: the class is that of both
    return float(np.interp(leftover.log_nfa, OWN_LATTICE, (SECOND_LATTICE_LOG_ODDS, by_share)))


def lattice_trust(lattice: SpotLattice, leftover: Leftover, side_px: int) -> float:
    """Return how probable it is that a lattice is the right one.

    Parameters
    ----------
    lattice : SpotLattice
        The lattice.
    leftover : Leftover
        What it leaves over.
    side_px : int
        Shorter side of the frame [px].

    Returns
    -------
    float
        The share of such lattices that were right in simulated frames; 1 where the user placed it.
    """
    if np.isnan(lattice.log_nfa):
        return 1.0
    features = trust_features(lattice.log_nfa, leftover.share, lattice.spots.sigma_px, side_px)
    odds = LATTICE_TRUST[0] + features @ np.array(LATTICE_TRUST[1:])
    return min(float(expit(odds)), _MOST_TRUST)


def trust_features(log_nfa: float, left_over: float, sigma_px: float, side_px: int) -> np.ndarray:
    """Return what `LATTICE_TRUST` weighs (3,): logarithms of false alarms, share of the amplitude left over, and relative size of a spot."""
    chance = np.log(max(-log_nfa, 2.0))
    return np.array([chance, np.log(min(left_over, 1.0) + _LEFT_OVER), np.log(sigma_px * 256 / side_px)])


def combine_none(
    by_lattice: float,
    log_odds: float | None,
    by_leftover: float | None = None,
    *,
    prior: float = PRIOR_NONE,
    weight: float = OUTLIER_WEIGHT,
) -> float:
    """Combine what the lattice, the outlier score of the network and the spots left over say about *none of these*.

    The lattice knows a shape that is that of no class. An image of no class in spite of its shape is one of two crystals, or of
    something else: what the network and the spots left over say of that adds up. A pattern is of a class if neither objects.

    Parameters
    ----------
    by_lattice : float
        P(no class of the scheme has this shape).
    log_odds : float or None
        ln of P(image | of no class) over P(image | of a class) by the network; None where its weights have no such score.
    by_leftover : float, optional
        ln odds of a second crystal, see `leftover_log_odds`.
    prior : float
        P(image of no class) before it is looked at.
    weight : float
        Share of the ln odds that counts.

    Returns
    -------
    float
        P(none of these).
    """
    if log_odds is None and by_leftover is None:
        return by_lattice
    evidence = (0.0 if log_odds is None else weight * log_odds) + (
        0.0 if by_leftover is None else by_leftover
    )
    return 1 - (1 - by_lattice) * (1 - float(expit(logit(prior) + evidence)))


def identify_pattern(
    pattern: DiffractionPattern,
    classifier: Classifier,
    *,
    beam_rc: Sequence[float] | None = None,
    mask: np.ndarray | None = None,
    edits: Edits | None = None,
    min_snr: float = 6.0,
    faintest: float = 0.0,
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
    mask : (n_rows, n_cols) ndarray of bool, optional
        True where the user knows that the data mean nothing.
    edits : Edits, optional
        Spots and lattice by the user's hand too, in place of `beam_rc` and `mask`.
    min_snr : float
        Smallest signal to noise ratio of a spot.
    faintest : float
        Intensity of the weakest spot that counts, over that of the strongest diffracted beam; see
        `napari_sadp.geometry.faint.without_faint`.

    Returns
    -------
    PatternResult
        Classified or refused.

    Raises
    ------
    ValueError
        If a parameter is out of range, or `edits` are given with another beam or mask.
    """
    measured = measure_pattern(
        pattern,
        classifier,
        beam_rc=beam_rc,
        mask=mask,
        edits=edits,
        min_snr=min_snr,
        faintest=faintest,
    )
    return classify_results([measured], classifier)[0]


def measure_pattern(
    pattern: DiffractionPattern,
    classifier: Classifier,
    *,
    beam_rc: Sequence[float] | None = None,
    mask: np.ndarray | None = None,
    edits: Edits | None = None,
    min_snr: float = 6.0,
    faintest: float = 0.0,
) -> PatternResult:
    """Bring one pattern to where `classify_results` takes over; parameters and errors are those of `identify_pattern`.

    Returns
    -------
    PatternResult
        With the image for the network and no class yet, or refused.
    """
    if edits is not None and (beam_rc is not None or mask is not None):
        raise ValueError("edits are given with beam_rc or mask, expected these inside of edits")
    check_range("faintest", faintest, 0.0, 0.5)
    try:
        geometry = analyse_edited(
            pattern, Edits(beam_rc=beam_rc, mask=mask) if edits is None else edits, min_snr=min_snr
        )
    except PatternRefusedError as refusal:
        return refused_result(pattern, refusal, classifier.scheme)
    result = _measured(without_faint(geometry, faintest), classifier)
    # as it was given: the mask of the user is part of the geometry
    return replace(result, pattern=pattern)


def refused_result(
    pattern: DiffractionPattern, refusal: PatternRefusedError, scheme: PatternScheme
) -> PatternResult:
    """Return the result of a pattern that the geometry refuses.

    Parameters
    ----------
    pattern : DiffractionPattern
        The pattern.
    refusal : PatternRefusedError
        Why, and what was found until then.
    scheme : PatternScheme
        The classes.

    Returns
    -------
    PatternResult
        Refused.
    """
    return PatternResult(
        pattern,
        scheme,
        reason=refusal.reason,
        detail=refusal.detail,
        beam=refusal.beam,
        spots=refusal.spots,
        notes=(*pattern.notes, *refusal.notes),
        left_out=refusal.mask,
    )


def classify_geometry(geometry: PatternGeometry, classifier: Classifier) -> PatternResult:
    """Classify a pattern whose lattice is known.

    Parameters
    ----------
    geometry : PatternGeometry
        From `analyse_pattern`.
    classifier : Classifier
        The network.

    Returns
    -------
    PatternResult
        Classified; refused where nothing is around the direct beam.
    """
    return classify_results([_measured(geometry, classifier)], classifier)[0]


def classify_results(results: Sequence[PatternResult], classifier: Classifier) -> list[PatternResult]:
    """Classify measured patterns; their images go through the network as batches.

    Parameters
    ----------
    results : sequence of PatternResult
        From `measure_pattern`, with the same network.
    classifier : Classifier
        The network.

    Returns
    -------
    list of PatternResult
        In their order; refused ones as they are.
    """
    waiting = [k for k, result in enumerate(results) if result.training_image is not None]
    found = list(results)
    if not waiting:
        return found
    predicted = classifier.predict(np.stack([results[k].training_image for k in waiting]))
    odds = predicted.outlier_log_odds
    for row, k in enumerate(waiting):
        found[k] = _with_network(
            results[k], predicted.probabilities[row], None if odds is None else float(odds[row])
        )
    return found


def _measured(geometry: PatternGeometry, classifier: Classifier) -> PatternResult:
    """Return a pattern whose lattice is known, with the image for the network; refused where that is dark."""
    image = classifier.training_image(geometry)
    result = PatternResult(
        geometry.pattern,
        classifier.scheme,
        beam=geometry.beam,
        spots=geometry.spots,
        notes=geometry.notes,
        left_out=geometry.mask,
    )
    if not image.any():
        detail = "no diffracted intensity around the direct beam; is the beam that was given right?"
        return replace(result, reason="no lattice", detail=detail)
    return replace(result, lattice=geometry.lattice, nodes=geometry.nodes, training_image=image)


def _with_network(result: PatternResult, network: np.ndarray, log_odds: float | None) -> PatternResult:
    """Return a measured pattern with its class: what network and lattice say together."""
    by_lattice = classify_lattice(result.lattice, result.scheme, result.nodes)
    # the alternative "none" was weighed against all classes by the shape, and by the image where the network can; appearance then
    # chooses among them
    pooled = pool_classes(network, by_lattice)
    left = leftover_spots(result.lattice)
    none = combine_none(by_lattice.none_of_these, log_odds, leftover_log_odds(left))
    if pooled is None:
        pooled, none = network, 1.0
    trust = lattice_trust(result.lattice, left, min(result.left_out.shape))
    doubt = f"of lattices like this one {100 * trust:.0f} % were right in simulated frames"
    return replace(
        result,
        network=network,
        lattice_classes=by_lattice,
        class_probabilities=pooled,
        none_of_these=none,
        lattice_trust=trust,
        notes=(*result.notes, doubt) if trust < _DOUBTFUL else result.notes,
        leftover=left,
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
