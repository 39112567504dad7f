"""The residual generator of CycleGAN as a network, and its weights from safetensors.

c7s1-64, d128, d256, residual blocks of 256 (9, or 6 for small images), u128, u64, c7s1-3 (Zhu et al. 2017, appendix
7.2, after Johnson et al. 2016): reflection padding, instance normalisation without parameters, tanh; values in [-1, 1].
Width and number of blocks are read off the tensors. Tensors are named as in the published checkpoints (`model.1.weight`
for the first convolution, `model.10.conv_block.1.weight` for the first block's), so one of those needs only to be saved
anew as safetensors; running means in old ones are left out, as the paper normalises each image by itself.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from redsam.errors import CheckpointError, InputError

# Files that run code when they are opened: TorchScript and pickles.
RUNS_CODE = (".pt", ".pth", ".ts", ".jit", ".torchscript", ".pkl", ".ckpt", ".bin")
CONVERT = "Save its state_dict as safetensors: safetensors.torch.save_file(state_dict, 'generator.safetensors')"
IGNORED = ("running_mean", "running_var", "num_batches_tracked")
FIRST_BLOCK = 10  # place of the first residual block in the sequence


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, the sum with what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width), nn.ReLU(),
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


class ResnetGenerator(nn.Module):
    """Bx3xHxW in [0, 1] to the same shape and range; sides are continued to a multiple of four and cut again."""

    def __init__(self, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), *_norm(nn.Conv2d(3, width, 7), width)]
        for n in (width, 2 * width):
            layers += _norm(nn.Conv2d(n, 2 * n, 3, stride=2, padding=1), 2 * n)
        layers += [Block(4 * width) for _ in range(blocks)]
        for n in (4 * width, 2 * width):
            layers += _norm(nn.ConvTranspose2d(n, n // 2, 3, stride=2, padding=1, output_padding=1), n // 2)
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        down, across = max(-height % 4, 8 - height), max(-width % 4, 8 - width)
        wide = F.pad(images, (0, across, 0, down), mode="replicate")
        out: Tensor = (self.model(wide * 2 - 1) + 1) / 2
        return out[..., :height, :width]


def _norm(convolution: nn.Module, width: int) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(width), nn.ReLU()]


def read_generator(path: str | Path) -> ResnetGenerator:
    """The network in a safetensors file, frozen. Raises InputError for a file that is missing or would run code,
    CheckpointError for one that is not this architecture."""
    path = Path(path)
    if path.suffix.lower() in RUNS_CODE:
        raise InputError(f"{path}: a file of this kind can run code when it is opened, so it is not.", hint=CONVERT)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file.", hint="Check the path.")
    try:
        state = {name: t for name, t in load_file(path).items() if not name.endswith(IGNORED)}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a safetensors file.", hint=CONVERT) from error
    first = state.get("model.1.weight")
    if first is None or first.ndim != 4 or first.shape[1:] != (3, 7, 7):
        raise CheckpointError(
            f"{path}: not a CycleGAN residual generator.", hint="Its first tensor is model.1.weight, Wx3x7x7."
        )
    blocks = len({name.split(".")[1] for name in state if ".conv_block." in name})
    # Made without memory: sizes come from the file, and an absurd one must not be allocated before it is compared.
    with torch.device("meta"):
        network = ResnetGenerator(width=int(first.shape[0]), blocks=blocks)
    wanted = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    if wanted != {name: tuple(t.shape) for name, t in state.items()}:
        odd = sorted(set(wanted) ^ set(state)) or [n for n in wanted if wanted[n] != tuple(state[n].shape)]
        raise CheckpointError(f"{path}: {len(odd)} tensors do not fit a CycleGAN residual generator, first {odd[0]}.")
    if not all(bool(t.isfinite().all()) for t in state.values()):
        raise CheckpointError(f"{path}: holds values that are not finite.")
    network.load_state_dict({name: t.float() for name, t in state.items()}, assign=True)
    return network.eval().requires_grad_(False)
