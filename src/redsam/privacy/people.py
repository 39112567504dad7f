"""A folder per person: who there is, what they are called, which photographs can be used.

People are ordered by name, so nothing depends on how a file system lists folders. What cannot be used is left out and
recorded with its reason (a broken photograph, a person with a single one); what would make the answer wrong stops the
audit (two people of one name, one photograph in two folders). Grey, alpha and 16-bit photographs become RGB.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from redsam.data.images import IMAGE_SUFFIXES, read_image
from redsam.errors import InputError
from redsam.registry import unknown
from redsam.types import to_uint8

# With one photograph a hit may be the photograph and not the person. The published audit asks for two as well.
FEWEST_PHOTOGRAPHS = 2
LONGEST_NAME = 200
# Tiles are the median photograph, scaled down to this longest side: detectors are shown nine of them at about 800 px.
LONGEST_TILE = 256


@dataclass(frozen=True, kw_only=True)
class Person:
    """One person: the name that is asked, and photographs that can be read, sorted by file name."""

    name: str
    photographs: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """What was left out. who: the person's name; reason: one line without a name or path in it."""

    who: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class People:
    """Who can be asked for. tile: (height, width) of a photograph in a grid. fingerprint: of names and pixels."""

    persons: tuple[Person, ...]
    skipped: tuple[Skipped, ...]
    tile: tuple[int, int]
    fingerprint: str


def read_people(root: Path | str, *, names: Path | str | None = None) -> People:
    """Read a folder of folders; a person is called as the folder, `_` read as a space, or as the file `names` says.

    names: JSON {"folder": "name"}, or lines "folder<TAB>name" ("," and "=" separate too); folders it does not name are
    left out. Raises InputError: no folder, no people, two of one name, one photograph under two names.
    """
    root = Path(root).expanduser()
    try:
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"{root}: cannot be read ({reason}).", hint="Give a folder with a folder per person."
        ) from error
    if not folders:
        raise InputError(f"{root}: there are no folders in it.", hint="Expected PEOPLE/NAME/photograph.jpg.")
    given = read_names(Path(names).expanduser(), [f.name for f in folders]) if names is not None else None
    skipped = [
        Skipped(who=f.name, reason="no name in the file of names") for f in folders if given and f.name not in given
    ]
    called = {f: _name(given[f.name] if given else f.name, f) for f in folders if given is None or f.name in given}
    _check_unique(called)
    seen: dict[str, tuple[str, Path]] = {}
    persons: list[Person] = []
    sizes: list[tuple[int, int]] = []
    for folder, name in sorted(called.items(), key=lambda item: (fold(item[1]), item[1])):
        files, notes = _photographs(folder, name, seen, sizes)
        skipped += notes
        if len(files) < FEWEST_PHOTOGRAPHS:
            count = "one photograph" if files else "no photograph"
            reason = f"{count} that can be used; with fewer than {FEWEST_PHOTOGRAPHS} a hit may be the photograph"
            skipped.append(Skipped(who=name, reason=reason))
        else:
            persons.append(Person(name=name, photographs=tuple(files)))
    if not persons:
        raise InputError(
            f"{root}: nobody has {FEWEST_PHOTOGRAPHS} photographs that can be read.",
            hint="Expected PEOPLE/NAME/photograph.jpg.",
        )
    digest = hashlib.sha256(json.dumps([[p.name, len(p.photographs)] for p in persons]).encode())
    digest.update("".join(sorted(seen)).encode())
    return People(
        persons=tuple(persons), skipped=tuple(skipped), tile=_tile(sizes), fingerprint=digest.hexdigest()[:16]
    )


