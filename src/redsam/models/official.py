"""Weight files as the authors published them; here SAM's (`sam_vit_b_01ec64.pth`, fine-tunes such as MedSAM) as a
`transformers.SamModel`, and what every format shares. Others are in official_*.py and beside their families.

Sizes are read from the tensors' shapes, every key is mapped and checked, and no code inside a pickle is ever run
(`torch.load(weights_only=True)`). Names of the official side: facebookresearch/segment-anything, `modeling/` (2023).
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from redsam import registry
from redsam.errors import CheckpointError

# build_sam.py: heads of the mask decoder in every published SAM; no tensor's shape tells them.
DECODER_HEADS = 8
# build_sam.py: width of the ViT to number of heads, for encoders without relative positions.
VIT_HEADS = {768: 12, 1024: 16, 1280: 16}
# Training scripts wrap the weights in one of these, and data-parallel training prefixes every key.
WRAPPERS = ("model", "state_dict", "model_state_dict")
PREFIXES = ("module.", "sam.", "model.")
HINT = "Known: the published files of SAM, SAM-HQ, MobileSAM, SAM 2 and SAM 2.1."
# Constants that some files carry beside the weights.
IGNORED = ("pixel_mean", "pixel_std")

# (official, transformers) name parts, in full; {n} stands for a number that both sides share.
_ENCODER = (
    ("pos_embed", "pos_embed"),
    ("patch_embed.proj.", "patch_embed.projection."),
    ("blocks.{n}.norm1.", "layers.{n}.layer_norm1."),
    ("blocks.{n}.norm2.", "layers.{n}.layer_norm2."),
    ("blocks.{n}.attn.", "layers.{n}.attn."),
    ("blocks.{n}.mlp.", "layers.{n}.mlp."),
    ("neck.0.", "neck.conv1."),
    ("neck.1.", "neck.layer_norm1."),
    ("neck.2.", "neck.conv2."),
    ("neck.3.", "neck.layer_norm2."),
)
_PROMPT = (
    ("pe_layer.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    ("point_embeddings.{n}.", "point_embed.{n}."),
    ("not_a_point_embed.", "not_a_point_embed."),
    ("no_mask_embed.", "no_mask_embed."),
    ("mask_downscaling.0.", "mask_embed.conv1."),
    ("mask_downscaling.1.", "mask_embed.layer_norm1."),
    ("mask_downscaling.3.", "mask_embed.conv2."),
    ("mask_downscaling.4.", "mask_embed.layer_norm2."),
    ("mask_downscaling.6.", "mask_embed.conv3."),
)
_DECODER = (
    *((f"transformer.layers.{{n}}.norm{i}.", f"transformer.layers.{{n}}.layer_norm{i}.") for i in (1, 2, 3, 4)),
    ("transformer.norm_final_attn.", "transformer.layer_norm_final_attn."),
    ("transformer.", "transformer."),
    ("iou_token.", "iou_token."),
    ("mask_tokens.", "mask_tokens."),
    ("output_upscaling.0.", "upscale_conv1."),
    ("output_upscaling.1.", "upscale_layer_norm."),
    ("output_upscaling.3.", "upscale_conv2."),
    ("output_hypernetworks_mlps.{n}.", "output_hypernetworks_mlps.{n}."),
    ("iou_prediction_head.", "iou_prediction_head."),
)
RULES = tuple(
    (f"{official}.{old}", f"{ours}.{new}")
    for official, ours, rules in (
        ("image_encoder", "vision_encoder", _ENCODER),
        ("prompt_encoder", "prompt_encoder", _PROMPT),
        ("mask_decoder", "mask_decoder", _DECODER),
    )
    for old, new in rules
)
# A small network of the decoder and the layer in it.
HEAD = re.compile(
    r"(.*(?:hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head|hf_mlp)\.)"
    r"(proj_in|proj_out|layers\.(\d+))(\..*)"
)
TIED = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


def read_official(path: Path) -> tuple[str, nn.Module]:
    """Family and network, in float32, of a .pth or .pt file as the authors of a model published it. Raises
    CheckpointError, naming the key, for anything else.

    Formats declare themselves as `@register("official", FAMILY, telltale=KEY)` on a function from names and tensors to
    the network; a file without any telltale weight is taken for the first SAM's.
    """
    state = _read(path)
    for entry in registry.entries("official"):
        if entry.meta["telltale"] in state:
            registry.get("model", entry.name).obj.require()
            return entry.name, entry.obj(state, where=path.name)
    return "sam", from_official(state, where=path.name)


def from_official(state: Mapping[str, Tensor], *, where: str = "state dict") -> nn.Module:
    """Official names and tensors to a `SamModel`; sizes b, l, h or any other come from the shapes."""
    from transformers import SamConfig, SamModel

    config = SamConfig(**sizes(state, where))
    depth = head_depth(state)
    return filled(lambda: SamModel(config), state, lambda key: to_official_key(key, depth), where=where)


def filled(
    make: Callable[[], nn.Module],
    state: Mapping[str, Tensor],
    name: Callable[[str], str],
    *,
    where: str,
    unused: tuple[str, ...] = (),
    tied: tuple[str, str] = TIED,
) -> nn.Module:
    """The model `make` builds, each weight taken from `state` by its official name, in float32. tied: a weight that
    the file holds once and the model twice. unused: beginnings of names that the model has no use for. Raises
    CheckpointError for a weight that is missing, unknown or of another shape."""
    state = {k: v for k, v in state.items() if not k.startswith((*IGNORED, *unused))}
    with torch.device("meta"):
        expected = {k: v.shape for k, v in make().state_dict().items() if not k.endswith("num_batches_tracked")}
    wanted = {name(k): k for k in expected if k != tied[0]}
    missing, unknown = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    for what, keys in (("lacks", missing), ("has the unknown weight", unknown)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise CheckpointError(f"{where} {what} '{min(keys)}'{more}.", hint=HINT)
    mapped: dict[str, Tensor] = {}
    for official, ours in wanted.items():
        if state[official].shape != expected[ours]:
            raise CheckpointError(
                f"{where}: '{official}' is {tuple(state[official].shape)}, expected {tuple(expected[ours])}."
            )
        mapped[ours] = state[official].to(torch.float32)
    mapped[tied[0]] = mapped[tied[1]]
    with torch.random.fork_rng(devices=[]):  # the start drawn here is replaced at once
        model = make()
    counters = {k: v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")}
    model.load_state_dict({**mapped, **counters}, strict=True)
    return model


def to_official(model: nn.Module) -> dict[str, Tensor]:
    """A `SamModel`'s weights under Meta's names, ready for torch.save: the inverse of `from_official`."""
    depth = int(cast(Any, model).config.mask_decoder_config.iou_head_depth)
    return {to_official_key(k, depth): v.detach().clone() for k, v in model.state_dict().items() if k != TIED[0]}


def to_official_key(key: str, iou_head_depth: int = 3, rules: Sequence[tuple[str, str]] = RULES) -> str:
    """One name of `SamModel` to Meta's; KeyError when no rule, (official, transformers), begins as it does."""
    return layer_to_official(renamed(key, rules), iou_head_depth)


