"""How often beam and lattice are found on simulated patterns with the imperfections of a camera, and invented where there is none.

Run with ``OMP_NUM_THREADS=1 python benchmarks/geometry.py [--patterns 3000] [--jobs 2] [--rows FILE] [--peers PYTHON]``. Each pattern is drawn from a seed: a
cubic structure of the catalogue whose formula is kept from all training, one of the sixteen zone axes, a scale, and imperfections at one of three strengths.

The true lattice is that of the spots that a camera could see: the one found must hold every spot in view with a signal to
noise ratio of `CLEAR` or more (of an ideal filter that knows where to look), and must be held by the lattice of all with
`FAINT` or more. Its vectors must agree within 1 % in length and 0.5 deg in direction.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise
from multiprocessing import Pool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _blanks import BLANKS, draw_blank
from _timing import machine, write_lines
from scipy import ndimage

from napari_sadp.dataset.crystals import is_held_out
from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.grains import leftover_spots
from napari_sadp.geometry.lattice import reduce_basis
from napari_sadp.labels.lattice2d import span
from napari_sadp.labels.spacegroups import CUBIC_ZONE_AXES
from napari_sadp.pattern import DiffractionPattern
from napari_sadp.simulation.catalogue import load_catalogue
from napari_sadp.simulation.imperfections import (
    ImperfectPattern,
    simulate_imperfect,
    spot_spacing,
    spot_visibility,
)
from napari_sadp.simulation.zone_pattern import PatternSettings, zone_beams

if TYPE_CHECKING:
    from napari_sadp.simulation.catalogue import CatalogueEntry
    from napari_sadp.simulation.crystal import Crystal

STRENGTHS = ("mild", "medium", "strong")
CLEAR, FAINT = 12.0, 3.0
#: Fewer clear spots than this, or all on two rows, are no pattern that anyone could index.
ENOUGH = 6
#: Limits of the table by the number of false alarms.
LOG_NFA = (0.0, -5.0, -8.0, -12.0, -20.0, -40.0, -80.0, -np.inf)
#: Strength (empty for a frame without a lattice), seed, and the folder that the peers read from.
Job = tuple[str, int, str | None]


@cache
def held_out_entries() -> list[CatalogueEntry]:
    """Return the structures of the catalogue whose formulas are kept from all training."""
    return [entry for entry in load_catalogue() if is_held_out(entry)]


def draw_case(strength: str, seed: int) -> ImperfectPattern:
    """Return a pattern with imperfections, drawn from a seed."""
    rng = np.random.default_rng([seed, STRENGTHS.index(strength)])
    entries = held_out_entries()
    while True:
        entry = entries[int(rng.integers(len(entries)))]
        zone = CUBIC_ZONE_AXES[int(rng.integers(len(CUBIC_ZONE_AXES)))]
        if entry.n_atoms > 120:
            continue
        crystal = entry.crystal()
        # the spacing is a twentieth to a sixth of the frame
        settings = draw_settings(crystal, zone, int(rng.choice([256, 256, 512])), (0.05, 0.16), rng)
        if settings is None:
            continue
        return simulate_imperfect(crystal, zone, settings, strength, seed=int(rng.integers(2**31)))


def draw_settings(
    crystal: Crystal,
    zone: tuple[int, int, int],
    size: int,
    spacing: tuple[float, float],
    rng: np.random.Generator,
) -> PatternSettings | None:
    """Return a voltage, and a scale at which the spacing of the spots is a share of the frame; None if too little diffracts."""
    voltage = float(rng.choice([80.0, 120.0, 200.0, 300.0]))
    try:
        spots, _ = zone_beams(crystal, zone, PatternSettings(voltage_kv=voltage, g_max_inv_angstrom=1.2))
    except ValueError:  # nothing of it diffracts on this axis
        return None
    seen = spots.intensity > 1e-3
    if np.count_nonzero(seen) < ENOUGH:
        return None
    pixel = spot_spacing(spots.g_xy[seen], spots.intensity[seen]) / (size * rng.uniform(*spacing))
    return PatternSettings(
        voltage_kv=voltage, size=size, pixel_size_inv_angstrom=pixel, g_max_inv_angstrom=2.0
    )


def true_lattice(case: ImperfectPattern) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return a basis (2, 2) [px], the spans of the clear and of the faint spots in it (None if flat), and how many are clear."""
    from napari_sadp.labels.lattice2d import planar_basis

    plane = planar_basis(case.spots.zone)
    snr = spot_visibility(case)
    in_zone = case.spots.hkl @ np.array(case.spots.zone) == 0
    nodes = np.rint(case.spots.hkl @ np.linalg.pinv(plane.astype(float))).astype(int)
    # the positions before distortion follow from those of two beams
    g = case.spots.g_xy[in_zone]
    to_xy = np.linalg.lstsq(nodes[in_zone].astype(float), g, rcond=None)[0]
    perfect = np.stack([-to_xy[:, 1], to_xy[:, 0]], axis=1) / case.settings.pixel_size()
    basis = perfect @ case.affine.T
    clear, faint = (snr >= CLEAR) & in_zone, (snr >= FAINT) & in_zone
    return basis, span(nodes[clear]), span(nodes[faint]), int(clear.sum())


