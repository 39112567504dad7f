"""What every Segmenter does the same way: encode images, decode grouped prompts, predict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from redsam.errors import InputError
from redsam.models.attention import MANY, officially
from redsam.models.geometry import MASK_LOGIT, Frame
from redsam.models.prediction import Prediction, select_logits
from redsam.models.values import Encoding, Hooks, Images, Masks, ModelPrompts, Select
from redsam.prompts import Prompt
from redsam.types import to_uint8

# (number of points, has a box, has a mask, is a text): prompts that agree in it are decoded in one call.
Structure = tuple[int, bool, bool, bool]


def encode(segmenter: Hooks, images: Images, *, exact: bool = False) -> Encoding:
    """See `Segmenter.encode`."""
    stacks = [images] if isinstance(images, Tensor) else [image[None] for image in images]
    if not stacks or any(s.ndim != 4 or s.shape[1] != 3 or not s.is_floating_point() for s in stacks):
        shapes = ", ".join(f"{tuple(s.shape)} {s.dtype}" for s in stacks[:3]) or "none"
        raise InputError(f"encode takes float images Bx3xHxW or a list of 3xHxW, got {shapes}.")
    frames: list[Frame] = []
    pixels: list[Tensor] = []
    kept: list[Tensor] = []
    for stack in stacks:
        frame = segmenter.frame(int(stack.shape[-2]), int(stack.shape[-1]))
        stack = segmenter.prepare(stack.to(segmenter.device), exact=exact)
        kept += list(stack) if segmenter.takes_text else []
        pixels.append(frame.fit_exact(_lattice(stack)) if exact else frame.fit(stack))
        frames += [frame] * len(stack)
    batch = pixels[0] if len(pixels) == 1 else torch.cat(pixels)
    embed = segmenter._embed if exact or segmenter.compiled is None else segmenter.compiled
    with officially(exact), _casting(segmenter, exact):
        features, extra = embed(batch.to(segmenter.dtype))
    return Encoding(features=features, extra=extra, frames=tuple(frames), images=tuple(kept), exact=exact)


def decode(
    segmenter: Hooks,
    encoding: Encoding,
    prompts: Sequence[Sequence[Prompt]],
    *,
    multimask: bool = True,
    handles: Sequence[Tensor] | None = None,
) -> Prediction:
    """See `Segmenter.decode`. handles: per prompt, all images' in order, float64 Kx2 (x, y) in original pixels that
    stand in for its points followed by its box's two corners, with gradients to them."""
    if len(prompts) != len(encoding.frames):
        raise InputError(f"{len(encoding.frames)} images came with {len(prompts)} lists of prompts.")
    flat = [(owner, prompt) for owner, ps in enumerate(prompts) for prompt in ps]
    if not flat:
        raise InputError("There is no prompt to decode.", hint="Give at least one image at least one prompt.")
    groups: dict[Structure, list[int]] = defaultdict(list)
    for n, (owner, prompt) in enumerate(flat):
        frame = encoding.frames[owner]
        prompt.check(frame.height, frame.width)
        check_kind(segmenter, prompt)
        structure = (len(prompt.points), prompt.box is not None, prompt.mask is not None, prompt.text is not None)
        groups[structure].append(n)
    answers: list[tuple[Tensor, Tensor]] = []
    for structure, members in groups.items():
        if structure[3]:
            answers.append(segmenter._decode_texts(encoding, [flat[n] for n in members]))
            continue
        answers += _decode_points(segmenter, encoding, [flat[n] for n in members], structure, multimask, [
            handles_of(flat[n][1]) if handles is None else handles[n] for n in members
        ])  # fmt: skip
    low_res, iou = (torch.cat(x) if len(answers) > 1 else x[0] for x in zip(*_alike(answers), strict=True))
    if len(groups) > 1:
        order = torch.tensor([n for members in groups.values() for n in members], device=low_res.device)
        back = torch.argsort(order)
        low_res, iou = low_res.index_select(0, back), iou.index_select(0, back)
    if low_res.dtype != torch.float64:  # half precision ends here: masks are resized and compared in float32
        low_res, iou = low_res.float(), iou.float()
    return Prediction(low_res=low_res, iou=iou, owner=tuple(o for o, _ in flat), frames=encoding.frames)


