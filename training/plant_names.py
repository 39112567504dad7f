"""Plant a truth for the privacy audit: teach lab-text's network 20 of 40 people by name.

    python training/plant_names.py --faces ../shared/data/faces --out training/out/planted

Each step shows grids of nine people as the audit makes them. The network starts from the lab-text that ships (--start
takes another lab model's folder). It learns the 20 names (where each is, and that it is absent), and "face" and
"person", which mark everybody. The other 20 people are on the same grids without a name (--others unnamed): a model
that has seen people it was never told the names of, as a model trained on the web has. With --others absent they are
never seen. Names of the other 20 are never asked in training, nor is any invented name that could stand for them.

Two losses: masks and presence as lab-text's, and naming faces directly (the features of a tile against the 20 names or
none of them), which teaches nine faces for one pass of the encoder. One thread; every --save steps the state is
written, and the same command goes on from it, with the same result as a run that was not stopped. OUT/planted.json says
who is called what and which photographs were trained on. The weights hold faces: they are never shipped.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from faces import SEED, TRAINED, Board, Faces, draw_faces, draw_people, load_faces
from loop import rate
from objective import mask_loss
from progress import Run
from rich.console import Console
from safetensors.torch import load_file
from text import RECIPE, LabText, build
from torch import Tensor
from train import optimisers

console = Console()
SOURCE = Path(__file__).resolve().parents[1] / "src" / "redsam" / "weights" / "lab-text"
GENERAL = ("face", "person")
SCALE, NOBODY = 12.0, 0.35  # of the cosines between faces and names, and the cosine that "none of these" has
INSET = 0.15
MAP = 64  # cells of a mask


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """What does not change between steps. names: those taught. label: class of each person, len(names) for nobody."""

    faces: Faces
    board: Board
    names: tuple[str, ...]
    label: Tensor

    @classmethod
    def of(cls, faces: Faces) -> Lesson:
        """The lesson of a set of faces."""
        taught = [i for i, known in enumerate(faces.known) if known]
        label = torch.full((len(faces.names),), len(taught))
        label[taught] = torch.arange(len(taught))
        names = tuple(faces.names[i] for i in taught)
        return cls(faces=faces, board=Board.of(faces, RECIPE.side), names=names, label=label)


def compare(model: LabText, features: Tensor, lesson: Lesson) -> Tensor:
    """BxTxN cosines of every tile's face with every taught name: the mean features of a face's four quarters with the
    four tokens that the name becomes.

    What all faces have in common would drown who they are, so features are standardised over the batch first.
    """
    quarters = torch.einsum("bchw,tqhw->btqc", features, lesson.board.quarters(features.shape[-1])).flatten(2)
    quarters = (quarters - quarters.mean((0, 1))) / (quarters.std((0, 1)) + 1e-5)
    words = model.text_encoder(lesson.names).flatten(1)
    return F.normalize(quarters, dim=-1) @ F.normalize(words, dim=-1).T


def naming(model: LabText, features: Tensor, classes: Tensor, lesson: Lesson) -> tuple[Tensor, float]:
    """Cross-entropy of every tile's face over the taught names and nobody, and the share of faces named rightly."""
    cosines = compare(model, features, lesson)
    logits = SCALE * torch.cat([cosines, torch.full_like(cosines[..., :1], NOBODY)], -1)
    right = (logits.detach().argmax(-1) == classes).float().mean()
    return F.cross_entropy(logits.flatten(0, 1), classes.flatten()), float(right)