def renamed(key: str, rules: Sequence[tuple[str, str]]) -> str:
    """The key with its beginning exchanged by the first rule, (official, transformers), that has it; {n} and {m} are
    numbers. KeyError when none has."""
    for official, ours in rules:
        pattern = re.escape(ours).replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{m\}", r"(?P<m>\d+)")
        if match := re.match(pattern, key):
            return official.format(**match.groupdict()) + key[match.end() :]
    raise KeyError(key)


def layer_to_official(key: str, iou_head_depth: int = 3) -> str:
    """transformers names a head's layers proj_in, layers.0.., proj_out; Meta numbers them 0, 1, ... in `layers`."""
    match = HEAD.fullmatch(key)
    if match is None:
        return key
    depth = iou_head_depth if "iou_prediction_head" in key else 3
    number = {"proj_in": 0, "proj_out": depth - 1}.get(match[2])
    return f"{match[1]}layers.{int(match[3]) + 1 if number is None else number}{match[4]}"


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle, unwrapped; anything else is a CheckpointError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on a pickle's protocol; what matters is raised below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "holds code or objects besides tensors, which is never run" if _is_pickle(path) else "holds no weights"
        raise CheckpointError(f"{path.name} {reason}.", hint="Ask its author for a plain state dict.") from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError, OSError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise CheckpointError(f"{path.name} is not a weight file ({line}).") from error
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
            break
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise CheckpointError(f"{path.name} holds no state dict (names with tensors).")
    state = {str(k): v for k, v in found.items()}
    for prefix in PREFIXES:
        if all(k.startswith(prefix) for k in state):
            state = {k[len(prefix) :]: v for k, v in state.items()}
    return state