def contains(outer: np.ndarray, inner: np.ndarray) -> bool:
    """Tell whether the lattice of the rows of one matrix holds that of another."""
    change = inner @ np.linalg.inv(outer.astype(float))
    return bool(np.abs(change - np.round(change)).max() < 1e-6)


def judge_lattice(found: np.ndarray, case: ImperfectPattern) -> tuple[bool, bool, float, float]:
    """Return (right lattice, right type, largest error of a length, of a direction [deg])."""
    basis, clear, faint, _ = true_lattice(case)
    if abs(np.linalg.det(basis)) < 1:  # too few spots in the frame to tell
        return False, False, np.inf, np.inf
    change = found @ np.linalg.inv(basis)
    whole = np.round(change)
    if (
        clear is None
        or faint is None
        or abs(np.linalg.det(whole)) < 0.5
        or np.abs(change - whole).max() > 0.2
    ):
        return False, False, np.inf, np.inf
    whole = whole.astype(int)
    right = contains(whole, clear) and contains(faint, whole)
    true = whole @ basis
    length = np.abs(np.linalg.norm(found, axis=1) / np.linalg.norm(true, axis=1) - 1).max()
    cosine = (found * true).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(true, axis=1)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1))).max()
    return right, right, float(length), float(angle)


def perfect_type(case: ImperfectPattern, found: np.ndarray) -> str:
    """Return the type A to D of the lattice that was found, as it is before distortion."""
    basis = true_lattice(case)[0]
    whole = np.round(found @ np.linalg.inv(basis))
    a, b = reduce_basis(whole @ basis @ np.linalg.inv(case.affine).T)
    ratio, cosine = np.linalg.norm(b) / np.linalg.norm(a), abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b)
    if cosine < 1e-3:
        return "A" if ratio < 1.001 else "B"
    return "C" if ratio < 1.001 and abs(cosine - 0.5) < 1e-3 else "D"


def run_case(job: Job) -> dict[str, Any]:
    """Analyse one pattern; return what came of it."""
    strength, seed, folder = job
    case = draw_case(strength, seed)
    _, clear, _, n_clear = true_lattice(case)
    row: dict[str, Any] = {
        "strength": strength,
        "seed": seed,
        "size": case.settings.size,
        "name": case.pattern.source,
        "solvable": bool(clear is not None and n_clear >= ENOUGH and _rows(case) >= 3),
    }
    pattern = DiffractionPattern(case.pattern.data, source=case.pattern.source)
    inside = bool(np.all((case.beam_rc >= 0) & (case.beam_rc <= case.settings.size - 1)))
    row["beam_inside"] = inside
    start = time.process_time()
    try:
        geometry = analyse_pattern(pattern)
    except PatternRefusedError as error:
        row["seconds"] = time.process_time() - start
        row["refusal"] = error.reason
        row["detail"] = error.detail
        if error.beam is not None:
            row["beam_miss"] = float(np.linalg.norm(error.beam.rc - case.beam_rc))
    except Exception as error:  # noqa: BLE001 - a crash is a result to report, not the end of an hour's run
        row |= {"seconds": time.process_time() - start, "refusal": "crash", "detail": repr(error)}
    else:
        row["seconds"] = time.process_time() - start
        lattice = geometry.lattice
        found = np.stack([lattice.g1_px, lattice.g2_px])
        row["beam_miss"] = float(np.linalg.norm(geometry.beam.rc - case.beam_rc))
        row |= {"log_nfa": lattice.log_nfa, "left_over": leftover_spots(lattice).share}
        row["sigma_px"] = lattice.spots.sigma_px
        row["right"], _, row["length_error"], row["angle_error"] = judge_lattice(found, case)
        if row["right"]:
            chances = lattice.type_probabilities()
            row["type"], row["true_type"] = max(chances, key=chances.get), perfect_type(case, found)
            row["type_p"] = chances[row["true_type"]]
    data = pattern.data
    smooth = ndimage.gaussian_filter(ndimage.median_filter(data, 3), 2.0)
    peak = np.array(np.unravel_index(np.argmax(smooth), data.shape))
    row["brightest_miss"] = float(np.linalg.norm(peak - case.beam_rc))
    total = data - np.median(data)
    total = np.clip(total, 0, None)
    mass = (
        np.array([(total.sum(axis=1 - axis) @ np.arange(data.shape[axis])) for axis in (0, 1)]) / total.sum()
    )
    row["mass_miss"] = float(np.linalg.norm(mass - case.beam_rc))
    if folder is not None:
        basis, clear, _, _ = true_lattice(case)
        spacing = spot_spacing(case.rc - case.beam_rc, case.spots.intensity)
        radius = max(1.2 * case.parameters["spot_sigma"], case.parameters["disc_radius"]) * spacing
        lattice = basis if clear is None else clear @ basis
        np.savez(
            Path(folder) / f"{strength}_{seed}.npz",
            data=data,
            beam=case.beam_rc,
            basis=lattice,
            radius=radius,
        )
    return row


