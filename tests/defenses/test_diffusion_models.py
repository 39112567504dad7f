"""Reading diffusion models: whatever cannot purify a photograph is one line, and other weights are another defence."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from redsam.defenses import DefendedSegmenter, diffusion_models, parse
from redsam.defenses.diffusion_models import Denoiser, denoiser
from redsam.errors import CheckpointError, InputError, MissingExtra, RedsamError
from redsam.models import tiny as tiny_segmenter
from tests.defenses.conftest import pictures
from tests.defenses.test_diffusion import saved

diffusers = pytest.importorskip("diffusers")


@pytest.mark.parametrize(
    "changes",
    [
        {"in_channels": 1, "out_channels": 1},
        {"in_channels": 4, "out_channels": 4},
        {"out_channels": 4},
        {"num_class_embeds": 10},
    ],
)
def test_models_of_other_pictures(tmp_path: Path, changes: dict[str, int]) -> None:
    folder = saved(tmp_path / "other", **changes)
    for name in ("diffpure", "zip"):
        with pytest.raises(InputError, match="channels|class") as caught:
            parse(f"{name}:model={folder}")
        assert "\n" not in str(caught.value)


def test_a_learned_variance_is_dropped(tmp_path: Path) -> None:
    folder = saved(tmp_path / "six", out_channels=6)
    assert parse(f"diffpure:steps=1,model={folder}").run(pictures(1)).shape == pictures(1).shape


@pytest.mark.parametrize("kind", ["sample", "v_prediction"])
def test_what_is_predicted_becomes_noise(tmp_path: Path, kind: str) -> None:
    """Against diffusers' own guess of the picture."""
    found = denoiser(saved(tmp_path / kind, prediction_type=kind))
    theirs = diffusers.DDIMScheduler(clip_sample=False, prediction_type=kind)
    theirs.set_timesteps(10)
    x, t = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), 400
    with torch.no_grad():
        eps = found.noise(found.network, x, t)
        wanted = theirs.step(found.network(x, t).sample, t, x).pred_original_sample
    torch.testing.assert_close(found.schedule.guess(x, t, eps), wanted, rtol=1e-4, atol=1e-4)


def test_both_layouts_and_half_precision(tmp_path: Path) -> None:
    """A pipeline's folder, and network and scheduler side by side as the first DDPMs lie on the hub."""
    folder = Path(saved(tmp_path / "one"))
    flat = tmp_path / "flat"
    diffusers.UNet2DModel.from_pretrained(folder / "unet").half().save_pretrained(flat)
    diffusers.DDPMScheduler.from_pretrained(folder / "scheduler").save_pretrained(flat)
    found, other = denoiser(str(folder)), denoiser(str(flat))
    assert isinstance(found, Denoiser) and found.schedule == other.schedule and found.side == 16
    for a, b in zip(found.network.state_dict().values(), other.network.state_dict().values(), strict=True):
        assert b.dtype == torch.float32 and torch.equal(a.half().float(), b)
    assert found.schedule.abar == tuple(diffusers.DDPMScheduler().alphas_cumprod.double().tolist())


def broken(folder: Path, what: str) -> None:
    if what == "no scheduler":
        (folder / "scheduler" / "scheduler_config.json").unlink()
    elif what == "no weights":
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    elif what == "pickle only":
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")
    elif what == "cut off":
        file = folder / "unet" / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
    elif what == "config no JSON":
        (folder / "unet" / "config.json").write_text("{")
    elif what == "another kind":
        config = json.loads((folder / "unet" / "config.json").read_text())
        (folder / "unet" / "config.json").write_text(json.dumps(config | {"_class_name": "UNet2DConditionModel"}))
    elif what == "other shapes":
        config = json.loads((folder / "unet" / "config.json").read_text())
        (folder / "unet" / "config.json").write_text(json.dumps(config | {"block_out_channels": [8, 24]}))
    elif what == "not finite":
        network = diffusers.UNet2DModel.from_pretrained(folder / "unet")
        network.conv_in.bias.data[0] = float("nan")
        network.save_pretrained(folder / "unet")
    elif what == "another schedule":
        file = folder / "scheduler" / "scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"beta_schedule": "unheard of"}))
    else:
        file = folder / "scheduler" / "scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "flow"}))


@pytest.mark.parametrize(
    "what",
    [
        "no scheduler", "no weights", "pickle only", "cut off", "config no JSON", "another kind", "other shapes",
        "not finite", "another schedule", "another prediction",
    ],
)  # fmt: skip
def test_folders_that_hold_no_model(tmp_path: Path, what: str) -> None:
    folder = Path(saved(tmp_path / "broken"))
    broken(folder, what)
    with pytest.raises(RedsamError) as caught:
        parse(f"diffpure:steps=1,model={folder}").run(pictures(1))
    assert isinstance(caught.value, InputError | CheckpointError) and "\n" not in str(caught.value)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    purifier = parse(f"zip:model={saved(tmp_path / 'one')}")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtra, match=r"redsam\[diffusion\]"):
        purifier.run(pictures(1))


def test_a_hub_id_is_asked_for_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def nothing(repository: str, name: str) -> str:
        asked.append(name)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", nothing)
    purifier = parse("diffpure:model=somebody/photographs")
    assert not asked
    with pytest.raises(CheckpointError, match="hub"):
        purifier.run(pictures(1))
    assert asked == ["unet/config.json", "config.json"]


def test_other_weights_are_another_defence(tmp_path: Path) -> None:
    one = Path(saved(tmp_path / "one"))
    network = diffusers.UNet2DModel.from_pretrained(one / "unet")
    network.conv_in.weight.data *= 1.01
    other = tmp_path / "other"
    diffusers.DDPMPipeline(unet=network, scheduler=diffusers.DDPMScheduler()).save_pretrained(other)
    purifiers = [parse(f"diffpure:model={folder}") for folder in (one, other)]
    assert purifiers[0].learned != purifiers[1].learned and len(purifiers[0].learned) == 16
    model = DefendedSegmenter(tiny_segmenter("sam"), purifiers[0])
    assert model.defense["purifiers"][0]["weights"] == purifiers[0].learned
    assert diffusion_models.placed(str(one), torch.device("cpu"), torch.float64) is diffusion_models.placed(
        str(one), torch.device("cpu"), torch.float64
    )
