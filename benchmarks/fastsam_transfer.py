"""Whether FastSAM breaks more easily than SAM under images crafted on another model, from the protocol's own records.

    redsam protocol rga-transfer --model lab-b --victims lab-l,fastsam:training/out/fastsam-n --data DIR --out OUT
    python benchmarks/fastsam_transfer.py OUT --fastsam fastsam-n

Published (UAD's logs, the rows beside in OUT/study.md): under every attack FastSAM keeps the least mIoU, less than the
source itself, without a look at what it had before. So two contrasts against each SAM, paired over images: mIoU left,
as published, and the share of its own clean mIoU that a victim loses. Victims and attacks are those of OUT. A FastSAM
that finds next to nothing in clean images has nothing to lose: it would bear out the first for the wrong reason, so
then there are no contrasts, and that is said.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from claims import transfer, weakening
from evidence import Bank, Contrast, Field, column, contrast, minus, of
from rich.console import Console
from rich.table import Table

from redsam.bench.files import read_json, write_json
from redsam.bench.spec import JsonDict
from redsam.bench.store import read_records
from redsam.bench.summary import latest

FLOOR = 0.1  # clean mIoU of a FastSAM that can be broken
NUMBERS = ("prompt", "n_images", "n_prompts", "n_failed", "clean", "miou", "miou_lo", "miou_hi", "asr50", "asr10")


def measured_rows(out: Path) -> list[JsonDict]:
    """Rows of the protocol's table that were measured, victims by their short names."""
    rows = [row for table in read_json(out / "study.json")["tables"] for row in table["rows"] if "cell" in row]
    return [row | {"victim": Path(row["victim"]).name} for row in rows]


def bank_of(out: Path) -> list[Field]:
    """The records behind these rows."""
    cells = {(row["attack"], row["victim"]): row["cell"] for row in measured_rows(out)}
    return [
        Field(
            run="rga-transfer",
            attack=attack,
            victim=victim,
            records=tuple(latest(read_records(out / "records" / cell / "samples.jsonl"))),
        )
        for (attack, victim), cell in cells.items()
    ]


def contrasts(bank: Bank, attack: str, sam: str, fastsam: str) -> list[Contrast]:
    """Both above 0 where FastSAM breaks more easily."""
    left = [column(transfer(bank, attack, victim), of("iou_adv_gt")) for victim in (sam, fastsam)]
    return [
        contrast(f"mIoU left, {sam} minus {fastsam}, {attack}", left, minus),
        weakening(bank, (attack,), fastsam, sam),
    ]


def compare(out: Path, fastsam: str) -> dict[str, Any]:
    """What was measured, and every contrast with its verdict."""
    rows, bank = measured_rows(out), bank_of(out)
    victims = list(dict.fromkeys(row["victim"] for row in rows))
    if fastsam not in victims:
        raise SystemExit(f"{out} has no victim '{fastsam}', only: {', '.join(victims)}")
    attacks = [name for name in dict.fromkeys(row["attack"] for row in rows) if name != "clean"]
    clean = min(row["clean"] for row in rows if row["victim"] == fastsam and row["prompt"] == "all")
    found = [
        asdict(c) | {"verdict": c.verdict}
        for attack in attacks
        for sam in victims
        if sam != fastsam and clean >= FLOOR
        for c in contrasts(bank, attack, sam, fastsam)
    ]
    told = [{"attack": row["attack"], "victim": row["victim"], **{k: row.get(k) for k in NUMBERS}} for row in rows]
    why = "" if clean >= FLOOR else f"{fastsam} has a clean mIoU of {clean:.3f}: nothing that an attack could break"
    return {"fastsam": fastsam, "undecided": why, "rows": told, "contrasts": found}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol", type=Path, help="folder that redsam protocol rga-transfer filled")
    parser.add_argument("--fastsam", default="fastsam-n", help="which of its victims is FastSAM")
    parser.add_argument("--note", default="", help="what this FastSAM is, kept beside the numbers")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fastsam_transfer.json"))
    args = parser.parse_args()
    found = compare(args.protocol, args.fastsam)
    write_json(args.out, {"note": args.note} | found)
    if found["undecided"]:
        raise SystemExit(f"undecided: {found['undecided']}")
    table = Table("claimed above 0", "measured [95 %]", "images", "verdict")
    for c in found["contrasts"]:
        interval = "" if c["lo"] is None else f" [{c['lo']:.3f}, {c['hi']:.3f}]"
        table.add_row(c["name"], f"{c['value']:.3f}{interval}", str(c["images"]), c["verdict"])
    Console().print(table)


if __name__ == "__main__":
    main()
