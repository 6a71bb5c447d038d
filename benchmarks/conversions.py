"""Which conversion to the training convention serves a network best, and what an error of the lattice costs.

    python benchmarks/conversions.py [--patterns 600] [--images 20000] [--size 64] [--real FOLDER] [--write docs/results/conversions.md]

One small network for each conversion, of the same architecture, from the same spots and as many images: *article* (any orientation),
*aligned*, and *rendered* (nodes drawn anew: no noise, background or cover in its training images). Then raw frames of held-out formulas
with the imperfections of a camera at three strengths go through beam, spots and lattice, and each network gets its own conversion of
the same frame. Truth is the visible class; frames whose class depends on whether their weakest spots count are left out, and so
are frames that are refused, which no conversion can help.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from geometry import CLEAR, FAINT, STRENGTHS, draw_settings

from napari_sadp._atomic import atomic_write
from napari_sadp.dataset.crystals import choose_crystals
from napari_sadp.dataset.library import build_library_steps
from napari_sadp.dataset.stream import AlignedImperfections, PatternStream
from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.convention import to_training_image
from napari_sadp.geometry.conversions import PATTERN_CONVERSIONS, SPOT_SIGMA_G1, convert_pattern
from napari_sadp.labels.lattice2d import gauss_reduce, planar_basis
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.labels.visible import visible_pattern
from napari_sadp.models.registry import bundled_path
from napari_sadp.models.weights import read_card
from napari_sadp.pattern import DiffractionPattern
from napari_sadp.simulation.imperfections import simulate_imperfect, spot_visibility

#: Training images of each conversion, by what differs from the package's stream. A standard deviation of many turns is any angle.
STREAMS = {
    "article": AlignedImperfections(angle_deg=2000.0, fit=1.0),
    "aligned": AlignedImperfections(),
    "rendered": AlignedImperfections(
        sigma_g1=(0.9 * SPOT_SIGMA_G1, 1.1 * SPOT_SIGMA_G1),
        discs=0.0,
        snr=(1e3, 1e4),
        steps=0.0,
        background=0.0,
        halo=0.0,
        rings=0.0,
        grain=0.0,
        lines=0.0,
        saturated=0.0,
        beam_stop=0.1,
        field=0.3,
    ),
}
#: Errors that are put on a right lattice: angle [deg], relative length, beam in |g1|.
ANGLES, LENGTHS, SHIFTS = (0.0, 1.0, 2.0, 4.0, 8.0), (0.01, 0.02, 0.04, 0.08), (0.02, 0.05, 0.1, 0.2)
#: Real patterns whose class is known beyond doubt.
REAL = (("ag_sped_two_grains.hspy", "D4-0"), ("hbn_0001.png", "C1-0"))


def visible_class(case, scheme):
    """Return the class of what can be seen, None where that depends on the faintest spots."""
    spots, snr = case.spots, spot_visibility(case)
    plane = gauss_reduce(planar_basis(spots.zone), np.eye(3, dtype=int))
    in_zone = spots.hkl @ np.array(spots.zone) == 0
    nodes = np.rint(spots.hkl @ np.linalg.pinv(plane.astype(float))).astype(int)
    found = []
    for limit in (CLEAR, FAINT):
        seen = visible_pattern(nodes[in_zone], snr[in_zone] >= limit, plane @ plane.T, scheme)
        found.append(None if seen is None else seen.class_index)
    return found[0] if found[0] == found[1] else None


def draw_frame(crystals, scheme, strength, rng):
    """Return (pattern, class) of a frame of a held-out structure."""
    while True:
        _, crystal = crystals[int(rng.integers(len(crystals)))]
        zone = scheme.zones[int(rng.integers(len(scheme.zones)))]
        settings = draw_settings(crystal, zone, 256, (0.06, 0.14), rng)
        if settings is None:
            continue
        case = simulate_imperfect(crystal, zone, settings, strength, seed=int(rng.integers(2**31)))
        label = visible_class(case, scheme)
        if label is not None:
            return DiffractionPattern(case.pattern.data), label


def train_network(library, scheme, conversion, size, images, seed=0):
    """Return a ResNet18 trained for so many images of one conversion."""
    import torch

    from napari_sadp.models.resnet import build_resnet

    torch.manual_seed(seed)
    stream = PatternStream(
        library, size=size, n_classes=len(scheme), seed=seed, imperfections=STREAMS[conversion]
    )
    network = build_resnet("resnet18", len(scheme)).train()
    steps = max(1, images // 64)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        picture, label, _ = stream.draw(64)
        loss = torch.nn.functional.cross_entropy(network(picture), label, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def probabilities(network, images):
    """Return P(class) of images (n, size, size)."""
    import torch

    with torch.inference_mode():
        parts = [network(torch.from_numpy(images[i : i + 64, None])) for i in range(0, len(images), 64)]
        return torch.cat(parts).softmax(dim=1).numpy()


def moved(lattice, angle=0.0, length=0.0, shift=0.0):
    """Return a lattice with an error: turned [deg], lengthened, its beam shifted [|g1|]."""
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = (1 + length) * np.array([[cosine, -sine], [sine, cosine]])
    step = shift * np.linalg.norm(lattice.g1_px) * np.array([0.6, 0.8])
    return replace(
        lattice, g1_px=turn @ lattice.g1_px, g2_px=turn @ lattice.g2_px, beam_rc=lattice.beam_rc + step
    )


def rate(hits):
    """Return a share in per cent with its standard error."""
    p = float(np.mean(hits))
    return f"{100 * p:.1f} ± {100 * np.sqrt(p * (1 - p) / len(hits)):.1f}"


def real_lines(folder, networks, scheme, size):
    """Return what each network says about real patterns of known class."""
    from napari_sadp.io.rosetta import read_patterns

    lines = ["", "| real pattern | frame | class | " + " | ".join(f"P, {name}" for name in networks) + " |"]
    lines.append("|---|---|---|" + "---|" * len(networks))
    for name, label in REAL:
        for number, pattern in enumerate(read_patterns(Path(folder) / name)):
            geometry = analyse_pattern(pattern)
            chance = [
                probabilities(network, convert_pattern(geometry, conversion, size=size).data[None])[0]
                for conversion, network in networks.items()
            ]
            row = scheme.labels.index(label)
            lines.append(
                f"| {name} | {number} | {label} | " + " | ".join(f"{p[row]:.2f}" for p in chance) + " |"
            )
    return lines


def main() -> None:
    """Train, convert, count, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patterns", type=int, default=600, help="raw frames, a third at each strength")
    parser.add_argument("--images", type=int, default=20_000, help="training images of each network")
    parser.add_argument("--size", type=int, default=64, help="image size of the networks [px]")
    parser.add_argument(
        "--crystals", type=int, default=40, help="training structures per extinction behaviour"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", metavar="FOLDER", help="folder of acquired patterns")
    parser.add_argument("--write", metavar="PATH", help="Markdown file to write")
    options = parser.parse_args()
    scheme, rng, start = build_scheme(), np.random.default_rng(options.seed), time.monotonic()
    chosen = choose_crystals(scheme, validation=False, per_behaviour=options.crystals, rng=rng)
    steps = build_library_steps(chosen, scheme, dynamical_nm=None, seed=options.seed)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            library = end.value
            break
    networks = {}
    for name in PATTERN_CONVERSIONS:
        networks[name] = train_network(library, scheme, name, options.size, options.images)
        print(f"trained {name}, {time.monotonic() - start:.0f} s", flush=True)
    held_out = choose_crystals(scheme, validation=True, per_behaviour=40, rng=rng)
    kept, refused = {strength: [] for strength in STRENGTHS}, dict.fromkeys(STRENGTHS, 0)
    for strength in STRENGTHS:
        for _ in range(options.patterns // len(STRENGTHS)):
            pattern, label = draw_frame(held_out, scheme, strength, rng)
            try:
                kept[strength].append((analyse_pattern(pattern), label))
            except PatternRefusedError:
                refused[strength] += 1
    lines = [
        "# Conversions to the training convention",
        "",
        f"Made by `benchmarks/conversions.py --patterns {options.patterns} --images {options.images} --size {options.size}"
        f"{' --real FOLDER' if options.real else ''}`.",
        "",
        f"Networks: ResNet18, {options.size} px, {options.images} images each from {len(library)} kinematic patterns of training structures. "
        f"Frames: {options.patterns // len(STRENGTHS)} of held-out formulas at each strength, 256 px.",
        "",
        "So few images rank the conversions by how fast they teach, not by how far they lead; the bundled network, *aligned*, saw "
        f"{read_card(bundled_path()).images_seen / 1e6:.1f} million (its figures: [evaluation](../evaluation/README.md)).",
        "",
        "Visible class right, of the frames with a lattice [%]:",
        "",
        "| strength | frames with a lattice | refused | " + " | ".join(PATTERN_CONVERSIONS) + " |",
        "|---|---|---|" + "---|" * len(PATTERN_CONVERSIONS),
    ]
    for strength, frames in kept.items():
        truth = np.array([label for _, label in frames])
        cells = []
        for name, network in networks.items():
            images = np.stack([convert_pattern(g, name, size=options.size).data for g, _ in frames])
            cells.append(rate(probabilities(network, images).argmax(axis=1) == truth))
        lines.append(f"| {strength} | {len(frames)} | {refused[strength]} | " + " | ".join(cells) + " |")
    frames = kept["mild"]
    truth = np.array([label for _, label in frames])
    lines += [
        "",
        "What an error of the lattice costs, mild frames, *aligned* [%]:",
        "",
        "| error | right |",
        "|---|---|",
    ]
    errors = [(f"turned {a:g} deg", {"angle": a}) for a in ANGLES]
    errors += [(f"{100 * e:g} % too long", {"length": e}) for e in LENGTHS]
    errors += [(f"beam off by {e:g} of the shortest vector", {"shift": e}) for e in SHIFTS]
    for words, change in errors:
        images = np.stack(
            [
                to_training_image(g.image, moved(g.lattice, **change), size=options.size).data
                for g, _ in frames
            ]
        )
        lines.append(
            f"| {words} | {rate(probabilities(networks['aligned'], images).argmax(axis=1) == truth)} |"
        )
    if options.real:
        lines += real_lines(options.real, networks, scheme, options.size)
    text = "\n".join(lines)
    print(text)
    if options.write:
        with atomic_write(Path(options.write)) as stream:
            stream.write(text + "\n")


if __name__ == "__main__":
    main()
