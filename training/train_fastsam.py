"""Train a stand-in for FastSAM: `python training/train_fastsam.py --data packed.zip --minutes 20`.

A nano YOLO with masks (ultralytics' yolov8n-seg or yolo11n-seg, random start, one class: a thing, as FastSAM has it)
learns every labelled region of the packed set. It stands in for the published weights where they cannot be had, is
weaker than they are, and is never shipped. Delivered is the moving average, as a folder that needs no trust:
`redsam protocol rga-transfer --victims fastsam:OUT/fastsam-n ...`. Needs the extra `fastsam` (ultralytics, AGPL-3.0).

Progress, states and going on are those of every training here (loop.py, progress.py).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from loop import Log, console, until_spent
from packed import IGNORE, MEAN, SMALLEST, STD, Packed, count_labels, crops, exact_boxes, load_packed
from progress import Run
from torch import Tensor, nn

NAME = "fastsam-n"
SEED = 31
GREY = 114 / 255
MOST = 60  # things of one crop


def fresh(architecture: str) -> nn.Module:
    """A random YOLO of one class with ultralytics' own settings of the losses."""
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import SegmentationModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = SegmentationModel(f"{architecture}.yaml", ch=3, nc=1, verbose=False)
    model.args = get_cfg()  # gains of the losses; one map of numbered things for an image
    return model


def batch_of(packed: Packed, *, count: int, side: int, pseudo: float, gen: torch.Generator) -> dict[str, Tensor]:
    """Random crops with every region that is large enough, as ultralytics' loss takes them."""
    weight = torch.where(packed.pseudo.cpu(), pseudo * packed.weight.cpu(), (1 - pseudo) * packed.weight.cpu())
    pick = torch.multinomial(weight, count, replacement=True, generator=gen)
    pixels, labels, inside = crops(packed, pick, side=side, gen=gen)
    mean, std = (pixels.new_tensor(v)[None, :, None, None] for v in (MEAN, STD))
    images = torch.where(inside, (pixels * std + mean).clamp(0, 1), pixels.new_tensor(GREY))
    sizes = count_labels(labels)
    sizes[:, 0] = sizes[:, IGNORE] = 0
    room = inside.flatten(1).sum(1, keepdim=True)
    numbered = torch.zeros_like(labels)
    owner, boxes = [], []
    for n in range(count):
        things = torch.nonzero(sizes[n] >= SMALLEST * room[n]).flatten()
        things = things[sizes[n, things].argsort(descending=True)][:MOST]  # large first: small ones are drawn over
        for number, thing in enumerate(things.tolist(), 1):
            numbered[n][labels[n] == thing] = number
        if len(things):
            corners = exact_boxes((labels[n][None] == things[:, None, None])[None])[0] / side
            owner += [n] * len(things)
            boxes.append(torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1))
    found = torch.cat(boxes) if boxes else images.new_zeros((0, 4))
    return {
        "img": images,
        "masks": numbered[:, 2::4, 2::4].float(),
        "batch_idx": torch.tensor(owner, device=images.device).float(),
        "cls": torch.zeros(len(owner), 1, device=images.device),
        "bboxes": found,
    }


def one_step(now: Run, packed: Packed, args: argparse.Namespace, progress: float) -> Log:
    """Draw, differentiate, update; returns the numbers for the log."""
    pseudo = args.pseudo * (1 - progress)
    batch = batch_of(packed, count=args.batch, side=args.side, pseudo=pseudo, gen=now.gen)
    parts, told = now.model.loss(batch)
    loss = parts.sum() / args.batch
    now.update(loss)
    return {"loss": loss.item(), **{k: float(v) for k, v in told.items()}}


def calm(now: Run) -> None:
    """The average takes the statistics of the norms as they stand."""
    for kept, new in zip(now.average.buffers(), now.model.buffers(), strict=True):
        kept.copy_(new)


@torch.no_grad()
def score(now: Run, packed: Packed, args: argparse.Namespace) -> dict[str, float]:
    """Losses of the average on held-out crops, the same each time."""
    gen = torch.Generator().manual_seed(5)
    batch = batch_of(packed, count=args.batch, side=args.side, pseudo=0.0, gen=gen)
    now.average.args = now.model.args
    _, told = now.average.loss(batch)
    return {k: round(float(v), 4) for k, v in told.items()}


def train(args: argparse.Namespace) -> Run:
    """Run or resume."""
    from redsam.models.fastsam_net import FastSamNet

    torch.set_num_threads(args.threads)
    packed = load_packed(args.data).to(args.device)
    held = load_packed(args.data, held_out=True).to(args.device)
    model = fresh(args.architecture).to(args.device).train()
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=args.lr, weight_decay=0.0005)
    now, out = Run.fresh(model, [opt], torch.Generator().manual_seed(SEED)), args.out / NAME
    if (out / "state.pt").exists() and not args.fresh:
        now.load(out / "state.pt", device=args.device)
        console.print(f"goes on at step {now.step}, {now.spent:.1f} minutes in")
    facts: dict[str, Any] = {
        "architecture": args.architecture, "seed": SEED, "batch": args.batch, "side": args.side,
        "photographs": len(packed.images), "device": args.device, "threads": args.threads, "torch": torch.__version__,
    }  # fmt: skip

    def step(progress: float) -> Log:
        return one_step(now, packed, args, progress)

    def keep(log: Log, finished: bool) -> None:
        calm(now)
        now.note(score(now, held, args), log)
        now.save(out / "state.pt")
        FastSamNet(now.average, side=args.side).save_pretrained(out)
        made = facts | {"step": now.step, "minutes": round(now.spent, 1), "history": now.history}
        text = json.dumps(made if finished else made | {"unfinished": True}, indent=1) + "\n"
        (out / "training.json").write_text(text)

    until_spent(now, args, name=NAME, lr=args.lr, step=step, keep=keep)
    return now


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="what pack.py wrote")
    parser.add_argument("--out", type=Path, default=Path("training/out"))
    parser.add_argument("--architecture", default="yolov8n-seg", choices=["yolov8n-seg", "yolo11n-seg"])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--pseudo", type=float, default=0.3, help="share of region maps at the start, none at the end")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--save", type=float, default=4.0, help="minutes between saved states")
    parser.add_argument("--fresh", action="store_true")
    return parser.parse_args(words)


def main() -> None:
    """Train."""
    train(parse())


if __name__ == "__main__":
    main()
