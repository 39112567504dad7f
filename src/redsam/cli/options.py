"""Options that several commands share, and text to values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from redsam.errors import InputError

if TYPE_CHECKING:
    from redsam.attacks.base import Attack
    from redsam.models.base import Segmenter
    from redsam.prompts import Prompt

MODEL_HELP = "Lab model, hub id, save_pretrained folder or .pth of SAM; behind purifiers: 'lab-b|jpeg:quality=50'."
Model = Annotated[str, typer.Option("--model", "-m", help=MODEL_HELP)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto takes a CUDA device where there is one.")]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16 for the weights.")]
Seed = Annotated[int, typer.Option(help="Every random choice derives from it.")]
Points = Annotated[list[str] | None, typer.Option("--point", metavar="X,Y", help="Pixel in the object; repeatable.")]
Boxes = Annotated[list[str] | None, typer.Option("--box", metavar="X0,Y0,X1,Y1", help="Box around it; repeatable.")]
Texts = Annotated[list[str] | None, typer.Option("--text", metavar="NAME", help="What to find; repeatable.")]
Defenses = Annotated[
    list[str] | None,
    typer.Option(
        "--defense", metavar="NAME:OPTION=VALUE", help="Purifier in front of the model; repeatable, in order."
    ),
]
BatchSize = Annotated[
    str,
    typer.Option("--batch-size", metavar="N|auto", help="Images of one size together; auto: what memory holds."),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE|6GB", help="With --batch-size auto: of what is free, or in all; default 0.8, on a CPU 0.5."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def typed_batch(batch: str | None, memory: str | None) -> list[str]:
    """--batch-size and --memory as somebody typed them, for the report."""
    words = ["--batch-size", batch] if batch not in (None, "1") else []
    return [*words, *(["--memory", memory] if memory else [])]


def out_option(what: str) -> Any:
    """The --out option."""
    return typer.Option("--out", "-o", metavar="DIR", help=what)


def numbers(text: str, count: int, option: str, example: str) -> tuple[float, ...]:
    """`"1,2"` to (1.0, 2.0). Raises InputError."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count:
        raise InputError(f"'{text}' is not what {option} takes.", hint=f"Type: {option} {example}")
    return values


def prompts(
    points: Sequence[str] | None,
    boxes: Sequence[str] | None,
    mask_files: Sequence[Path],
    size: tuple[int, int],
    texts: Sequence[str] | None = None,
) -> list[Prompt]:
    """One prompt for each --point, then each --box, --mask and --text; checked against an image of size (H, W)."""
    from redsam.data import read_mask
    from redsam.prompts import box, mask, point, text

    made = [point(*numbers(p, 2, "--point", "X,Y")) for p in points or ()]
    made += [box(*numbers(b, 4, "--box", "X0,Y0,X1,Y1")) for b in boxes or ()]
    for path in mask_files:
        prior = read_mask(path, size) > 0
        if not prior.any():
            raise InputError(f"{path}: the mask is empty.", hint="Give a mask with pixels above 0.")
        made.append(mask(prior))
    made += [text(name) for name in texts or ()]
    if not made:
        raise InputError("No prompt was given.", hint="Type: --point X,Y or --box X0,Y0,X1,Y1 or --text NAME")
    for prompt in made:
        prompt.check(*size)
    return made


def settings(pairs: Sequence[str] | None) -> dict[str, Any]:
    """`["decay=0.9", "start=zero"]` to {"decay": 0.9, "start": "zero"}; values are JSON or text. Raises InputError."""
    chosen: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise InputError(f"'{pair}' is not what --set takes.", hint="Type: --set NAME=VALUE")
        try:
            chosen[name] = json.loads(value)
        except ValueError:
            chosen[name] = value
    return chosen


def recipe(name: str, chosen: dict[str, Any]) -> Attack:
    """An attack with these fields; see `made_of`."""
    made: Attack = made_of("attack", name, chosen)
    return made


def made_of(kind: str, name: str, chosen: dict[str, Any]) -> Any:
    """A registered thing with these fields, each checked against its type; a text such as 2/255 is a number where one
    is wanted. Raises UnknownName, InputError."""
    from typing import get_type_hints

    from pydantic import TypeAdapter, ValidationError

    from redsam import registry
    from redsam.threat import Threat

    kinds = get_type_hints(registry.get(kind, name).obj)
    values = dict(chosen)
    for key, value in chosen.items():
        if key not in kinds:
            continue  # create says so, with the nearest names
        check: TypeAdapter[Any] = TypeAdapter(kinds[key])
        try:
            values[key] = check.validate_python(value)
        except ValidationError as error:
            if not (isinstance(value, str) and "/" in value and "float" in str(kinds[key])):
                reason = error.errors()[0]["msg"].lower()
                raise InputError(f"{key}={value} is not what '{name}' takes: {reason}.") from None
            values[key] = Threat.parse_eps(value)
    return registry.create(kind, name, **values)


def device_of(text: str) -> str:
    """A device that is there. Raises InputError."""
    import torch

    if text == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(text)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"Device '{text}' cannot be used on this machine.", hint="Type: --device cpu") from None
    return str(device)


def dtype_of(text: str) -> Any:
    """float32, float16, bfloat16. Raises UnknownName."""
    import torch

    from redsam.registry import unknown

    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if text not in known:
        raise unknown("dtype", text, sorted(known))
    return known[text]


def folder(path: Path) -> Path:
    """Make an output folder and see that it can be written to, before hours are spent. Raises InputError."""
    probe = path / ".redsam-probe"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{path}: cannot write there ({reason}).", hint="Give another --out folder.") from error
    return path


def load_model(
    model: str, device: str, dtype: str = "float32", *, defenses: Sequence[str] | None = None, seed: int = 0
) -> Segmenter:
    """A segmenter on a device, behind the defences that its text or `defenses` name. seed: of what they draw."""
    from redsam.defenses import load

    return load(model, defenses=defenses or (), seed=seed, device=device_of(device), dtype=dtype_of(dtype))
