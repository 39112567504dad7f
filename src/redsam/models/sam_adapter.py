"""SAM-Adapter (Chen et al., "SAM Fails to Segment Anything?", 2023): a SAM whose frozen encoder is told by a small
prompt generator what one task looks for. BadSAM plants its backdoor in such a model.

Before every encoder block i, P_i = up(GELU(tune_i(F_patch + F_high))) is added to its tokens (paper, eq. 1-2): F_patch
is a linear map of the patch embedding, F_high a patch embedding of the image's high frequencies, tune_i a narrow layer
for each block, `up` one that all blocks share.
Stored as one folder that holds everything (config.json, model.safetensors): nothing in it is run when it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from redsam.errors import InputError
from redsam.models.checkpoints import read_own, write_own
from redsam.models.sam import Sam, tiny_vit_config
from redsam.models.values import ModelPrompts
from redsam.registry import register

MODEL_TYPE = "redsam-sam-adapter"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """scale: the encoder's width over the generator's (published: 32). share: of the spectrum that counts as low and is
    cut out (published: freq_nums 0.25). prompted: whether the decoder hears prompts; SAM-Adapter and BadSAM give it
    none, and the model then answers every prompt with the one mask of its task."""

    scale: int = 32
    share: float = 0.25
    prompted: bool = False

    def __post_init__(self) -> None:
        if self.scale < 1 or not 0 < self.share < 1:
            raise InputError(
                f"An adapter of scale {self.scale} that cuts {self.share:g} of the spectrum cannot be made.",
                hint="Published: scale 32, share 0.25.",
            )


class PromptGenerator(nn.Module):
    """Pixels and patch embedding to what is added before each block."""

    def __init__(self, *, width: int, patch: int, blocks: int, settings: Adapter) -> None:
        super().__init__()
        narrow = max(1, width // settings.scale)
        self.share = settings.share
        self.high = nn.Conv2d(3, narrow, kernel_size=patch, stride=patch)
        self.patch = nn.Linear(width, narrow)
        self.tune = nn.ModuleList(nn.Linear(narrow, narrow) for _ in range(blocks))
        self.up = nn.Linear(narrow, width)

    def features(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Normalised pixels Bx3xSxS and patch embedding BxhxwxC to BxhxwxN."""
        sharp = high_frequencies(pixels, self.share)
        found: Tensor = self.high(sharp).permute(0, 2, 3, 1) + self.patch(tokens)
        return found

    def forward(self, features: Tensor, block: int) -> Tensor:
        """What is added before this block, BxhxwxC."""
        added: Tensor = self.up(F.gelu(self.tune[block](features)))
        return added