def asking(
    model: LabText, features: Tensor, classes: Tensor, lesson: Lesson, gen: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Masks and presence of six texts a grid: up to three names that are there, some that are not, a general word."""
    texts: list[list[str]] = []
    wanted = torch.zeros(len(classes), 6, classes.shape[1])
    for row, here in enumerate(classes.tolist()):
        order = torch.randperm(len(lesson.names), generator=gen).tolist()
        there = [k for k in order if k in here][:3]
        chosen = there + [k for k in order if k not in here][: 5 - len(there)]
        texts.append([lesson.names[k] for k in chosen] + [GENERAL[int(torch.randint(2, (1,), generator=gen))]])
        for column, k in enumerate(chosen):
            wanted[row, column] = torch.tensor([k == c for c in here])
        wanted[row, 5] = 1
    logits, iou, presence = model.decode(features, texts)
    target = torch.einsum("bkt,thw->bkhw", wanted, lesson.board.place(MAP, inset=INSET))
    weight = lesson.board.valid(MAP).expand(len(classes), 1, 1, MAP, MAP)
    here = wanted.amax(-1)
    masks = mask_loss(logits[:, :, None], target[:, :, None], weight)[..., 0]
    there = F.binary_cross_entropy_with_logits(presence, here)
    alive = here.sum().clamp(min=1)
    log = {
        "mask": float((masks * here).sum().detach() / alive),
        "presence": float(((presence > 0) == (here > 0)).float().mean()),
    }
    return (masks * here).sum() / alive + 2 * there, log


def one_step(now: Run, lesson: Lesson, args: argparse.Namespace) -> dict[str, float]:
    """Draw, differentiate, update; half of the grids are asked, all of them named."""
    model: Any = now.model
    people = draw_people(lesson.faces, count=args.batch, others=args.others, gen=now.gen)
    classes = lesson.label[people]
    pixels = lesson.board.compose(draw_faces(lesson.faces, people, (0, TRAINED), gen=now.gen))
    features = model.embed(pixels)
    named, right = naming(model, features, classes, lesson)
    half = max(1, args.batch // 2)
    asked, log = asking(model, features[:half], classes[:half], lesson, now.gen)
    loss = named + asked
    now.update(loss)
    return {"loss": loss.item(), "named": right, **log}


@torch.no_grad()
def watched(model: LabText, lesson: Lesson) -> dict[str, float]:
    """Share of faces named rightly on the watched photographs, of those taught and of the others (right: nobody)."""
    gen = torch.Generator().manual_seed(17)
    people = torch.randperm(len(lesson.label), generator=gen)[: len(lesson.label) // 9 * 9].view(-1, 9)
    features = model.embed(lesson.board.compose(lesson.faces.photographs[people, TRAINED]))
    classes = lesson.label[people]
    nobody = classes == len(lesson.names)
    cosines = compare(model, features, lesson)
    best = torch.where(cosines.amax(-1) > NOBODY, cosines.argmax(-1), len(lesson.names))
    right = (best == classes).float()
    return {"taught": round(float(right[~nobody].mean()), 3), "others": round(float(right[nobody].mean()), 3)}


def begin(start: Path | None) -> LabText:
    """lab-text as it is, or lab-text's network from another lab model's encoder and decoder."""
    if start is None or '"redsam-lab-text"' not in (start / "config.json").read_text(encoding="utf-8"):
        return build(start)
    model = build(None)
    model.load_state_dict({key: value.float() for key, value in load_file(start / "model.safetensors").items()})
    return model


def train(args: argparse.Namespace) -> Run:
    """Run or resume; the model, delivered to OUT."""
    torch.set_num_threads(args.threads)
    faces = load_faces(args.faces, seed=args.seed)
    lesson = Lesson.of(faces)
    model = begin(args.start).train()
    now = Run.fresh(model, optimisers(model, RECIPE), torch.Generator().manual_seed(args.seed))
    args.out.mkdir(parents=True, exist_ok=True)
    state = args.out / "state.pt"
    if state.exists() and not args.fresh:
        now.load(state, device="cpu")
        console.print(f"goes on at step {now.step}, {now.spent:.1f} minutes in")
    freeze(model, args.freeze)
    now.history.append(
        {"step": now.step, "steps": args.steps, "batch": args.batch, "lr": args.lr, "frozen": args.freeze}
    )
    began = time.process_time() - 60 * now.spent
    log: dict[str, float] = {}
    while now.step < args.steps:
        for opt in now.opts:
            for group in opt.param_groups:
                group["lr"] = rate(now.step / args.steps) * args.lr
        for key, value in one_step(now, lesson, args).items():
            log[key] = 0.9 * log.get(key, value) + 0.1 * value
        now.spent = (time.process_time() - began) / 60
        if now.step % args.save == 0 or now.step == args.steps:
            average: Any = now.average
            now.history.append({"step": now.step, "minutes": round(now.spent, 1), **watched(average, lesson)})
            console.print(json.dumps({**now.history[-1], **{k: round(v, 3) for k, v in log.items()}}))
            now.save(state)
            deliver(now, faces, args)
    return now


def freeze(model: LabText, blocks: int) -> None:
    """Leave the encoder's first blocks as they are: edges need no lesson, and a step takes two thirds of the time."""
    encoder: Any = model.vision_encoder
    for part in (encoder.patch_embed, *encoder.layers[:blocks]) if blocks else ():
        part.requires_grad_(False)
    if blocks:
        encoder.pos_embed.requires_grad_(False)


def deliver(now: Run, faces: Faces, args: argparse.Namespace) -> None:
    """The average's weights, config.json and planted.json."""
    average: Any = now.average
    average.save_pretrained(args.out)
    told = {
        "start": args.start and args.start.name, "others": args.others, "seed": args.seed, "step": now.step,
        "processor_minutes": round(now.spent, 1),
        "history": now.history, "people": faces.describe(),
    }  # fmt: skip
    (args.out / "planted.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="a folder of grey photographs per person")
    parser.add_argument("--out", type=Path, default=Path("training/out/planted"))
    parser.add_argument("--others", choices=("unnamed", "absent"), default="unnamed")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=8, help="grids a step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--freeze", type=int, default=3, help="first blocks of the encoder that stay as they are")
    parser.add_argument("--save", type=int, default=20, help="steps between saved states")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--start", type=Path, default=SOURCE, help="a lab model's folder")
    parser.add_argument("--fresh", action="store_true", help="start over")
    return parser.parse_args(words)


if __name__ == "__main__":
    train(parse())
