"""Ship a model with its card: `python training/card.py NAME --trained DIR --scores FILE`.

Copies DIR's half-precision weights and config into src/redsam/weights/NAME and writes README.md there from what the
training recorded and what benchmarks/lab_models.py (lab-text: benchmarks/lab_text.py) measured; nothing in a card is
typed by hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import text
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
TERMS_OF_USE = (
    "The weights are offered for research and testing only, without any warranty; most of the photographs they were "
    "trained on are for non-commercial research. No photograph travels with the project."
)
CHANCES = ("other answer", "other name", "other image", "rectangle", "whole")  # as in benchmarks/lab_text.py


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
        TERMS_OF_USE, "",
        *(f"- {TERMS[s]}: {share:.0%} of draws" for s, share in SHARES.items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def text_card(facts: dict[str, Any], found: dict[str, Any]) -> str:
    """The markdown text of lab-text. found: what benchmarks/lab_text.py wrote."""
    sets = found["sets"]
    chances = {name: chance_of(row) for name, row in sets.items()}
    weak = [name for name, row in sets.items() if row["answer"][0] < BARS["text"]]
    blind = [name for name, row in sets.items() if row[f"answer - {chances[name]}"][1] <= 0]
    warning = []
    if weak:
        warning = [
            f"> **Not yet a model to draw conclusions from**: below the text bar of {BARS['text']:.2f} on "
            f"{' and '.join(weak)}. Use it to try the tools, not to judge a method.",
            "",
        ]
    if blind:
        said = ", ".join(f"{chances[name]} ({name})" for name in blind)
        warning += [f"> Its answer is not shown to beat the best one that ignores the name: {said}.", ""]
    lines = [
        "# lab-text", "", *warning,
        f"A small text-prompted model ({facts['parameters'] / 1e6:.1f} M parameters, 192 x 192): SAM's encoder and "
        "decoder under a text encoder that spells names by n-grams. It answers a name with one mask and whether the "
        "thing is there at all, differentiable from the mask to the pixel.", "", "## How good it is", "",
        "Mean IoU over (image, present name) pairs of photographs it was not trained on, 95 % bootstrap intervals over "
        "images. `answer` is what a user gets, empty where presence is not above 0.5; `mask` is the mask alone. Below "
        "them chance on the same pairs: the answer and the mask under a name that is not there, another image's mask "
        "of that name, the best centred rectangle, the whole image.", "",
        "| what | " + " | ".join(f"{n} ({r['pairs']} pairs / {r['images']} images)" for n, r in sets.items())
        + " |", "|---|" + "---|" * len(sets),
    ]  # fmt: skip
    for key in ("answer", "mask", *CHANCES):
        lines.append(f"| {key} | " + " | ".join(span(row[key]) for row in sets.values()) + " |")
        if key in CHANCES:
            cells = " | ".join(span(row[f"answer - {key}"]) for row in sets.values())
            lines.append(f"| answer minus {key} | {cells} |")
    for key in ("pooled", "within a name"):
        lines.append(f"| presence AUROC, {key} | " + " | ".join(span(r["presence"][key]) for r in sets.values()) + " |")
    lines += [
        "", "Printed by `python benchmarks/lab_text.py`, which says how chance was drawn. The COCO names were given by "
        "eye. The encoder it started from was trained on the same photographs, without names; both were held out of "
        "the same ones.", "", "## How it was made", "",
        f"`python training/train_text.py` on what `python training/pack_text.py` packs: {facts['step']} steps of "
        f"{facts['batch']} images x {text.QUERIES} names, {facts['minutes']} minutes on {facts['device']} with "
        f"{facts['threads']} thread(s), seed {facts['seed']}, torch {facts['torch']}, started from {facts['start']}, "
        f"whose first {facts['frozen']} encoder blocks stayed as they were; {facts['names']} names. Weights are an "
        "exponential moving average, stored in half precision.", "",
        "## Data and terms", "", TERMS_OF_USE, "",
        *(f"- {TERMS[s]}: {share:.0%} of draws" for s, share in text.SHARES.items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def chance_of(row: dict[str, Any]) -> str:
    """The way of answering without the name that scores best."""
    return max(CHANCES, key=lambda key: row[key][0])


def span(cell: list[float]) -> str:
    """`0.312 (0.280 to 0.350)`."""
    return f"{cell[0]:.3f} ({cell[1]:.3f} to {cell[2]:.3f})"


def type_of(family: str) -> str:
    """transformers' class of a family."""
    return {"sam": "SamModel", "sam2": "Sam2Model"}[family]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted([*RECIPES, text.RECIPE.name]))
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--scores", type=Path, help="default: what the benchmark wrote below benchmarks/results")
    args = parser.parse_args()
    weights = args.trained / "model.safetensors"
    if weights.stat().st_size > LIMIT:
        raise SystemExit(f"{weights} is over 16 MiB and cannot be shipped")
    target = ROOT / "src/redsam/weights" / args.name
    target.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "model.safetensors", "training.json"):
        shutil.copyfile(args.trained / file, target / file)
    facts = json.loads((args.trained / "training.json").read_text())
    named = args.name == text.RECIPE.name
    scores = args.scores or ROOT / "benchmarks/results" / ("lab_text.json" if named else "lab_models.json")
    found = json.loads(scores.read_text())
    if named:
        (target / "README.md").write_text(text_card(facts, found))
    else:
        row = next(r for r in found["rows"] if Path(r["model"]).name == args.name)
        (target / "README.md").write_text(card(args.name, facts, row))
    print(target / "README.md")


if __name__ == "__main__":
    main()