def fold(name: str) -> str:
    """What makes two names one: compatibility forms, case and spacing aside."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def read_names(path: Path, folders: list[str]) -> dict[str, str]:
    """Folder to name, from JSON or lines. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text.", hint='Give lines "folder<TAB>name", or JSON.') from error
    found: dict[str, str] = {}
    try:
        parsed = json.loads(text) if text.lstrip().startswith("{") else None
    except ValueError as error:
        raise InputError(f"{path}: broken JSON ({error}).", hint='Expected {"folder": "name"}.') from error
    pairs = list(parsed.items()) if isinstance(parsed, dict) else []
    for number, line in enumerate(text.splitlines() if parsed is None else (), start=1):
        mark = next((m for m in "\t,=" if m in line), None)
        if line.strip() and mark is None:
            raise InputError(f"{path}, line {number}: no name.", hint='Expected "folder<TAB>name".')
        if mark:
            before, after = line.split(mark, 1)
            pairs.append((before, after))
    for folder, name in pairs:
        folder = folder.strip()
        if folder not in folders:
            raise unknown("folder", folder, folders)
        if not isinstance(name, str) or folder in found:
            raise InputError(f"{path}: '{folder}' needs exactly one name.", hint='Expected {"folder": "name"}.')
        found[folder] = name
    if not found:
        raise InputError(f"{path}: there are no names in it.", hint='Expected lines "folder<TAB>name".')
    return found


def photograph(path: Path, tile: tuple[int, int]) -> Tensor:
    """uint8 3xhxw: the largest central part of the tile's shape, resized with antialiasing. Raises InputError."""
    image = read_image(path)
    height, width = int(image.shape[1]), int(image.shape[2])
    part = min(height / tile[0], width / tile[1])
    h, w = max(1, round(tile[0] * part)), max(1, round(tile[1] * part))
    top, left = (height - h) // 2, (width - w) // 2
    image = image[:, top : top + h, left : left + w]
    if (h, w) != tile:
        image = functional.interpolate(image[None], size=tile, mode="bilinear", antialias=True, align_corners=False)[0]
    return to_uint8(image)


def _name(text: str, folder: Path) -> str:
    name = " ".join(unicodedata.normalize("NFC", text).replace("_", " ").split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError(
            f"{str(folder)[:200]}: '{name[:40]}' cannot be asked as a name ({len(name)} characters).",
            hint=f"Give 1 to {LONGEST_NAME} printable characters.",
        )
    return name


def _check_unique(called: dict[Path, str]) -> None:
    first: dict[str, Path] = {}
    for folder, name in called.items():
        other = first.setdefault(fold(name), folder)
        if other != folder:
            raise InputError(
                f"{other.name} and {folder.name} are two people with one name.",
                hint="Put the photographs of one person into one folder, or tell two people apart with --names-from.",
            )


def _photographs(
    folder: Path, name: str, seen: dict[str, tuple[str, Path]], sizes: list[tuple[int, int]]
) -> tuple[list[Path], list[Skipped]]:
    """Files that can be read; the others with reasons that name nobody."""
    try:
        files = sorted(f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("."))
    except OSError:
        return [], [Skipped(who=name, reason="the folder cannot be read")]
    good, notes = [], []
    for number, file in enumerate(files, start=1):
        try:
            image = read_image(file)
        except InputError as error:
            why = error.message.replace(str(file), "").lstrip(": ").replace(file.name, "the file")
            notes.append(Skipped(who=name, reason=f"photograph {number}: {why}"))
            continue
        digest = hashlib.sha256(to_uint8(image).numpy().tobytes() + bytes(str(image.shape), "ascii")).hexdigest()
        owner, other = seen.setdefault(digest, (name, file))
        if owner != name:
            raise InputError(
                f"{other} and {file} are the same photograph under two names.",
                hint="Remove it from one of the folders.",
            )
        if other != file:
            notes.append(Skipped(who=name, reason=f"photograph {number}: a copy of another one"))
            continue
        good.append(file)
        sizes.append((int(image.shape[1]), int(image.shape[2])))
    return good, notes


def _tile(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Median height and width, scaled down where the longer is above LONGEST_TILE."""
    median = torch.tensor(sizes, dtype=torch.float64).median(dim=0).values
    scale = min(1.0, LONGEST_TILE / float(median.max()))
    height, width = (max(2, round(float(v) * scale)) for v in median)
    return height, width
