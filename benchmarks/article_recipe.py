"""A network on the held-out images of a data set: the article's measure, 60 classes by symmetry, of its own kind of images.

    napari-sadp dataset article -o data/article --format shards
    napari-sadp train --recipe article --architecture resnet18 --name article_resnet18 --initial "" --out runs/article
    python benchmarks/article_recipe.py --data data/article --weights runs/article/article_resnet18.safetensors \
        [--images 11200] [--device auto] [--write docs/results/article_recipe.md]

The intervals are bootstraps over structures: the images of one structure are alike.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from _timing import machine, write_lines

from napari_sadp.dataset.disk_stream import DiskStream
from napari_sadp.dataset.read import open_dataset
from napari_sadp.evaluate.metrics import share_of_hits
from napari_sadp.evaluate.report import ARTICLE_TABLE
from napari_sadp.models.calibrate import calibration_error
from napari_sadp.models.resnet import choose_device, describe_device
from napari_sadp.models.weights import load_weights

BATCH = 64


def main() -> None:
    """Classify, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="data set of `napari-sadp dataset`")
    parser.add_argument("--weights", type=Path, required=True, help="weight file with its card")
    parser.add_argument("--images", type=int, default=11_200)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--write", type=Path, help="Markdown file to write the table to")
    options = parser.parse_args()
    device = choose_device(options.device)
    network, card, _ = load_weights(options.weights)
    network = network.eval().to(device, memory_format=torch.channels_last)
    reader = open_dataset(options.data)
    stream = DiskStream(reader, "validation", size=card.size, device=device)
    rows, found, confidence = classify(network, stream, card.temperature, min(options.images, len(stream)))
    truth = reader.labels[rows]
    structure = np.array([reader.rows[row]["structure"] for row in rows])
    group = np.array([reader.rows[row]["group"] for row in rows])
    recipe = card.recipe
    error = calibration_error(confidence, found == truth)
    lines = [
        "# A network by the recipe of the article, on held-out images of its kind",
        "",
        f"{card.architecture}, {card.size} px, from {recipe['initial'] or 'scratch'}, {recipe['images_seen']} images "
        f"({recipe['optimiser']}, batches of {recipe['batch_size']}, {recipe['seconds'] / 60:.1f} min), sha256 {card.sha256[:12]}; "
        f"{describe_device(device)}. {machine()}",
        "",
        "| held-out images | structures | class by symmetry | the article's |",
        "|---|---|---|---|",
    ]
    everything = np.ones(len(rows), bool)
    for name, use in (("all", everything), *((str(g), group == g) for g in sorted(set(group.tolist())))):
        share = share_of_hits(found[use] == truth[use], structure[use])
        theirs = f"{100 * ARTICLE_TABLE[card.architecture][0]:.3f} %" if name == "all" else ""
        lines.append(f"| {name}, {use.sum()} | {share.n_structures} | {share} | {theirs} |")
    lines += ["", f"Calibration error {error:.3f}.", ""]
    print("\n".join(lines))
    if options.write:
        write_lines(options.write, lines)


@torch.inference_mode()
def classify(network, stream, temperature, n_images):
    """Return row of the data set, class found and its probability of each image."""
    rows, found, confidence = [], [], []
    for start in range(0, n_images, BATCH):
        images, _, drawn = stream.draw(min(BATCH, n_images - start))
        logits = network(images.contiguous(memory_format=torch.channels_last)).float()
        best = (logits / temperature).softmax(dim=1).max(dim=1)
        rows.append(drawn.cpu().numpy())
        found.append(best.indices.cpu().numpy())
        confidence.append(best.values.cpu().numpy())
        if sys.stderr.isatty():
            print(f"\r{start} of {n_images}", end="", file=sys.stderr)
    return np.concatenate(rows), np.concatenate(found), np.concatenate(confidence)


if __name__ == "__main__":
    main()
