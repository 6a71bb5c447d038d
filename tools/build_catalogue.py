"""Build the package's structure catalogue from a JSON-lines collection of crystal structures.

    python tools/build_catalogue.py structures.jsonl.gz

Takes the cubic entries whose facts may be redistributed, writes ``src/napari_sadp/data/catalogue.json.gz``. The output
depends on the input alone: same input, same bytes.
"""

from __future__ import annotations

import gzip
import json
import sys
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


def main(source: str) -> None:
    """Read, select, sort, write."""
    with gzip.open(source, "rt", encoding="utf-8") as stream:
        entries = [json.loads(line) for line in stream]
    chosen = [compact(e) for e in entries if 195 <= e["spacegroup"] <= 230 and e["may_ship"]]
    chosen.sort(key=lambda e: (e["group"], e["formula"], e["id"], e["mirrored"]))
    text = "[\n" + ",\n".join(json.dumps(e, separators=(",", ":")) for e in chosen) + "\n]\n"
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{len(chosen)} structures, {TARGET.stat().st_size / 1024:.0f} KiB: {TARGET.name}")


if __name__ == "__main__":
    main(sys.argv[1])
