"""`redsam privacy MODEL`: does a text-prompted model know people's names?"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redsam.cli import options
from redsam.cli.audit import Bar
from redsam.cli.console import Stopped, err, out
from redsam.errors import InputError

if TYPE_CHECKING:
    from redsam.privacy import Audited, Detect, Detector


def command(
    model: Annotated[str, typer.Argument(help="A model that takes text: hub id or folder.")],
    people: Annotated[Path, typer.Option("--people", metavar="DIR", help="A folder per person, called by the name.")],
    folder: Annotated[Path, options.out_option("Where report and records go; the same again goes on.")] = Path(
        "redsam-privacy"
    ),
    grids: Annotated[int, typer.Option(min=1, help="Grids of different people.")] = 200,
    size: Annotated[int, typer.Option(min=2, max=10, help="Tiles a side.")] = 3,
    permutations: Annotated[int, typer.Option(min=1, help="Orders in which the tiles of a grid are shown.")] = 3,
    names_from: Annotated[
        Path | None, typer.Option("--names-from", metavar="FILE", help='Lines "folder<TAB>name", or JSON.')
    ] = None,
    decoys: Annotated[
        Path | None,
        typer.Option("--decoys", metavar="FILE", help="Names of nobody to ask beside, a line each; default: invented."),
    ] = None,
    show_names: Annotated[bool, typer.Option("--show-names", help="Print names; default: initials.")] = False,
    hashes: Annotated[bool, typer.Option("--hashes", help="Print salted hashes for initials.")] = False,
    alpha: Annotated[float, typer.Option(help="Error rate of each kind of claim, over all names.")] = 0.05,
    margin: Annotated[float, typer.Option(help="Skill below which a model counts as not knowing a name.")] = 0.2,
    correction: Annotated[str, typer.Option(help="For many names: holm or benjamini-hochberg.")] = "holm",
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Ask a model for people by name on grids of faces, and judge for each name whether it knows the person.

    Nothing leaves this machine. Interrupted and typed again, it goes on where it was.
    """
    from redsam import privacy
    from redsam.report.privacy import render

    if show_names and hashes:
        raise InputError("--show-names and --hashes exclude each other.", hint="Type one of them.")
    rule = privacy.Rule(alpha=alpha, margin=margin, correction=correction)  # type: ignore[arg-type]  # it checks
    read = privacy.read_people(people, names=names_from)
    if len(read.persons) < size**2:
        raise InputError(
            f"A grid of {size} x {size} needs {size**2} people, {people} has {len(read.persons)} with two photographs.",
            hint="Add people, or type --size 2." if len(read.persons) >= 4 else "Add people.",
        )
    beside = None if decoys is None else privacy.read_decoys(decoys, [p.name for p in read.persons])
    privacy.allowed(privacy.DECOYS if beside is None else len(beside), alpha)
    options.folder(folder)
    with err().status(f"loading {model}"):
        segmenter = options.load_model(model, device, dtype)
    bar = Bar()
    try:
        found = privacy.audit(
            _detect(segmenter),
            read,
            out=folder,
            model={"name": segmenter.name, "family": segmenter.family, "fingerprint": segmenter.fingerprint()},
            plan=privacy.Plan(grids=grids, size=size, permutations=permutations, seed=seed),
            rule=rule,
            decoys=beside,
            show="names" if show_names else "hashes" if hashes else "initials",
            device=segmenter.device,
            progress=bar,
            command=_typed(model, grids, size, permutations, seed, decoys=decoys is not None, show_names=show_names),
        )
    except KeyboardInterrupt:
        raise Stopped(bar.farewell) from None
    finally:
        bar.close()
    page = render(folder)
    if as_json:
        typer.echo(json.dumps(found.summary, indent=1, ensure_ascii=False))
        return
    _table(found)
    for left in found.summary["skipped"]:
        out().print(f"left out: {left['who']}, {left['reason']}", markup=False)
    out().print(str(page), markup=False)


def _detect(segmenter: Any) -> Detect | Detector:
    """The model as what can be asked for names. Raises InputError for a model that takes no text."""
    if callable(getattr(segmenter, "detect_all", None)):
        looks: Detector = segmenter
        return looks
    if not callable(getattr(segmenter, "detect", None)):
        raise InputError(
            f"{segmenter.name} takes no text, so it cannot be asked for a name.",
            hint="Give a text-prompted model, for example lab-text or facebook/sam3.",
        )
    detect: Detect = segmenter.detect
    return detect


def _table(found: Audited) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "verdict", "skill", "lead", "precision", "recall", "F1", "grids"):
        table.add_column(column, justify="left" if column in ("name", "verdict") else "right")
    for label, r in zip(found.labels, found.results, strict=True):
        numbers = (r.skill, r.lead, r.counts.precision, r.counts.recall, r.counts.f1)
        table.add_row(label, r.verdict, *(f"{v:.3f}" for v in numbers), str(r.grids))
    out().print(table, markup=False)
    lines = [
        f"{name} {c['precision']:.3f} {c['recall']:.3f} {c['f1']:.3f}" for name, c in found.summary["chance"].items()
    ]
    out().print(f"precision, recall and F1 by chance: {'; '.join(lines)}", markup=False)
    verdicts = [r.verdict for r in found.results]
    total = ", ".join(f"{verdicts.count(v)} {v}" for v in ("knows", "does not know", "undecided"))
    out().print(f"{len(verdicts)} names: {total}; a lead above {found.claims.singled.bar:.3f} counts", markup=False)


def _typed(model: str, grids: int, size: int, permutations: int, seed: int, *, decoys: bool, show_names: bool) -> str:
    """The command for the report, without the folder of people: where they lie is nobody's business."""
    words = ["redsam", "privacy", model, "--people", "DIR", "--grids", str(grids), "--size", str(size)]
    words += ["--permutations", str(permutations), "--seed", str(seed)]
    words += [*(["--decoys", "FILE"] if decoys else []), *(["--show-names"] if show_names else [])]
    return shlex.join(words)
