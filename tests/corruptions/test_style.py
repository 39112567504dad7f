"""Style from a reference: statistics that must come out equal, bands that must be swapped, networks brought along."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from redsam.corruptions import reference
from redsam.corruptions.fda import band, swap
from redsam.corruptions.reinhard import from_lab, to_lab
from redsam.corruptions.resnet_generator import ResnetGenerator, read_generator
from redsam.corruptions.wct import PATCH, basis, patches, unpatch, whiten_colour
from redsam.data.demo import demo_root
from redsam.data.images import read_image, write_png
from redsam.errors import CheckpointError, InputError
from redsam.metrics import psnr
from redsam.registry import create
from redsam.seeds import generator
from redsam.types import from_uint8, to_uint8

STYLES = ("reinhard", "fda", "wct", "adain")


@pytest.fixture(scope="module")
def photo() -> Tensor:
    """1x3xHxW, a cup."""
    return read_image(demo_root() / "coffee.jpg")[None, :, :120, :150].contiguous()


@pytest.fixture(scope="module")
def flower() -> str:
    return str(demo_root() / "flower.jpg")


def noise(name: str, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator(name), dtype=torch.float64)


def test_lab_there_and_back(photo: Tensor) -> None:
    lab = to_lab(photo[0])
    torch.testing.assert_close(
        from_lab(lab).reshape(3, 120, 150), photo[0].double().clamp_min(1 / 255), atol=1e-9, rtol=0
    )


def test_lab_of_grey_has_no_colour() -> None:
    """Reinhard's cones sum to nearly one in each row, so grey has alpha and beta of nearly zero."""
    lab = to_lab(torch.full((3, 2, 2), 0.5))
    assert float(lab[0, 0]) == pytest.approx(3**0.5 * -0.301, abs=0.01)
    assert float(lab[1:].abs().max()) < 0.01


def test_reinhard_takes_the_references_statistics() -> None:
    image, style = noise("a", 3, 40, 50) * 0.5 + 0.2, noise("b", 3, 30, 20) * 0.3 + 0.4
    out = from_lab(reference.match_moments(to_lab(image), to_lab(style)))
    found, wanted = reference.moments(to_lab(out.reshape(image.shape))), reference.moments(to_lab(style))
    torch.testing.assert_close(found[0], wanted[0], atol=1e-8, rtol=0)
    torch.testing.assert_close(found[1], wanted[1], atol=1e-8, rtol=0)


def test_half_the_way_has_statistics_half_way() -> None:
    a, b = noise("a", 3, 200), noise("b", 3, 100) * 4 + 1
    half = reference.moments(reference.match_moments(a, b, 0.5))
    for k in range(2):
        torch.testing.assert_close(half[k], (reference.moments(a)[k] + reference.moments(b)[k]) / 2)


def test_a_flat_image_only_moves() -> None:
    out = reference.match_moments(torch.full((3, 10), 0.5), noise("b", 3, 100))
    assert bool(out.isfinite().all())
    torch.testing.assert_close(out, reference.moments(noise("b", 3, 100))[0].expand(3, 10))


def test_fda_with_beta_zero_is_identity() -> None:
    image = noise("a", 3, 24, 31)
    torch.testing.assert_close(swap(image, noise("b", 3, 24, 31), 0.0), image, atol=1e-12, rtol=0)


def test_fda_swaps_amplitudes_in_the_band_and_keeps_phases() -> None:
    image, style = noise("a", 3, 40, 60), noise("b", 3, 40, 60)
    spectra = [torch.fft.fft2(t) for t in (image, style, swap(image, style, 0.1))]
    inside = torch.zeros(40, 60, dtype=torch.bool)
    for down in range(-3, 4):  # below 0.1 * 40 = 4 and 0.1 * 60 = 6 cycles
        for across in range(-5, 6):
            inside[down, across] = True
    assert torch.equal(band((40, 60), 0.1), inside)
    torch.testing.assert_close(spectra[2].abs()[:, inside], spectra[1].abs()[:, inside])
    torch.testing.assert_close(spectra[2][:, ~inside], spectra[0][:, ~inside])
    turn = spectra[2] * spectra[0].conj()
    assert float((turn.imag.abs() / turn.abs()).max()) < 1e-6
    assert float(turn.real.min()) > 0


def test_whitening_and_colouring_takes_the_references_covariance() -> None:
    mix = torch.randn(12, 12, generator=generator("mix"), dtype=torch.float64)
    features, style = noise("a", 12, 500), mix @ noise("b", 12, 300)
    out = whiten_colour(features, style)
    torch.testing.assert_close(out.mean(1), style.mean(1))
    torch.testing.assert_close(torch.cov(out, correction=0), torch.cov(style, correction=0), atol=1e-8, rtol=1e-6)


def test_whitening_does_not_blow_up_what_has_no_variance() -> None:
    out = whiten_colour(torch.zeros(5, 40), noise("b", 5, 60))
    torch.testing.assert_close(out, noise("b", 5, 60).mean(1, keepdim=True).expand(5, 40))


