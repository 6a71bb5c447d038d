"""Build the package's structure catalogue from a JSON-lines collection of crystal structures.

    python tools/build_catalogue.py structures.jsonl.gz [--rest own.json.gz]

Takes the cubic entries whose facts may be redistributed, writes ``src/napari_sadp/data/catalogue.json.gz``. The output
depends on the input alone: same input, same bytes. With ``--rest`` the other cubic entries are written instead, as a catalogue of
one's own, to evaluate on (``napari-sadp evaluate --catalogue``): no network can have been trained on them.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "src" / "napari_sadp" / "data" / "catalogue.json.gz"


def compact(entry: dict) -> dict:
    """Keep what the simulator and the attribution need."""
    return {
        "formula": entry["formula"],
        "group": entry["spacegroup"],
        "cell": entry["cell"],
        "n_atoms": entry["n_atoms"],
        "source": entry["source"],
        "id": entry["source_id"],
        "licence": entry["may_ship"],
        "mirrored": bool(entry["mirrored_from_212"]),
        "sites": [
            [sorted(site["species"].items()), site["multiplicity"], site["wyckoff"], site["xyz"]]
            for site in entry["sites"]
        ],
    }


def main() -> None:
    """Read, select, sort, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="JSON lines, gzipped")
    parser.add_argument("--rest", type=Path, help="where to write the entries that the package does not hold")
    args = parser.parse_args()
    with gzip.open(args.source, "rt", encoding="utf-8") as stream:
        entries = [json.loads(line) for line in stream]
    target = args.rest or TARGET
    chosen = [
        compact(e)
        for e in entries
        if 195 <= e["spacegroup"] <= 230 and bool(e["may_ship"]) == (args.rest is None)
    ]
    chosen.sort(key=lambda e: (e["group"], e["formula"], e["id"], e["mirrored"]))
    text = "[\n" + ",\n".join(json.dumps(e, separators=(",", ":")) for e in chosen) + "\n]\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{len(chosen)} structures, {target.stat().st_size / 1024:.0f} KiB: {target.name}")


if __name__ == "__main__":
    main()
