"""FastSAM's network: a YOLO of ultralytics with a segmentation head and, for texts, a CLIP of transformers.

Reads what ultralytics saves, which is a pickle (see trust.py), and a plain folder of config.json and safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from redsam.errors import CheckpointError
from redsam.models.checkpoints import first_line, write_own
from redsam.models.fastsam_frame import BEYOND, CELL
from redsam.models.trust import check_trust

# What of a model's description is kept; ultralytics runs an `activation` through eval, so that one is refused.
DESCRIPTION = ("nc", "scales", "scale", "depth_multiple", "width_multiple", "backbone", "head", "channels", "reg_max")
SIDE = 1024


class FastSamNet(nn.Module):
    """vision_encoder: the YOLO. side: of the square images are laid into. clip: a transformers CLIPModel, or None."""

    def __init__(self, yolo: nn.Module, *, side: int = SIDE, clip: nn.Module | None = None) -> None:
        super().__init__()
        self.vision_encoder, self.side = yolo, side
        self.register_module("clip", clip)

    @property
    def yolo(self) -> Any:
        """The YOLO, untyped."""
        return self.vision_encoder

    @property
    def classes(self) -> int:
        """FastSAM knows one: a thing."""
        return int(self.yolo.model[-1].nc)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Bx3xSxS as `Letterbox` lays them to (prototypes BxKxS/4xS/4, candidates BxAx(4 + classes + K)): for each box
        its corners on the square, scores, coefficients. Where an image's rectangle is smaller than the square,
        prototypes and candidates are zeros beyond it."""
        inside = pixels[:, 0] > BEYOND / 2
        shapes = [(int(i.any(1).sum()), int(i.any(0).sum())) for i in inside]
        prototypes: list[Tensor] = [pixels] * len(shapes)
        candidates: list[Tensor] = [pixels] * len(shapes)
        for shape in dict.fromkeys(shapes):
            members = [n for n, s in enumerate(shapes) if s == shape]
            out = self.vision_encoder(pixels[members, :, : shape[0], : shape[1]])
            found, maps = out[0]
            cells = self.side // CELL
            maps = nn.functional.pad(maps, (0, cells - maps.shape[-1], 0, cells - maps.shape[-2]))
            found = torch.cat([corners(found[:, :4]), found[:, 4:]], 1).transpose(1, 2)
            found = nn.functional.pad(found, (0, 0, 0, self._boxes() - found.shape[1]))
            for n, m, f in zip(members, maps, found, strict=True):
                prototypes[n], candidates[n] = m, f
        return torch.stack(prototypes), torch.stack(candidates)

    def _boxes(self) -> int:
        """Boxes on a full square."""
        return int(sum((self.side // int(s)) ** 2 for s in self.yolo.stride))

    def save_pretrained(self, folder: str | Path) -> None:
        """config.json and model.safetensors, without CLIP."""
        content = {"model_type": "redsam-fastsam", "side": self.side, "yolo": described(self.yolo)}
        write_own(folder, self, content, without="clip.")


def corners(boxes: Tensor) -> Tensor:
    """Bx4xA centres and sizes to Bx4xA corners."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], 1)


def described(yolo: Any) -> dict[str, Any]:
    """What a YOLO is built from, as JSON."""
    return {k: v for k, v in yolo.yaml.items() if k in DESCRIPTION}


def built(description: dict[str, Any], *, side: int = SIDE) -> FastSamNet:
    """A YOLO from its description, with random weights. Raises CheckpointError for an entry that is no part of one."""
    from ultralytics.nn.tasks import SegmentationModel

    foreign = sorted(set(description) - set(DESCRIPTION))
    if foreign:
        raise CheckpointError(f"A YOLO's description has no '{foreign[0]}'.")
    return FastSamNet(_checked(SegmentationModel(dict(description), ch=3, verbose=False), "The model"), side=side)


def unpickled(path: Path) -> FastSamNet:
    """What ultralytics saved, in float32; the exponential mean of the weights where there is one. Raises
    CheckpointError, also where nobody said that the file is trusted."""
    check_trust(path)
    try:
        held = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle can raise anything
        raise CheckpointError(f"{path.name} cannot be opened: {first_line(error)}") from error
    yolo = (held.get("ema") or held.get("model")) if isinstance(held, dict) else held
    if not isinstance(yolo, nn.Module):
        raise CheckpointError(f"{path.name} holds no model of ultralytics.")
    settings = held.get("train_args") if isinstance(held, dict) else None
    side = settings.get("imgsz") if isinstance(settings, dict) else None
    return FastSamNet(_checked(yolo.float(), path.name), side=side if isinstance(side, int) else SIDE)


def _checked(yolo: nn.Module, where: str) -> nn.Module:
    layers = getattr(yolo, "model", None)
    head = layers[-1] if isinstance(layers, nn.Sequential) else None
    if head is None or not hasattr(head, "proto") or getattr(head, "end2end", False):
        raise CheckpointError(f"{where} is no YOLO with masks.", hint="FastSAM is a YOLOv8-seg; YOLO11-seg works too.")
    return yolo


def small(side: int) -> FastSamNet:
    """Some 0.1 M parameters, for tests, with statistics that keep its signals alive."""
    layers = [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C2f", [32, True]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "SPPF", [32, 5]],
    ]
    net = built({"nc": 1, "backbone": layers, "head": [[[3, 4, 6], 1, "Segment", [1, 8, 16]]]}, side=side)
    net.add_module("lively", Lively(net.yolo))
    return net


class Lively(nn.Module):
    """Started last: a fixed table of the head gets its values back, and norms the statistics of random images; with
    those of a fresh start a random YOLO's signals die on the way."""

    def __init__(self, yolo: nn.Module) -> None:
        super().__init__()
        self.of = [yolo]  # not a module of this one

    def reset_parameters(self) -> None:
        """See above."""
        yolo = cast(Any, self.of[0])
        weight = yolo.model[-1].dfl.conv.weight
        weight.copy_(torch.arange(weight.shape[1], dtype=weight.dtype).view(weight.shape))
        norms = [m for m in yolo.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None
        yolo.train()(torch.rand(8, 3, 64, 64))
        yolo.eval()
        for norm in norms:
            norm.weight.normal_(1.0, 0.3)
            norm.bias.normal_(0.0, 0.3)
            norm.momentum = 0.03