def _rows(case: ImperfectPattern) -> int:
    """Return the smallest number of rows on which the clear spots lie, over the directions of short nodes."""
    nodes = np.rint(case.spots.hkl @ np.linalg.pinv(_plane(case).astype(float))).astype(int)
    nodes = np.concatenate([nodes[spot_visibility(case) >= CLEAR], [[0, 0]]])
    return min(
        len(np.unique(nodes @ np.array(direction)))
        for direction in ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))
    )


def _plane(case: ImperfectPattern) -> np.ndarray:
    from napari_sadp.labels.lattice2d import planar_basis

    return planar_basis(case.spots.zone)


def run_blank(seed: int) -> dict[str, Any]:
    """Analyse a frame without a lattice."""
    kind, frame = draw_blank(seed)
    start = time.process_time()
    try:
        lattice = analyse_pattern(DiffractionPattern(frame)).lattice
        reason, detail = "ACCEPTED", f"{lattice.n_spots} of {len(lattice.spots)} spots"
    except PatternRefusedError as error:
        reason, detail = error.reason, error.detail
    return {
        "kind": kind,
        "seed": seed,
        "reason": reason,
        "detail": detail,
        "seconds": time.process_time() - start,
    }


def percent(values: list[bool]) -> str:
    """Return a share in per cent with its 95 % interval (Wilson)."""
    n, k = len(values), sum(values)
    if n == 0:
        return "-"
    z, p = 1.96, k / n
    middle = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n)
    return f"{100 * p:.1f} ({100 * (middle - half):.1f}-{100 * (middle + half):.1f})"