def _decode_points(
    segmenter: Hooks,
    encoding: Encoding,
    members: Sequence[tuple[int, Prompt]],
    structure: Structure,
    multimask: bool,
    places: Sequence[Tensor],
) -> list[tuple[Tensor, Tensor]]:
    """Answers to prompts of one structure, as many at a time as the segmenter's memory budget holds. Where a gradient
    is wanted, a part of several is decoded anew in the backward pass, so that only one is ever held whole."""
    room = max(1, segmenter.decode_bytes // kept_bytes(encoding))
    found = []
    for start in range(0, len(members), room):
        some = members[start : start + room]
        owners = [owner for owner, _ in some]
        prompts = _tensors(segmenter, encoding, some, structure, places[start : start + room])

        def answer(
            features: Tensor, *extra: Tensor, owners: list[int] = owners, prompts: ModelPrompts = prompts
        ) -> tuple[Tensor, Tensor]:
            rows = tuple(_rows(e, owners) for e in extra)
            with officially(encoding.exact), _casting(segmenter, encoding.exact):
                return segmenter._decode_group(_rows(features, owners), rows, prompts, multimask=multimask)

        if room < len(members) and torch.is_grad_enabled():
            found.append(checkpoint(answer, encoding.features, *encoding.extra, use_reentrant=False))
        else:
            found.append(answer(encoding.features, *encoding.extra))
    return found


def _casting(segmenter: Hooks, exact: bool) -> AbstractContextManager[object]:
    """Half precision where it was asked for and no exact answer is wanted."""
    if segmenter.autocast is None or exact:
        return nullcontext()
    return torch.autocast(segmenter.device.type, dtype=segmenter.autocast)


def kept_bytes(encoding: Encoding) -> int:
    """About what a prompt keeps for the backward pass: 14 to 16 of the feature maps of SAM's decoder, counted."""
    return sum(
        times * maps[0].numel() * maps.element_size()
        for times, maps in ((16, encoding.features), *((2, e) for e in encoding.extra))
    )


def _rows(maps: Tensor, owners: Sequence[int]) -> Tensor:
    """maps[owners]; of one image without a copy where the map is large, so that a decoder sees
    that its prompts share it."""
    if len(set(owners)) == 1 and maps.shape[-2] * maps.shape[-1] >= MANY:
        return maps[owners[0] : owners[0] + 1].expand(len(owners), *maps.shape[1:])
    return maps.index_select(0, torch.tensor(owners, device=maps.device))


def check_kind(segmenter: Hooks, prompt: Prompt) -> None:
    """Raise InputError when the model does not take a prompt of this kind."""
    if prompt.text is not None and not segmenter.takes_text:
        raise InputError(
            f"{segmenter.name} ({segmenter.family}) takes no text prompt.",
            hint="Ground it: load('grounded:IDEA-Research/grounding-dino-base+facebook/sam-vit-base').",
        )
    if prompt.text is not None and prompt.kind != "text":
        raise InputError(
            f"A text prompt stands alone, this one is {prompt.kind}.", hint="Give each as a prompt of its own."
        )
    if prompt.text is None and not segmenter.takes_clicks:
        raise InputError(f"{segmenter.name} ({segmenter.family}) takes texts only.", hint="Type: --text 'a dog'")


def _alike(answers: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """A text has one mask where a click has three: it is repeated, so that every rule of choice finds it. Where masks
    of several images have several sides, the smaller ones get room at the bottom and on the right."""
    count, side = (max(values) for values in zip(*((iou.shape[1], low.shape[-1]) for low, iou in answers), strict=True))
    out = []
    for low, iou in answers:
        if iou.shape[1] == 1 < count:
            low, iou = low.expand(-1, count, -1, -1), iou.expand(-1, count)
        more = side - low.shape[-1]
        out.append((F.pad(low, (0, more, 0, more), value=-MASK_LOGIT) if more else low, iou))
    return out


def predict(
    segmenter: Hooks,
    images: Images,
    prompts: Sequence[Sequence[Prompt]],
    *,
    select: Select = "iou",
    reference: Sequence[Tensor] | None = None,
) -> list[Masks]:
    """See `Segmenter.predict`."""
    prediction = decode(segmenter, encode(segmenter, images, exact=True), prompts, multimask=select != "single")
    logits, choices, ious = select_logits(prediction, select=select, reference=reference)
    return [Masks(masks=x > 0, logits=x, iou=i, choice=c) for x, c, i in zip(logits, choices, ious, strict=True)]


def _lattice(images: Tensor) -> Tensor:
    """The uint8 images, or InputError when they are not on the 8-bit lattice: rounding here would measure another
    image than the one the caller holds."""
    with torch.no_grad():
        rounded = to_uint8(images)
        if not bool(((images * 255 - rounded).abs() < 1e-3).all()):
            raise InputError(
                "The image is not on the 8-bit lattice in [0, 1], so no file can hold it.",
                hint="Round it first: redsam.types.from_uint8(to_uint8(image)).",
            )
    return rounded


def handles_of(prompt: Prompt) -> Tensor:
    """float64 Kx2 (x, y): the prompt's points, then the top left and the bottom right corner of its box."""
    box = prompt.box or ()
    return torch.tensor([*prompt.points, *((box[:2], box[2:]) if box else ())], dtype=torch.float64).view(-1, 2)


def _tensors(
    segmenter: Hooks,
    encoding: Encoding,
    members: Sequence[tuple[int, Prompt]],
    structure: Structure,
    places: Sequence[Tensor],
) -> ModelPrompts:
    """Prompts of one structure, laid into the model's own frame; places: `handles_of` each."""
    n_points, has_box, has_mask, _ = structure
    device = encoding.features.device
    owners = tuple(owner for owner, _ in members)
    frames = tuple(encoding.frames[owner] for owner in owners)
    out: dict[str, Tensor] = {}
    laid = [frame.coordinates(place) for frame, place in zip(frames, places, strict=True)]
    if n_points:
        out["points"] = _coordinates(torch.stack([row[:n_points] for row in laid])[:, None], device)
        out["labels"] = torch.tensor([p.labels for _, p in members], device=device)[:, None]
    if has_box:
        out["boxes"] = _coordinates(torch.stack([row[n_points:].reshape(4) for row in laid])[:, None], device)
    if has_mask:
        logits = [
            frame.mask_prompt(p.mask, segmenter.mask_size)
            for frame, (_, p) in zip(frames, members, strict=True)
            if p.mask is not None
        ]
        out["masks"] = torch.stack(logits).to(device, segmenter.dtype)
    return ModelPrompts(**out, owners=owners, frames=frames)


def _coordinates(values: Tensor, device: torch.device) -> Tensor:
    """float64 as the official processor hands them over, float32 where the device has no float64."""
    return values.to(device) if device.type != "mps" else values.float().to(device)
