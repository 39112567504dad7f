"""Ship a model with its card: `python training/card.py NAME --trained DIR --scores FILE`.

Copies DIR's half-precision weights and config into src/redsam/weights/NAME and writes README.md there from what the
training recorded and what benchmarks/lab_models.py measured; nothing in a card is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from packed import SHARES
from recipes import RECIPES

from redsam.report.verdict import BARS

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 16 * 2**20
TERMS = {
    "voc": "Pascal VOC 2012 with SBD (Flickr terms; research)", "ecssd": "ECSSD (research)",
    "ccp": "Clothing Co-Parsing (repository Apache-2.0; third-party photographs, research)",
    "bsds": "BSDS500 training part (Berkeley, non-commercial research)",
    "coco_mval": "COCO objects (annotations CC BY 4.0, Flickr images)",
    "coco_panoptic": "COCO panoptic (annotations CC BY 4.0, Flickr images)",
    "camvid": "CamVid (research; repository CC BY-NC 4.0)",
}  # fmt: skip


def card(name: str, facts: dict[str, Any], row: dict[str, Any]) -> str:
    """The markdown text."""
    recipe = RECIPES[name]
    warning = (
        f"> **Not yet a model to draw conclusions from**: below point {BARS['point']} or box {BARS['box']} on a "
        "held-out set. Use it to try the tools, not to judge a method.\n\n"
        if row["weak"]
        else ""
    )
    lines = [
        f"# {name}", "", warning + f"A small `{type_of(recipe.family)}` ({row['parameters'] / 1e6:.1f} M parameters, "
        "192 x 192) trained from scratch on real photographs, so that attacks, transfers and defences can be tried in "
        "seconds and without a download.", "", "## How good it is", "",
        "8-bit images never trained on, one random in-mask point or one exact box per object of at least 1 % of the "
        "image, mask picked by predicted IoU. `trivial` fills the box (point: the whole image). r: predicted against "
        "true IoU.", "",
        "| set | prompt | mean IoU | 95 % interval | trivial | r | prompts / images |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for key in (k for k in row if "/" in k):
        cell, (part, kind) = row[key], key.split("/")
        value, lo, hi = cell["miou"]
        lines.append(
            f"| {part} | {kind} | {value:.3f} | {lo:.3f} to {hi:.3f} | {cell['fill'][0]:.3f} | "
            f"{cell['correlation']:.2f} | {cell['prompts']} / {cell['images']} |"
        )
    lines += [
        "", "Printed by `python benchmarks/lab_models.py`.", "", "## How it was made", "",
        f"`python training/train.py {name}` on what `python training/pack.py` packs: {facts['step']} steps of "
        f"{facts['batch']} images x 8 prompts, {facts['minutes']} minutes on {facts['device']} with {facts['threads']} "
        f"threads, seed {facts['seed']}, torch {facts['torch']}"
        + (f", started from {facts['start']}" if facts.get("start") else "")
        + (f" ({facts['note']})" if facts.get("note") else "")
        + ". Weights are an exponential moving average, stored in half precision.", "",
        "## Data and terms", "",
        "The weights are offered for research and testing only, without any warranty; most of the photographs they "
        "were trained on are for non-commercial research. No photograph travels with the project.", "",
        *(f"- {TERMS[s]}: {share:.0%} of draws" for s, share in SHARES.items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def type_of(family: str) -> str:
    """transformers' class of a family."""
    return {"sam": "SamModel", "sam2": "Sam2Model"}[family]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--scores", type=Path, default=ROOT / "benchmarks/results/lab_models.json")
    args = parser.parse_args()
    weights = args.trained / "model.safetensors"
    if weights.stat().st_size > LIMIT:
        raise SystemExit(f"{weights} is over 16 MiB and cannot be shipped")
    target = ROOT / "src/redsam/weights" / args.name
    target.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "model.safetensors", "training.json"):
        shutil.copyfile(args.trained / file, target / file)
    rows = json.loads(args.scores.read_text())["rows"]
    row = next(r for r in rows if Path(r["model"]).name == args.name)
    facts = json.loads((args.trained / "training.json").read_text())
    (target / "README.md").write_text(card(args.name, facts, row))
    print(target / "README.md")


if __name__ == "__main__":
    main()