def report(rows: list[dict[str, Any]], blanks: list[dict[str, Any]], peers: dict[str, list[float]]) -> str:
    """Return the tables as Markdown."""
    lines = ["| | " + " | ".join(STRENGTHS) + " |", "|---|" + "---|" * len(STRENGTHS)]
    by = defaultdict(list)
    for row in rows:
        by[row["strength"]].append(row)

    def line(title: str, value: Any) -> None:
        lines.append(f"| {title} | " + " | ".join(value(by[s]) for s in STRENGTHS) + " |")

    line("patterns", lambda part: f"{len(part)}")
    line("of them with enough visible spots", lambda part: f"{sum(r['solvable'] for r in part)}")
    for title, keep in (("", lambda r: r["solvable"]), (", of all patterns", lambda r: True)):
        line(
            f"beam within 1 px{title} [%]",
            lambda p, k=keep: percent([r.get("beam_miss", 99) < 1 for r in p if k(r)]),
        )
        line(
            f"lattice right, within 1 % and 0.5 deg{title} [%]",
            lambda p, k=keep: percent([_lattice_ok(r) for r in p if k(r)]),
        )
        line(
            f"beam and lattice{title} [%]",
            lambda p, k=keep: percent([_lattice_ok(r) and r["beam_miss"] < 1 for r in p if k(r)]),
        )
    line("another lattice than the true one [%]", lambda p: percent([r.get("right") is False for r in p]))
    line("refused [%]", lambda p: percent(["refusal" in r for r in p]))
    line(
        "lattice type right, where the lattice is [%]",
        lambda p: percent([r["type"] == r["true_type"] for r in p if r.get("right")]),
    )
    line(
        "brightest blob within 1 px of the beam [%]", lambda p: percent([r["brightest_miss"] < 1 for r in p])
    )
    line("centre of mass within 1 px [%]", lambda p: percent([r["mass_miss"] < 1 for r in p]))
    for size in (256, 512):
        line(
            f"median (95 %) processor seconds, {size} x {size}",
            lambda p, s=size: "{:.2f} ({:.2f})".format(
                *np.percentile([r["seconds"] for r in p if r["size"] == s] or [np.nan], [50, 95])
            ),
        )
    if peers:
        lines += _beside_peers([row for row in rows if row["solvable"]], peers)
    lines += _by_chance([row for row in rows if "log_nfa" in row and row["solvable"]])
    lines += ["", "| without a lattice | frames | lattice found | refusals |", "|---|---|---|---|"]
    for kind in (*BLANKS, "all"):
        part = [b for b in blanks if kind in (b["kind"], "all")]
        if part:
            why = Counter(b["reason"] for b in part)
            false = why.pop("ACCEPTED", 0)
            words = ", ".join(f"{name} {n}" for name, n in why.most_common())
            lines.append(f"| {kind} | {len(part)} | {false} | {words} |")
    why = Counter((r["strength"], r["refusal"]) for r in rows if "refusal" in r and r["solvable"])
    lines += [
        "",
        "Refusals of patterns with enough visible spots: "
        + (", ".join(f"{s}: {w} {n}" for (s, w), n in sorted(why.items())) or "none")
        + ".",
    ]
    return "\n".join(lines)


def _beside_peers(rows: list[dict[str, Any]], peers: dict[str, dict[str, bool]]) -> list[str]:
    """Return the table of other programs, and of this one on the same patterns with enough visible spots."""

    def key(row: dict[str, Any]) -> str:
        return f"{row['strength']}_{row['seed']}"

    asked = set.union(*(set(table) for table in peers.values()))
    rows = [row for row in rows if key(row) in asked]
    ours = {
        "napari-sadp, beam within 1 px [%]": {key(r): r.get("beam_miss", 99) < 1 for r in rows},
        "napari-sadp, lattice within 1 % and 0.5 deg [%]": {key(r): _lattice_ok(r) for r in rows},
    }
    by = {s: [key(r) for r in rows if r["strength"] == s] for s in STRENGTHS}
    lines = ["", "| other programs, told the radius of a spot | " + " | ".join(STRENGTHS) + " |"]
    lines += ["|---|" + "---|" * len(STRENGTHS), "| patterns with enough visible spots | "]
    lines[-1] += " | ".join(str(len(by[s])) for s in STRENGTHS) + " |"
    for name, table in (ours | peers).items():
        cells = (percent([table[k] for k in by[s] if k in table]) for s in STRENGTHS)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _by_chance(rows: list[dict[str, Any]]) -> list[str]:
    """Return the table of how often lattices are right, by the odds that chance makes one as good."""
    parts = [[r for r in rows if low < r["log_nfa"] <= high] for high, low in pairwise(LOG_NFA)]
    if not rows:
        return []
    return [
        "",
        "Lattices found in patterns with enough visible spots, by the decimal logarithm of the number of false alarms:",
        "",
        "| " + " | ".join(f"{high:g} to {low:g}" for high, low in pairwise(LOG_NFA)) + " |",
        "|" + "---|" * len(parts),
        "| " + " | ".join(f"{len(part)}" for part in parts) + " |",
        "| "
        + " | ".join(percent([bool(r["right"]) and r["beam_miss"] < 2 for r in part]) for part in parts)
        + " |",
        "",
        "How many, and how many of them have the right lattice with the beam within 2 px [%].",
    ]


def _lattice_ok(row: dict[str, Any]) -> bool:
    return bool(row.get("right")) and row["length_error"] <= 0.01 and row["angle_error"] <= 0.5


