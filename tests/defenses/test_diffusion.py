"""Diffusion purifiers with a tiny network, against diffusers' own schedulers and the papers' equations in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from redsam.defenses import DefendedSegmenter, diffusion_models, diffusion_tiles, parse
from redsam.defenses.diffpure import DiffPure
from redsam.defenses.diffusion import CLEAN, Schedule, pairs
from redsam.defenses.diffusion_purifier import DiffusionPurifier
from redsam.defenses.diffusion_tiles import canvas, enlarge, starts, tiled
from redsam.defenses.zip import Zip
from redsam.errors import InputError
from redsam.models import Segmenter, draws
from redsam.models import tiny as tiny_segmenter
from redsam.prompts import point
from tests.defenses.conftest import pictures

diffusers = pytest.importorskip("diffusers")
SIDE = 16


def saved(folder: Path, **changes: Any) -> str:
    """A DDPMPipeline of a tiny network with weights that matter."""
    schedule = {k: changes.pop(k) for k in ("prediction_type",) if k in changes}
    settings = {
        "sample_size": SIDE, "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "add_attention": False,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = diffusers.UNet2DModel(**(settings | changes))
    scheduler = diffusers.DDPMScheduler(clip_sample=False, **schedule)
    diffusers.DDPMPipeline(unet=network, scheduler=scheduler).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("model") / "tiny")


def normals(seed: int, shape: tuple[int, ...]) -> Any:
    """A source of noise that can be asked again."""
    random = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=random, dtype=torch.float64)


def double(model: str) -> Any:
    """The network as diffusers calls it."""
    network = diffusion_models.placed(model, torch.device("cpu"), torch.float64)
    return lambda x, t: network(x, t).sample


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_the_way_back_is_that_of_diffusers(tiny: str, sampler: str) -> None:
    """200 thousandths in 20 steps of 10: the last fifth of a chain of 100 steps."""
    shape = (1, 3, SIDE, SIDE)
    x, network = normals(1, shape)().clamp(-1, 1), double(tiny)
    ours = DiffPure(model=tiny, t=200, steps=20, sampler=sampler).diffuse(
        x, diffusion_models.denoiser(tiny).schedule, network, normals(2, shape)
    )
    kind = {"ddpm": diffusers.DDPMScheduler, "ddim": diffusers.DDIMScheduler}[sampler]
    theirs = kind(clip_sample=False)
    if sampler == "ddim":
        theirs.set_timesteps(100)
    else:
        theirs.set_timesteps(timesteps=list(range(999, 0, -10)))
    theirs.alphas_cumprod = theirs.alphas_cumprod.double()
    draw = normals(2, shape)
    state = theirs.add_noise(x, draw(), torch.tensor([199]))
    for t in range(199, 0, -10):
        if sampler == "ddim":
            state = theirs.step(network(state, t), t, state).prev_sample
            continue
        wanted = theirs.step(network(state, t), t, state, generator=torch.Generator().manual_seed(0)).prev_sample
        # Its own noise out, ours in.
        spread = theirs._get_variance(t).sqrt() if t > 9 else 0.0
        own = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        state = wanted - spread * own + spread * draw() if t > 9 else wanted
    torch.testing.assert_close(ours, state, rtol=1e-4, atol=1e-4)


def zip_by_the_paper(x: np.ndarray, network: Any, draw: Any, *, operators: list[str], s: int, trust: float) -> Any:
    """Section 5.1's equations: each operator by itself, with A and A+ as matrices would do it."""

    def kept(a: np.ndarray, operator: str) -> np.ndarray:
        if operator == "grey":
            return np.repeat(a.mean(1, keepdims=True), 3, 1)
        n, c, h, w = a.shape
        means = a.reshape(n, c, h // s, s, w // s, s).mean((3, 5))
        return means.repeat(s, 2).repeat(s, 3)

    betas = np.linspace(1e-4, 0.02, 1000)
    abar = np.append(np.cumprod(1 - betas), 1.0)  # index -1: no noise
    state = draw().numpy()
    for t in range(950, -1, -50):
        to = t - 50 if t else -1
        eps = network(torch.from_numpy(state), t).numpy()
        each = [
            np.sqrt(abar[t]) * kept(x, o) + (state - kept(state, o)) + np.sqrt(1 - abar[t]) * kept(eps, o)
            for o in operators
        ]
        mixed = (1 - abar[t] ** trust) * sum(each) / len(each) + abar[t] ** trust * state
        guess = (mixed - np.sqrt(1 - abar[t]) * eps) / np.sqrt(abar[t])
        sigma = np.sqrt((1 - abar[to]) / (1 - abar[t])) * np.sqrt(1 - abar[t] / abar[to])
        state = np.sqrt(abar[to]) * guess + np.sqrt(1 - abar[to] - sigma**2) * eps
        if to >= 0:
            state = state + sigma * draw().numpy()
    return state


@pytest.mark.parametrize(
    ("transform", "operators"), [("blur", ["blur"]), ("grey", ["grey"]), ("both", ["grey", "blur"])]
)
@pytest.mark.parametrize("trust", [1.0, 0.98, 5.0])
def test_zip_is_its_equations(tiny: str, transform: str, operators: list[str], trust: float) -> None:
    shape = (1, 3, SIDE, SIDE)
    x, network = normals(1, shape)().clamp(-1, 1), double(tiny)
    ours = Zip(model=tiny, transform=transform, trust=trust).diffuse(
        x, diffusion_models.denoiser(tiny).schedule, network, normals(2, shape)
    )
    wanted = zip_by_the_paper(x.numpy(), network, normals(2, shape), operators=operators, s=4, trust=trust)
    np.testing.assert_allclose(ours.numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_zip_without_free_samples_keeps_what_the_transform_keeps(tiny: str) -> None:
    """The null-space identity: guidance alone ends at A+A x exactly, whatever the network says."""
    shape = (1, 3, 8, 8)
    x, schedule = normals(1, shape)().clamp(-1, 1), Schedule((0.5, 1e-3))
    other = normals(3, shape)()
    zipped = Zip(transform="blur", trust=100, steps=2, model=tiny)
    found = zipped.diffuse(x, schedule, lambda state, t: 0.1 * state + other, normals(2, shape))
    torch.testing.assert_close(zipped.kept(found), zipped.kept(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(zipped.kept(zipped.kept(x)), zipped.kept(x))


def test_a_perfect_model_gives_the_photograph_back() -> None:
    schedule = Schedule(tuple(float(a) for a in np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))))
    x = normals(1, (1, 3, 8, 8))().clamp(-1, 1)
    for steps, eta in ((1, 0.0), (7, 0.0), (7, 1.0)):
        state = schedule.noised(x, 499, normals(2, (1, 3, 8, 8))())
        times = [round(500 * (steps - k) / steps) - 1 for k in range(steps)]
        for t, to in pairs(times):
            eps = (state - schedule.at(t) ** 0.5 * x) / (1 - schedule.at(t)) ** 0.5
            state = schedule.back(schedule.guess(state, t, eps), eps, t, to, eta=eta, draw=normals(3, (1, 3, 8, 8)))
        torch.testing.assert_close(state, x, rtol=1e-6, atol=1e-6)
    assert schedule.at(CLEAN) == 1


OPTIONS = [
    "diffpure:steps=3", "diffpure:steps=2,sampler=ddim,tile=8", "diffpure:steps=2,large=residual,side=16",
    "zip:steps=3", "zip:steps=2,transform=both,factor=3,tile=8", "zip:steps=3,start=300,large=residual,side=16",
]  # fmt: skip


@pytest.mark.parametrize("text", OPTIONS)
def test_gradients_are_those_of_finite_differences(tiny: str, text: str) -> None:
    """Through the whole chain, in float64, checkpointed, over several tiles."""
    purifier, random = parse(f"{text},model={tiny}"), torch.Generator().manual_seed(4)
    images = (torch.rand(1, 3, 19, 22, generator=random, dtype=torch.float64) * 0.6 + 0.2).requires_grad_()
    weights = torch.randn(images.shape, generator=random, dtype=torch.float64)

    def score(x: Tensor) -> Tensor:
        return (purifier.purify(x, [torch.Generator().manual_seed(6)]) * weights).sum()

    (gradient,) = torch.autograd.grad(score(images), images)
    for _ in range(3):
        direction = torch.randn(images.shape, generator=random, dtype=torch.float64)
        with torch.no_grad():
            slope = (score(images + 1e-6 * direction) - score(images - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-8)


def test_checkpointing_changes_no_gradient_and_keeps_little(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(1, 24, 24).double().requires_grad_()
    purifier = parse(f"diffpure:steps=4,model={tiny}")

    def gradient() -> tuple[Tensor, int]:
        kept = 0

        def count(value: Tensor) -> Tensor:
            nonlocal kept
            kept += value.numel()
            return value

        with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
            out = purifier.purify(images, [torch.Generator().manual_seed(1)])
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
        return torch.autograd.grad((out * weights).sum(), images)[0], kept

    light, few = gradient()
    monkeypatch.setattr(diffusion_tiles, "checkpoint", lambda function, *args, **_: function(*args))
    plain, many = gradient()
    torch.testing.assert_close(light, plain, rtol=1e-12, atol=1e-14)
    assert few < many / 5


@pytest.mark.parametrize("text", ["diffpure:steps=2", "zip:steps=2"])
def test_an_attacker_gets_the_chain_and_not_the_identity(tiny: str, text: str) -> None:
    """From a mask through the model and the diffusion to the pixel; another draw is another gradient."""
    behind = tiny_segmenter("sam", seed=1)
    model, image = DefendedSegmenter(behind, f"{text},model={tiny}", eot=2), pictures(1, 24, 24)

    def gradient(segmenter: Segmenter, seen: Tensor, draw: int = 0) -> Tensor:
        seen = seen.clone().requires_grad_()
        with draws.looking_at(draw):
            logits = segmenter.decode(segmenter.encode(seen), [[point(9, 9)]]).logits()[0]
        return torch.autograd.grad(logits.square().sum(), seen)[0]

    first, other = gradient(model, image), gradient(model, image, 1)
    bypass = gradient(behind, model.prepare(image, exact=False).detach())  # what BPDA would say
    assert model.draws == 2 and bool(first.isfinite().all()) and float(first.abs().max()) > 0
    assert not torch.equal(first, other) and not torch.allclose(first, bypass, rtol=0.1)


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (40, 33), (16, 100), (59, 61)])
def test_tiles_cover_and_blend_to_one(size: tuple[int, int]) -> None:
    """A network that looks at one pixel at a time sees no tiles; each tile is a whole one."""
    x = normals(5, (1, 3, *size))()
    seen: list[torch.Size] = []

    def network(tiles: Tensor, t: int) -> Tensor:
        seen.append(tiles.shape)
        return tiles.sin() * t

    torch.testing.assert_close(tiled(network, size, tile=16)(x, 3), x.sin() * 3)
    assert {tuple(s[1:]) for s in seen} == {(3, 16, 16)}
    for length in size:
        places = starts(length, 16)
        assert places[0] == 0 and places[-1] == length - 16
        assert all(0 < b - a <= 14 for a, b in zip(places[:-1], places[1:], strict=True)), "neighbours overlap"


@pytest.mark.parametrize("text", ["diffpure:steps=2", "zip:steps=2"])
def test_tiles_give_the_same_bytes_alone_in_a_batch_and_to_an_attacker(tiny: str, text: str) -> None:
    purifier, images = parse(f"{text},model={tiny}"), pictures(2, 33, 40)
    wanted = purifier.run(images, seeds=[1, 2])
    assert torch.equal(purifier.run(images[1:], seeds=[2]), wanted[1:])
    assert torch.equal(purifier.through(images.clone().requires_grad_(), seeds=[1, 2]).detach(), wanted)


def test_tiles_go_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x, sizes = normals(5, (1, 3, 60, 60))(), []
    monkeypatch.setattr(diffusion_tiles, "TOGETHER", 3 * 16**2)

    def network(tiles: Tensor, t: int) -> Tensor:
        sizes.append(len(tiles))
        return tiles

    torch.testing.assert_close(tiled(network, (60, 60), tile=16)(x, 0), x)
    assert max(sizes) == 3 and sum(sizes) == len(starts(60, 16)) ** 2


def test_pictures_are_enlarged_by_their_mirror_image() -> None:
    assert canvas(3, 50, tile=16, multiple=6) == (18, 54) and canvas(40, 16, tile=16) == (40, 16)
    x = torch.arange(3.0).view(1, 1, 1, 3)
    assert enlarge(x, (2, 8))[0, 0].tolist() == [[0, 1, 2, 2, 1, 0, 0, 1]] * 2


def test_the_residual_leaves_what_only_shows_at_full_size(tiny: str) -> None:
    """A small picture is the same either way; a large one keeps its finest pattern, and is purified below that."""
    small = pictures(1, 16, 12)
    one, other = (parse(f"diffpure:model={tiny},large={large},side=16").run(small) for large in ("tiles", "residual"))
    assert torch.equal(one, other)
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).expand(1, 3, 64, 64) * 0.2 + 0.4
    kept, gone = (
        parse(f"diffpure:model={tiny},steps=2,large={large},side=16").purify(board, [torch.Generator().manual_seed(0)])
        for large in ("residual", "tiles")
    )
    # Neighbours differ by 0.2 in turn; a change of a fourth of the size differs little between them.
    turns = torch.tensor([1.0, -1.0]).repeat(32)[:63]
    pattern = [float((x.diff(dim=-1)[..., ::2, :] * turns).mean()) for x in (board, kept, gone)]
    assert pattern[1] == pytest.approx(pattern[0], rel=0.02) and abs(pattern[2] / pattern[0] - 1) > 0.02
    assert float((kept - board).abs().mean()) > 1e-3


@pytest.mark.parametrize(
    "option",
    ["large=whole", "side=-1", "tile=2.5", "sampler=euler", "t=0", "steps=0", "model=nowhere", "model=7", 'model=""'],
)
def test_options_that_cannot_be(tiny: str, option: str) -> None:
    chosen = {"model": tiny} if not option.startswith("model") else {}
    text = ",".join([option, *(f"{k}={v}" for k, v in chosen.items())])
    with pytest.raises(InputError) as caught:
        parse(f"diffpure:{text}")
    assert "\n" not in str(caught.value)


def test_a_tile_the_network_cannot_halve(tiny: str) -> None:
    with pytest.raises(InputError, match="multiple of 2"):
        parse(f"diffpure:model={tiny},tile=15").run(pictures(1))


def test_purifiers_share_their_options() -> None:
    assert issubclass(DiffPure, DiffusionPurifier) and issubclass(Zip, DiffusionPurifier)
    for bad in ("transform=blurry", "factor=0", "trust=0", "start=0"):
        with pytest.raises(InputError):
            parse(f"zip:{bad}")