@pytest.mark.parametrize("size", [(2, 2), (16, 24), (37, 53)])
def test_patches_have_an_exact_way_back(size: tuple[int, int]) -> None:
    image = noise("a", 3, *size)
    side = 3 * PATCH**2
    torch.testing.assert_close(basis() @ basis().T, torch.eye(side, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(unpatch(patches(image), size), image, atol=1e-12, rtol=0)


def test_the_first_feature_of_a_patch_is_its_brightness() -> None:
    found = patches(torch.full((3, 16, 16), 0.25))
    torch.testing.assert_close(found[0], torch.full_like(found[0], 0.25 * (3 * PATCH**2) ** 0.5))
    assert float(found[1:].abs().max()) < 1e-12


@pytest.mark.parametrize("name", STYLES)
def test_stronger_is_nearer_to_the_reference(name: str, photo: Tensor, flower: str) -> None:
    made = [create("corruption", name, severity=s, reference=flower).run(photo).images for s in (1, 3, 5)]
    found = [float(psnr(m, photo)[0]) for m in made]
    assert found[0] > found[1] > found[2]
    wanted = read_image(flower).mean((1, 2))
    gaps = [float((m[0].mean((1, 2)) - wanted).abs().sum()) for m in (photo, made[-1])]
    assert gaps[1] < gaps[0]


@pytest.mark.parametrize("name", STYLES)
def test_the_reference_is_never_the_image(name: str, photo: Tensor, tmp_path: Path) -> None:
    file = tmp_path / "same.png"
    write_png(file, to_uint8(photo[0]))
    with pytest.raises(InputError, match="image itself"):
        create("corruption", name, reference=str(file)).run(photo)
    first = reference.bundled(reference.BUNDLED[0])
    assert not reference.same(reference.reference_for(first, None), first)
    with pytest.raises(InputError):
        create("corruption", name, reference=str(tmp_path / "missing.jpg")).run(photo)


def test_features_of_a_network_brought_along(photo: Tensor, flower: str) -> None:
    """With 2x2 blocks as features and shuffling as the way back, the features themselves must have the covariance."""
    made = create(
        "corruption", "wct", severity=5, reference=flower,
        encoder=nn.PixelUnshuffle(2), decoder=nn.PixelShuffle(2),
    ).corrupt(photo, [generator("unused")])  # fmt: skip
    found, wanted = (nn.PixelUnshuffle(2)(t).flatten(2)[0].double() for t in (made, read_image(flower)[None]))
    torch.testing.assert_close(torch.cov(found), torch.cov(wanted), atol=2e-3, rtol=0.05)
    with pytest.raises(InputError, match="go together"):
        create("corruption", "wct", encoder=nn.Identity())
    with pytest.raises(InputError, match="encoder made"):
        create("corruption", "wct", encoder=lambda x: x[0], decoder=nn.Identity()).run(photo)


def tiny_generator() -> ResnetGenerator:
    network = ResnetGenerator(width=4, blocks=2)
    random = generator("weights")
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) * 0.1
    return network.eval()


def test_generator_from_a_file_is_the_network(photo: Tensor, tmp_path: Path) -> None:
    network, file = tiny_generator(), tmp_path / "g.safetensors"
    old = {f"model.{k}.running_mean": torch.zeros(4) for k in (2, 5)}  # as in checkpoints of old PyTorch
    save_file({**network.state_dict(), **old}, file)
    image = photo[..., :50, :61].contiguous()
    with torch.no_grad():
        wanted = network(image)
    full = create("corruption", "generator", weights=str(file), severity=5).run(image).images
    assert float((full - wanted).abs().max()) <= 0.5 / 255 + 1e-5
    mixed = create("corruption", "generator", network=network, severity=2).run(image).images
    assert float((mixed - (image * 0.6 + wanted * 0.4)).abs().max()) <= 0.5 / 255 + 1e-5


def test_published_names_and_shapes() -> None:
    """The first convolution, a block's second one and the last, of nine blocks, where published files have them."""
    state = ResnetGenerator().state_dict()
    assert state["model.1.weight"].shape == (64, 3, 7, 7)
    assert state["model.4.weight"].shape == (128, 64, 3, 3)
    assert state["model.18.conv_block.5.bias"].shape == (256,)
    assert state["model.19.weight"].shape == (256, 128, 3, 3)
    assert state["model.26.weight"].shape == (3, 64, 7, 7)
    assert sum(t.numel() for t in state.values()) == 11_378_179  # the 11.378 M that its authors print


def test_files_that_are_no_generator(tmp_path: Path, photo: Tensor) -> None:
    script, junk, other = tmp_path / "g.pt", tmp_path / "g.safetensors", tmp_path / "o.safetensors"
    script.write_bytes(b"PK")
    junk.write_bytes(b"not safetensors")
    save_file({"model.1.weight": torch.zeros(4, 3, 7, 7)}, other)
    with pytest.raises(InputError, match="run code"):
        read_generator(script)
    for bad in (junk, other):
        with pytest.raises(CheckpointError):
            read_generator(bad)
    with pytest.raises(InputError, match="no such file"):
        create("corruption", "generator", weights=str(tmp_path / "none.safetensors")).run(photo)
    with pytest.raises(InputError, match="got none"):
        create("corruption", "generator").run(photo)
    with pytest.raises(InputError, match="one of them"):
        create("corruption", "generator", weights="a", network=nn.Identity())
    with pytest.raises(InputError, match="network made"):
        create("corruption", "generator", network=lambda x: x[:, :1]).run(photo)


def test_two_references_two_pictures(photo: Tensor, flower: str) -> None:
    images = from_uint8(to_uint8(photo))
    made = [create("corruption", "reinhard", reference=r).run(images).images for r in (None, flower)]
    assert not torch.equal(*made)
