"""Ship lab-ddpm with its card: `python training/card_ddpm.py --trained OUT/lab-ddpm [--scores FILE]`.

Copies the pipeline's folder into src/redsam/weights/lab-ddpm and writes README.md there from what the training recorded
and what benchmarks/lab_ddpm.py measured on these very weights; nothing in a card is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from card import LIMIT, ROOT, TERMS, TERMS_OF_USE
from ddpm import NAME

from redsam.defenses.diffusion_models import denoiser

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
FILES = ("model_index.json", "scheduler/scheduler_config.json", "unet/config.json", WEIGHTS, "training.json")


def card(facts: dict[str, Any], found: dict[str, Any]) -> str:
    """The markdown text."""
    rows, settings, total = found["rows"], found["settings"], sum(facts["sets"].values())
    behind = [row for row in rows if row["lead"][1] is None or row["lead"][1] <= 0]
    warning = [
        f"> Not shown to beat the best classic filter at noise {', '.join(str(row['level']) for row in behind)}.",
        "",
    ]
    lines = [
        f"# {NAME}", "", *(warning if behind else []),
        f"A small unconditional diffusion model of photographs ({facts['parameters'] / 1e6:.1f} M parameters, "
        f"diffusers' `UNet2DModel`, no attention, trained on {facts['side']} x {facts['side']} crops): what `diffpure` "
        "and `zip` purify with unless told otherwise. It is made for taking noise away, not for making pictures. "
        "diffusers alone loads it: `DDPMPipeline.from_pretrained(folder)`.", "", "## How good it is", "",
        f"Noise of a known level on {rows[0]['n']} photographs never trained on ({', '.join(settings['sets'])}; middle "
        f"crops of {settings['crop']} pixels), taken away in one call. PSNR in dB, means with 95 % bootstrap intervals "
        f"over photographs. Filters at the setting, of a grid, that does best at that level on {settings['tuning']} "
        "other photographs a set; the lead is over the best of them, paired.", "",
        "| noise (of 255) | timestep | noisy | lab-ddpm | bilateral | median | best filter | lead |", "|---" * 8 + "|",
    ]  # fmt: skip
    for row in rows:
        value = row["psnr"]
        cells = [value[row["settings"][name]] for name in ("bilateral", "median")]
        lines.append(
            f"| {row['level']:.1f} | {row['t']} | {value['noisy'][0]:.2f} | {span(value[NAME])} | "
            f"{span(cells[0])} | {span(cells[1])} | {row['best']}: {value[row['best']][0]:.2f} | {span(row['lead'])} |"
        )
    lines += [
        "", "Printed by `python benchmarks/lab_ddpm.py`.", "", "## How it was made", "",
        f"`python training/train_ddpm.py` on {total} photographs of pool/, every 40th held out: {facts['step']} steps "
        f"of {facts['batch']} crops, {facts['minutes']} minutes on {facts['device']} with {facts['threads']} thread(s) "
        f"of a machine that did other things, seed {facts['seed']}, torch {facts['torch']}. Noise as in DDPM (1000 "
        "timesteps, linear), timesteps drawn as 1000 u^2: little noise is what purifiers ask about. Weights are an "
        "exponential moving average, stored in half precision.", "",
        "## Data and terms", "", TERMS_OF_USE, "",
        *(f"- {TERMS[name]}: {count / total:.0%} of photographs" for name, count in sorted(facts["sets"].items())), "",
    ]  # fmt: skip
    return "\n".join(lines)


def span(cell: list[float | None]) -> str:
    """`31.20 (30.80 to 31.60)`."""
    return f"{cell[0]:.2f}" + ("" if cell[1] is None else f" ({cell[1]:.2f} to {cell[2]:.2f})")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--scores", type=Path, default=ROOT / "benchmarks/results/lab_ddpm.json")
    args = parser.parse_args()
    if (args.trained / WEIGHTS).stat().st_size > LIMIT:
        raise SystemExit(f"{args.trained / WEIGHTS} is over 16 MiB and cannot be shipped")
    facts, found = (json.loads(file.read_text()) for file in (args.trained / "training.json", args.scores))
    if found["settings"]["weights"] != denoiser(str(args.trained)).fingerprint:
        raise SystemExit(f"{args.scores} was measured on other weights: run benchmarks/lab_ddpm.py on {args.trained}")
    target = ROOT / "src/redsam/weights" / NAME
    for file in FILES:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(args.trained / file, target / file)
    (target / "README.md").write_text(card(facts, found))
    print(target / "README.md")


if __name__ == "__main__":
    main()