def _is_pickle(path: Path) -> bool:
    """A zip archive as torch writes it, or a bare pickle (protocol 2 or later starts with 0x80)."""
    with path.open("rb") as file:
        return zipfile.is_zipfile(path) or file.read(1) == b"\x80"


def shape_of(state: Mapping[str, Tensor], key: str, where: str) -> tuple[int, ...]:
    """The shape of a tensor of the file. Raises CheckpointError when it is not there."""
    if key not in state:
        raise CheckpointError(f"{where} lacks '{key}'.", hint=HINT)
    return tuple(state[key].shape)


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    """1 + the highest number in the names that match, 0 without any."""
    return max((int(m[1]) + 1 for k in state if (m := re.match(pattern, k))), default=0)


def head_depth(state: Mapping[str, Tensor]) -> int:
    """Layers of the head that predicts IoU."""
    return count(state, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\.")


def sizes(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """SamConfig's parts from shapes alone."""
    try:
        return _sizes(state, where)
    except (ValueError, IndexError, ZeroDivisionError) as error:  # a tensor of another rank than SAM's
        raise CheckpointError(f"{where}: the weights' shapes are not those of a SAM.") from error


def _sizes(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    width, _, patch, _ = shape_of(state, "image_encoder.patch_embed.proj.weight", where)
    _, grid, _, _ = shape_of(state, "image_encoder.pos_embed", where)
    blocks = count(state, r"image_encoder\.blocks\.(\d+)\.")
    relative = "image_encoder.blocks.0.attn.rel_pos_h" in state
    spans = (
        [shape_of(state, f"image_encoder.blocks.{i}.attn.rel_pos_h", where) for i in range(blocks)] if relative else []
    )
    if not relative and width not in VIT_HEADS:
        raise CheckpointError(f"{where}: its weights do not tell the number of heads of a ViT of width {width}.")
    heads = width // spans[0][1] if relative else VIT_HEADS[width]
    full = 2 * grid - 1
    windows = {(s[0] + 1) // 2 for s in spans if s[0] != full}
    stride = blocks // 4 or 1  # build_sam.py: every fourth part of the depth ends in a global block
    hidden = shape_of(state, "mask_decoder.iou_token.weight", where)[1]
    cross = "mask_decoder.transformer.final_attn_token_to_image.q_proj.weight"
    return {
        "vision_config": {
            "hidden_size": width,
            "output_channels": shape_of(state, "image_encoder.neck.0.weight", where)[0],
            "num_hidden_layers": blocks,
            "num_attention_heads": heads,
            "image_size": grid * patch,
            "patch_size": patch,
            "qkv_bias": "image_encoder.blocks.0.attn.qkv.bias" in state,
            "use_rel_pos": relative,
            "window_size": windows.pop() if windows else 14,
            "global_attn_indexes": [i for i, s in enumerate(spans) if s[0] == full]
            if relative
            else list(range(stride - 1, blocks, stride)),
            "num_pos_feats": shape_of(state, "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", where)[1],
            "mlp_dim": shape_of(state, "image_encoder.blocks.0.mlp.lin1.weight", where)[0],
            "initializer_range": 0.02,
        },
        "prompt_encoder_config": {
            "hidden_size": hidden,
            "image_size": grid * patch,
            "patch_size": patch,
            "mask_input_channels": shape_of(state, "prompt_encoder.mask_downscaling.3.weight", where)[0],
            "num_point_embeddings": count(state, r"prompt_encoder\.point_embeddings\.(\d+)\."),
        },
        "mask_decoder_config": {
            "hidden_size": hidden,
            "mlp_dim": shape_of(state, "mask_decoder.transformer.layers.0.mlp.lin1.weight", where)[0],
            "num_hidden_layers": count(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
            "num_attention_heads": DECODER_HEADS,
            "attention_downsample_rate": hidden // shape_of(state, cross, where)[0],
            "num_multimask_outputs": shape_of(state, "mask_decoder.mask_tokens.weight", where)[0] - 1,
            "iou_head_depth": head_depth(state),
            "iou_head_hidden_dim": shape_of(state, "mask_decoder.iou_prediction_head.layers.0.weight", where)[0],
        },
    }