def high_frequencies(pixels: Tensor, share: float) -> Tensor:
    """|image without the central square of its spectrum|, the square covering `share` of it; ...xHxW, float32 inside
    (half precision has no Fourier transform). As the code of SAM-Adapter: the half side is int(sqrt(H W share) / 2)."""
    height, width = pixels.shape[-2:]
    wide = pixels if pixels.dtype == torch.float64 else pixels.float()
    half = int((height * width * share) ** 0.5 // 2)
    keep = torch.ones(height, width, dtype=wide.dtype, device=pixels.device)
    keep[height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half] = 0
    spectrum = torch.fft.fft2(wide, norm="forward") * torch.fft.ifftshift(keep)
    sharp: Tensor = torch.fft.ifft2(spectrum, norm="forward").real
    return sharp.abs().to(pixels.dtype)


class AdaptedEncoder(nn.Module):
    """`SamVisionEncoder` with a prompt generator; takes its parts over."""

    def __init__(self, encoder: Any, settings: Adapter) -> None:
        super().__init__()
        self.patch_embed, self.pos_embed = encoder.patch_embed, encoder.pos_embed
        self.layers, self.neck = encoder.layers, encoder.neck
        patch, width = int(encoder.config.patch_size), int(encoder.config.hidden_size)
        self.prompt_generator = PromptGenerator(width=width, patch=patch, blocks=len(self.layers), settings=settings)

    def forward(self, pixel_values: Tensor, **unused: Any) -> Any:
        """As transformers': the embedding is `last_hidden_state`, BxCxhxw."""
        from transformers.models.sam.modeling_sam import SamVisionEncoderOutput

        tokens = self.patch_embed(pixel_values)
        told = self.prompt_generator.features(pixel_values, tokens)
        if self.pos_embed is not None:
            tokens = tokens + self.pos_embed
        for i, layer in enumerate(self.layers):
            tokens = layer(tokens + self.prompt_generator(told, i))
        return SamVisionEncoderOutput(last_hidden_state=self.neck(tokens))


def adapt(sam: Any, settings: Adapter, *, seed: int = 0) -> nn.Module:
    """Give a `SamModel` an adapter, in place. It starts as the model it was: the shared layer `up` is zero.

    Deviation: the paper's starts random, which a small model takes long to undo.
    """
    if type(sam).__name__ != "SamModel":
        raise InputError(
            f"SAM-Adapter adapts a SAM; this is a {type(sam).__name__}.", hint="Give a SAM, or tune with prompts."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = AdaptedEncoder(sam.vision_encoder, settings)
    nn.init.zeros_(encoder.prompt_generator.up.weight)
    nn.init.zeros_(encoder.prompt_generator.up.bias)
    sam.vision_encoder = encoder.to(next(sam.parameters()))
    sam.__class__, sam.adapter = _adapted(), settings
    return cast(nn.Module, sam)


@lru_cache(maxsize=1)
def _adapted() -> type[nn.Module]:
    """SamModel that knows it has an adapter and saves it; made when asked for, since transformers is slow to import."""
    from transformers import SamModel

    def save_pretrained(self: nn.Module, save_directory: str | Path, **unused: Any) -> None:
        save_adapted(self, Path(save_directory))

    return type("AdaptedSamModel", (SamModel,), {"save_pretrained": save_pretrained})


def save_adapted(model: nn.Module, folder: Path) -> None:
    """config.json and model.safetensors, everything the model is."""
    net = cast(Any, model)
    write_own(folder, model, {"model_type": MODEL_TYPE, "adapter": asdict(net.adapter), "sam": net.config.to_dict()})


@register("model", "sam-adapter", paper="SAM Fails to Segment Anything? SAM-Adapter, arXiv 2304.09148", year=2023)
class SamAdapter(Sam):
    """SAM with an adapter for one task. Without `prompted` it answers every prompt with the mask of its task."""

    family = "sam-adapter"
    classes = ("AdaptedSamModel",)
    model_types = (MODEL_TYPE,)

    def blocks(self) -> Iterable[nn.Module]:
        """ViT blocks."""
        return cast(Iterable[nn.Module], self.net.vision_encoder.layers)

    @property
    def prompted(self) -> bool:
        """Whether a prompt changes the answer."""
        return bool(self.net.adapter.prompted)

    def _decode_group(
        self, features: Tensor, extra: tuple[Tensor, ...], prompts: ModelPrompts, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        if self.prompted:
            return self._masks(features, prompts, multimask=multimask)
        return self._masks(features, ModelPrompts(), multimask=False)  # the one mask that is taught

    @classmethod
    def read(cls, folder: Path) -> nn.Module:
        """What `save_adapted` wrote. Raises CheckpointError."""
        from transformers import SamConfig, SamModel

        return read_own(folder, lambda c: adapt(SamModel(SamConfig(**c["sam"])), Adapter(**c["adapter"])))

    @classmethod
    def tiny(cls, image_size: int) -> nn.Module:
        """The tiny SAM with an adapter, prompted."""
        from transformers import SamConfig, SamModel

        return adapt(SamModel(SamConfig(**tiny_vit_config(image_size))), Adapter(scale=4, prompted=True))
