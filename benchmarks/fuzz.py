"""Damaged microscope files: each must give a result or an error of the package, in bounded time and memory.

    python benchmarks/fuzz.py [--files 2000] [--seed 0] [--real FOLDER] [--write docs/results/fuzz.md] [--keep FOLDER]

The files are damaged copies of small ones in all formats, and of those in FOLDER. A process of its own reads each, takes
the first frames through the analysis, and is replaced when it hangs or dies. What breaks a rule ends up in the `--keep` folder.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from _timing import machine, write_lines

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.fuzzing import MEMORY_TIMES_FILE, MODES, TIME_LIMIT_S, Outcome, Watched  # noqa: E402
from support.mutations import FORMATS, draw, write_seeds  # noqa: E402

ENDS = ("result", "refused", "unreadable", "foreign", "crash", "hang", "memory")
#: Memory that is allowed beside that of the file, over the most that an intact one takes: one and the same file takes up to a third more
#: now and then, as the allocator has it.
MARGIN = 1.5


def main() -> int:
    """Print the table, write it if asked; the exit status says whether a file broke a rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (default: %(default)s)")
    parser.add_argument(
        "--real", type=Path, default=ROOT.parent / "shared" / "real_patterns", help="acquired files"
    )
    parser.add_argument("--keep", type=Path, help="folder for the files that broke a rule")
    parser.add_argument("--write", type=Path, help="markdown file to write")
    options = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "intact").mkdir()
        seeds, real = write_seeds(folder / "intact"), real_files(options.real)
        intact = [path for paths in (*seeds.values(), *real.values()) for path in paths]
        with Watched(intact) as process:
            most = max(process.read(path, mode).peak_kib for path in intact for mode in MODES)
            print(f"{len(intact)} intact files, memory for them {most / 1024:.1f} MiB")
            base = round(MARGIN * most)
            start = time.monotonic()
            rows = [
                one(index, options, folder, process, (seeds, real), base)
                for index in range(options.first, options.first + options.files)
            ]
        lines = report(rows, base, time.monotonic() - start, about, options, len(intact))
    print("\n".join(lines))
    if options.write:
        write_lines(options.write, lines)
    return int(any(ends in ENDS[3:] for _, _, ends, _, _ in rows))


def real_files(folder: Path) -> dict[str, list[Path]]:
    """Return the acquired files of a folder by their format."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        kind = path.suffix[1:].lower().replace("tiff", "tif")
        if kind in FORMATS:
            found.setdefault(kind, []).append(path)
    return found


def one(
    index: int, options: argparse.Namespace, folder: Path, process: Watched, files: tuple, base: int
) -> tuple[str, str, str, Outcome, int]:
    """Return format, damage, end, outcome and size [B] of one damaged file."""
    kind, source, damage, content = draw(index, options.seed, *files)
    path = folder / f"{index}_{source.stem}.{kind}"
    path.write_bytes(content)
    outcome = process.read(path, MODES[index % len(MODES)])
    ends = outcome.kind
    if not outcome.failed and outcome.peak_kib > base + MEMORY_TIMES_FILE * len(content) / 1024:
        ends = "memory"
    if ends in ENDS[3:]:
        print(
            f"{index} {source.name} {damage} {ends}, {outcome.seconds:.1f} s, {outcome.peak_kib} KiB: {outcome.text}",
            flush=True,
        )
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / path.name).write_bytes(content)
    path.unlink()
    return kind, damage, ends, outcome, len(content)


def report(
    rows: list, base: int, seconds: float, about: str, options: argparse.Namespace, n_intact: int
) -> list[str]:
    """Return the tables as lines of markdown."""
    slowest = max(outcome.seconds for *_, outcome, _ in rows)
    above = max(outcome.peak_kib - MEMORY_TIMES_FILE * size / 1024 for *_, outcome, size in rows)
    broken = sum(ends in ENDS[3:] for _, _, ends, _, _ in rows)
    lines = [
        "# Damaged files",
        "",
        about,
        f"Made by `benchmarks/fuzz.py --files {options.files} --seed {options.seed}` in {seconds / 60:.0f} min: damaged copies of "
        f"{n_intact} intact files, {len(rows)} in all, each read and its first frames analysed in a watched process.",
        "",
        f"**{broken} of {len(rows)}** broke a rule: neither a result nor an error of the package (*foreign*), a dead process (*crash*), "
        f"more than {TIME_LIMIT_S:g} s (*hang*), or more resident memory than {MEMORY_TIMES_FILE} times the file and the "
        f"{base / 1024:.0f} MiB that an analysis may take, {MARGIN:g} times the most of an intact file (*memory*).",
        f"The slowest took {slowest:.1f} s; the most memory beyond {MEMORY_TIMES_FILE} times the file was {max(0.0, above) / 1024:.0f} MiB.",
    ]
    for place, title in ((0, "format"), (1, "damage")):
        lines += ["", f"| {title} | files | {' | '.join(ENDS)} |", "|---|" + "---:|" * (len(ENDS) + 1)]
        for name in dict.fromkeys([*(FORMATS if place == 0 else ()), *sorted(row[place] for row in rows)]):
            count = Counter(row[2] for row in rows if row[place] == name)
            lines.append(
                f"| {name} | {count.total()} | " + " | ".join(str(count[end]) for end in ENDS) + " |"
            )
    return [*lines, ""]


if __name__ == "__main__":
    sys.exit(main())
