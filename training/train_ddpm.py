"""Train lab-ddpm: `python training/train_ddpm.py --data ../shared/data/pool --minutes 80`.

Progress is the larger of steps done / --steps and minutes spent / --minutes. Every --save minutes the state is written
and the weights delivered so far; the same command again goes on from there (--fresh starts over). Delivered is an
exponential moving average, in half precision: the folder OUT/lab-ddpm, as diffusers' DDPMPipeline reads it. To ship it:
`python benchmarks/lab_ddpm.py --model OUT/lab-ddpm`, then `python training/card_ddpm.py --trained OUT/lab-ddpm`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from ddpm import NAME, RECIPE, Photographs, draw, held_out_score, load_photographs, loss_of, scheduler, ship
from loop import Log, console, until_spent
from progress import Run
from torch import Tensor

WATCH = 64  # held-out crops


def prepare(args: argparse.Namespace) -> Run:
    """A fresh model, or a saved state."""
    model = RECIPE.build().to(args.device, memory_format=torch.channels_last).train()
    opt = torch.optim.AdamW(model.parameters(), lr=RECIPE.lr, betas=(0.9, 0.99), weight_decay=0.0)
    now = Run.fresh(model, [opt], torch.Generator().manual_seed(RECIPE.seed))
    file = args.out / NAME / "state.pt"
    if file.exists() and not args.fresh:
        now.load(file, device=args.device)
        console.print(f"goes on at step {now.step}, {now.spent:.1f} minutes in")
    return now


def one_step(now: Run, photographs: Photographs, noise: Any, *, count: int, device: str) -> Log:
    """Draw, differentiate, update; returns the numbers for the log."""
    images = draw(photographs, count=count, side=RECIPE.side, gen=now.gen)
    loss = loss_of(now.model, noise, images.to(device, memory_format=torch.channels_last), gen=now.gen)
    now.update(loss)
    return {"loss": loss.item()}


def train(args: argparse.Namespace, photographs: Photographs, watching: Tensor) -> Run:
    """Run or resume. watching: held-out crops in [-1, 1]."""
    torch.set_num_threads(args.threads)
    now, out, noise = prepare(args), args.out / NAME, scheduler()
    count = args.batch or RECIPE.batch
    size = sum(p.numel() for p in now.model.parameters())
    facts = {
        "recipe": NAME, "seed": RECIPE.seed, "batch": count, "side": RECIPE.side, "parameters": size,
        "photographs": len(photographs), "sets": dict(Counter(photographs.sets)), "device": args.device,
        "threads": args.threads, "torch": torch.__version__,
    }  # fmt: skip
    console.print(f"{NAME}: {size / 1e6:.2f} M parameters, {len(photographs)} photographs")

    def step(_: float) -> Log:
        return one_step(now, photographs, noise, count=count, device=args.device)

    def keep(log: Log, finished: bool) -> None:
        now.note(held_out_score(now.average, noise, watching), log)
        now.save(out / "state.pt")
        made = facts | {"step": now.step, "minutes": round(now.spent, 1), "history": now.history}
        ship(now.average, noise, out, json.dumps(made if finished else made | {"unfinished": True}, indent=1) + "\n")

    until_spent(now, args, name=NAME, lr=args.lr or RECIPE.lr, step=step, keep=keep)
    return now


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="pool folder, or what pack.py wrote")
    parser.add_argument("--out", type=Path, default=Path("training/out"))
    parser.add_argument("--minutes", type=float, default=80)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", type=int, default=0, help="crops a step (default: the recipe's)")
    parser.add_argument("--lr", type=float, default=0.0)
    parser.add_argument("--save", type=float, default=4.0, help="minutes between saved states")
    parser.add_argument("--fresh", action="store_true")
    return parser.parse_args(words)


def main() -> None:
    """Read the photographs, train."""
    args = parse()
    photographs = load_photographs(args.data, least=RECIPE.side)
    held = load_photographs(args.data, least=RECIPE.side, held_out=True)
    watching = draw(held, count=WATCH, side=RECIPE.side, gen=torch.Generator().manual_seed(3))
    train(args, photographs, watching.to(args.device))


if __name__ == "__main__":
    main()