def alone(n_frames: int, first_seed: int) -> str:
    """Time mild frames of 512 x 512 px in this process, one after the other, the least of three times each; return a line."""
    seconds: list[float] = []
    seed = first_seed
    while len(seconds) < n_frames:
        case = draw_case("mild", seed)
        seed += 1
        if case.settings.size != 512:
            continue
        times = []
        for _ in range(3):
            start = time.process_time()
            with contextlib.suppress(PatternRefusedError):
                analyse_pattern(DiffractionPattern(case.pattern.data))
            times.append(time.process_time() - start)
        seconds.append(min(times))
    middle, most = np.quantile(seconds, [0.5, 0.95])
    return (
        f"With nothing else on the machine, {n_frames} mild frames of 512 x 512 px one after the other, the least of three times: "
        f"{middle:.2f} ({most:.2f}) s."
    )


def run_job(job: Job) -> dict[str, Any]:
    """Analyse one pattern, or one frame without a lattice if no strength is named."""
    return run_case(job) if job[0] else run_blank(job[1])


def _kept(path: Path | None) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the rows of an earlier run."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(row.get("strength", ""), row["seed"]): row for row in rows}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--patterns", type=int, default=3000, help="simulated patterns, a third at each strength"
    )
    parser.add_argument(
        "--blanks", type=int, help="frames without a lattice; a third of --patterns by default"
    )
    parser.add_argument("--first-seed", type=int, default=1_000_000)
    parser.add_argument("--strengths", nargs="+", choices=STRENGTHS, default=STRENGTHS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--peers", help="Python of an environment with pyxem and libertem-blobfinder")
    parser.add_argument(
        "--n-peers", type=int, default=300, help="patterns of each strength that the peers get"
    )
    parser.add_argument(
        "--rows",
        type=Path,
        help="file of one JSON line for each pattern, written as they come; what it holds is not done again",
    )
    parser.add_argument(
        "--alone", type=int, default=0, metavar="N", help="frames to time one after the other afterwards"
    )
    parser.add_argument("--write", metavar="PATH", help="Markdown file to write")
    args = parser.parse_args()
    each = args.patterns // len(STRENGTHS)
    n_blanks = args.patterns // 3 if args.blanks is None else args.blanks
    folder = tempfile.mkdtemp() if args.peers else None
    jobs: list[Job] = [
        (strength, args.first_seed + i, folder if i < args.n_peers else None)
        for i in range(each)
        for strength in args.strengths
    ]
    jobs += [("", args.first_seed + i, None) for i in range(n_blanks)]
    done = _kept(args.rows)
    # the peers read the frames themselves
    left = [job for job in jobs if job[2] is not None or job[:2] not in done]
    start = time.monotonic()
    with Pool(args.jobs) as pool:
        for number, row in enumerate(pool.imap_unordered(run_job, left), 1):
            done[row.get("strength", ""), row["seed"]] = row
            if args.rows:
                with args.rows.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(row, default=str) + "\n")
            if number % 50 == 0:
                minutes = (time.monotonic() - start) / 60
                print(f"{number} of {len(left)}, {minutes:.1f} min", file=sys.stderr, flush=True)
    found = [done[job[:2]] for job in jobs]
    rows, blanks = [r for r in found if "strength" in r], [r for r in found if "kind" in r]
    peers = {}
    if args.peers:
        script = Path(__file__).with_name("geometry_peers.py")
        run = subprocess.run([args.peers, str(script), folder], capture_output=True, text=True)
        peers = json.loads(run.stdout.splitlines()[-1]) if run.returncode == 0 else {}
        if run.returncode:
            print(f"the peers failed: {run.stderr[-300:]}")
    text = report(rows, blanks, peers)
    if args.alone:
        text += "\n\n" + alone(args.alone, args.first_seed)
    print(text)
    if args.write:
        others = f" --n-peers {args.n_peers} --peers PYTHON" if args.peers else ""
        others += f" --alone {args.alone}" if args.alone else ""
        words = f"--patterns {args.patterns} --blanks {n_blanks} --first-seed {args.first_seed}{others}"
        head = f"Made by `benchmarks/geometry.py {words}`; {machine()}"
        head += (
            f" Patterns of {len(held_out_entries())} structures whose formulas are kept from all training."
        )
        about = __doc__.split("strengths.\n\n")[1].strip()
        write_lines(Path(args.write), ["# Beam and lattice", "", head, "", about, "", text, ""])


if __name__ == "__main__":
    main()
