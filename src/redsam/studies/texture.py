"""texture: does a change of texture (drops, snow) hurt more than a change of colour (night) of the same PSNR?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redsam.bench.contrasts import alone, paired
from redsam.bench.files import write_bytes
from redsam.bench.objects import find_objects
from redsam.bench.presets import Asked, Change
from redsam.bench.spec import JsonDict
from redsam.corruptions.matched import decibels, met
from redsam.registry import register
from redsam.studies.base import CLEAN_PREDICTION, GROUND_TRUTH, Request, Study
from redsam.studies.changed import UNCHANGED, Field, ask, by_question, told
from redsam.studies.tables import MEASURED, Table

SAID = {1: "texture hurts more", -1: "colour hurts more", 0: "undecided"}
FIGURE = "texture.svg"


@register("study", "texture", paper="Red-Teaming Segment Anything Model (Jankowski et al.)", year=2024,
          url="https://arxiv.org/abs/2404.02067")  # fmt: skip
@dataclass(frozen=True, kw_only=True)
class Texture(Study):
    """Drops against night, and every other texture against every other colour, at matched PSNR, image by image.

    Each change is made as strong as PSNRs of 24, 20 and 16 dB ask for (severities 3, 4, 5 of the corruption `matched`,
    which says how: along the way from the image through the change's five severities, mixed between neighbours); an
    image that cannot be brought there to 0.1 dB is in no mean of that level. Loss is clean minus changed mIoU; texture
    minus colour is paired over the images that both reach.

    Deviation: the paper compares conditions as they come and concludes that texture hurts far more than colour.
    """

    textures: tuple[str, ...] = ("raindrops", "snow")
    colours: tuple[str, ...] = ("night", "contrast")
    levels: tuple[int, ...] = (3, 4, 5)
    prompts: tuple[str, ...] = ("point", "box")
    max_objects: int | None = 5

    transfers = True
    notes = (
        "PSNR weighs every pixel alike and a shift of brightness as much as a speckle; at equal PSNR a change of "
        "colour is often the one that people notice less. Another measure of equal strength may answer otherwise.",
        "Night brings sensor noise with it, which is texture; contrast is colour alone.",
    )

    def corruptions_used(self) -> Sequence[str]:
        return (*self.textures, *self.colours, "matched")

    def measure(self, asked: Request) -> Sequence[Table]:
        names = list(dict.fromkeys((*self.textures, *self.colours)))
        changes = [Change(corruption="matched", args={"of": n}, severities=self.levels, label=n) for n in names]
        protocols: list[Asked] = [(name, {"max_objects": self.max_objects}) for name in self.prompts]
        fields = ask(asked, "texture", changes, protocols)
        reference = GROUND_TRUTH if find_objects(asked.dataset) == "annotated" else CLEAN_PREDICTION
        pairs, each = [], []
        for victim, protocol, group in by_question(fields):
            keys: JsonDict = {"victim": victim, "prompt": protocol, "reference": reference, "origin": MEASURED}
            clean = group[UNCHANGED, None]
            for level in self.levels:
                reached = {name: matched_images(group[name, level]) for name in names}
                for name in names:
                    found = group[name, level]
                    loss = paired(clean.data, found.data, measure="miou_adv", reference=reference, among=reached[name])
                    left = alone(found.data, measure="miou_adv", reference=reference, among=reached[name])
                    words = {"change": name, "dB": decibels(level)}
                    words["not reached"] = len(found.data.samples) - len(reached[name])
                    each.append(keys | words | told(left, "miou") | told(loss, "loss"))
                for texture in self.textures:
                    for colour in self.colours:
                        both = reached[texture] & reached[colour]
                        a, b = group[colour, level].data, group[texture, level].data
                        gap = paired(a, b, measure="miou_adv", reference=reference, among=both)
                        words = {"texture": texture, "colour": colour, "dB": decibels(level)}
                        pairs.append(keys | words | told(gap) | {"verdict": SAID[gap.sign] if gap else "undecided"})
        draw(asked, each, names, self.textures)
        return [
            Table(
                title="Texture minus colour: how much more mIoU is lost at the same PSNR",
                columns=("texture", "colour", "dB", "victim", "prompt", "difference", "n_images", "verdict",
                         "reference", "origin"),
                rows=tuple(pairs),
                figure=FIGURE,
            ),
            Table(
                title="mIoU left and lost under each change at each PSNR",
                columns=("change", "dB", "victim", "prompt", "miou", "loss", "n_images", "not reached", "reference",
                         "origin"),
                rows=tuple(each),
            ),
        ]  # fmt: skip


def matched_images(field: Field) -> set[str]:
    """Images of a cell that were brought to the PSNR asked for."""
    assert field.severity is not None, "a clean cell matches nothing"
    looks = zip(field.data.samples, field.data.psnr.tolist(), strict=True)
    return {name for name, psnr in looks if met(psnr, field.severity)}


def draw(asked: Request, rows: Sequence[JsonDict], names: Sequence[str], textures: Sequence[str]) -> None:
    """OUT/texture.svg: mIoU over matched PSNR, first prompt kind of the first model; textures are the bold ones."""
    from redsam.report.chart import Curve, Point, curves_svg
    from redsam.report.standalone import standalone

    first = rows[0]
    mine = [
        r for r in rows if (r["victim"], r["prompt"]) == (first["victim"], first["prompt"]) and r["miou"] is not None
    ]
    curves = []
    for name in names:
        points = [
            Point(x=36 - r["dB"], y=r["miou"], lo=_or(r["miou_lo"], r["miou"]), hi=_or(r["miou_hi"], r["miou"]),
                  label=f"{r['dB']:g}")
            for r in mine
            if r["change"] == name
        ]  # fmt: skip
        curves.append(Curve(name=name, points=tuple(points), lead=name in textures))
    title = f"mIoU left at the same PSNR: {first['victim']}, {first['prompt']}, against {first['reference']}"
    svg = curves_svg(curves, title=title, x_label="PSNR in dB, stronger to the right")
    write_bytes(asked.out / FIGURE, standalone(svg).encode())


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
