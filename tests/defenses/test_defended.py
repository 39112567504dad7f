"""A defended model keeps the promises of every model, is attacked through its defence, and answers the same twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from redsam import registry
from redsam.attacks.base import Attack
from redsam.defenses import DefendedSegmenter, Purifier, base, load
from redsam.errors import InputError, UnknownName
from redsam.models import Segmenter, draws, tiny
from redsam.models.features import tap
from redsam.prompts import box, point
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8
from tests.models import conftest as models
from tests.models import test_conformance as suite

PURE = "gaussian:sigma=0.7"
CHAINS = (PURE, "jpeg:quality=60|median", "resize-pad:least=0.7", "noise:sigma=0.03|bit-depth:bits=6")
FAST = Threat(eps=8 / 255)


def defended(chain: str, *, seed: int = 3, eot: int = 3, dtype: torch.dtype = torch.float32) -> DefendedSegmenter:
    return DefendedSegmenter(tiny("sam", seed=seed, dtype=dtype), chain, eot=eot)


@pytest.fixture(params=CHAINS)
def model(request: pytest.FixtureRequest) -> DefendedSegmenter:
    return defended(request.param)


def attack(name: str, **args: object) -> Attack:
    made: Attack = registry.create("attack", name, **args)
    return made


# --- the suite of all models ---------------------------------------------------------------------------------------
def test_the_suite_of_all_models(model: Segmenter) -> None:
    suite.test_batch_equals_loop(model, models.picture, models.prompts_for)
    suite.test_same_size_tensor_equals_list(model, models.picture)
    suite.test_weights_stay_frozen_and_answers_repeat(model, models.picture, models.prompts_for)
    suite.test_predict_refuses_what_no_file_can_hold(model, models.picture)


@pytest.mark.parametrize("kind", ["point", "box", "mask"])
def test_prompts_move_with_the_image(kind: str) -> None:
    suite.test_prompts_move_with_the_image(defended(PURE), models.picture, kind)


@pytest.mark.parametrize("chain", [PURE, "resize-pad:least=0.7", "tv:steps=4,drop=0|gaussian"])
def test_gradients_are_those_of_finite_differences(chain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding is straight-through, so it is taken out: what is left must be exact, through defence and model."""
    monkeypatch.setattr(base, "rounded", lambda images: images.detach())
    made = defended(chain, seed=1, dtype=torch.float64)
    monkeypatch.setattr(suite, "tiny", lambda *_, **__: made)
    suite.test_gradient_agrees_with_finite_differences("sam", models.picture, models.prompts_for)


def test_the_encoder_runs_once_for_all_prompts(model: DefendedSegmenter) -> None:
    calls: list[int] = []
    model.undefended.net.vision_encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    model.predict(models.picture(40, 56)[None], [models.prompts_for(40, 56)])
    assert calls == [1]


# --- what it is ----------------------------------------------------------------------------------------------------
def test_it_is_the_model_on_purified_images() -> None:
    plain = tiny("sam", seed=3)
    model = DefendedSegmenter(plain, "jpeg:quality=40|gaussian")
    image, prompts = models.picture(40, 56)[None], [models.prompts_for(40, 56)]
    by_hand = model.purifiers[1].run(model.purifiers[0].run(image))
    wanted, got = plain.predict(by_hand, prompts)[0], model.predict(image, prompts)[0]
    assert torch.equal(wanted.logits, got.logits)
    assert not torch.equal(got.logits, plain.predict(image, prompts)[0].logits)
    assert torch.equal(model.purified(image), by_hand) and torch.equal(model.purified([image[0]])[0], by_hand[0])


def test_names_and_fingerprints() -> None:
    plain = tiny("sam", seed=3)
    one, other = DefendedSegmenter(plain, "jpeg"), DefendedSegmenter(plain, "jpeg:quality=50|median")
    assert (one.name, other.name) == ("tiny-sam+jpeg", "tiny-sam+jpeg:quality=50+median")
    assert (one.draws, DefendedSegmenter(plain, "noise", eot=5).draws) == (1, 5)
    prints = [m.fingerprint() for m in (plain, one, other, DefendedSegmenter(plain, "jpeg", seed=1))]
    assert len(set(prints)) == 4
    twice = DefendedSegmenter(one, "median")
    assert twice.label == "median|jpeg" and twice.undefended is plain and one.undefended is plain
    assert plain.undefended is plain and plain.defense is None and one.defense is not None
    assert one.family == "sam" and one.mask_size == plain.mask_size and len(tap(one, models.picture(40, 56)[None])[1])


def test_loading() -> None:
    net = tiny("sam", seed=3).model
    assert load(net, name="m").name == "m"
    assert load(net, name="m", defenses=("jpeg:quality=50", "median")).name == "m+jpeg:quality=50+median"
    for text in ("lab-b|jpg", "lab-b|jpeg:quality=0", "lab-c|jpeg"):
        with pytest.raises((InputError, UnknownName)):
            load(text)
    for bad in (0, -1, 1.5, True):
        with pytest.raises(InputError):
            load(net, defenses="noise", eot=bad)
    with pytest.raises(InputError, match="without a defence"):
        DefendedSegmenter(tiny("sam"), ())


def test_detections_need_a_model_of_texts() -> None:
    with pytest.raises(InputError, match="takes no text"):
        defended(PURE).detect(models.picture(20, 20), "dog")


# --- random defences -----------------------------------------------------------------------------------------------
def test_answers_repeat_and_other_images_are_other_draws() -> None:
    model = defended("noise:sigma=0.1")
    image = models.picture(40, 56)[None]
    other = image.clone()
    other[0, 0, 0, 0] = from_uint8(to_uint8(1 - other[0, 0, 0, 0]))
    first, again, third = (model.prepare(x, exact=True) for x in (image, image, other))
    assert torch.equal(first, again)
    assert float((first - third)[..., 10:, :].abs().mean()) > 0.01, "one noise for all images"


def test_an_attacker_does_not_see_the_deployed_draw() -> None:
    model, image = defended("noise:sigma=0.1"), models.picture(40, 56)[None]
    seen = []
    for draw in range(3):
        with draws.looking_at(draw):
            seen.append(model.prepare(image, exact=False))
    deployed = model.prepare(image, exact=True)
    pictures = [deployed, *seen]
    assert all(not torch.equal(a, b) for i, a in enumerate(pictures) for b in pictures[:i])
    assert torch.equal(model.prepare(image, exact=False), seen[0])


@dataclass(frozen=True, kw_only=True)
class Recorder(Purifier):
    """Remembers what it saw. Deviation: none."""

    seen: list[int]

    def purify(self, images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        self.seen.append(len(images))
        return images


def test_gradients_are_means_over_draws_and_only_there() -> None:
    image, prompts = models.picture(40, 56)[None], [[point(20, 20)]]
    seen: list[int] = []
    made = [DefendedSegmenter(tiny("sam", seed=3), [Recorder(seen=seen)], eot=eot) for eot in (4, 1)]
    assert made[0].draws == 4, "a class nobody registered is taken to be random"
    four, one = (attack("pgd", steps=3).run(m, image, prompts, threat=FAST) for m in made)
    assert made[0].fingerprint() != made[0].undefended.fingerprint() and made[0].defense["eot"] == 4
    assert four.gradients == 3 * 4 and four.forwards == 3 * 4 + 4 and len(seen) == 16 + 4
    assert one.gradients == 3 and one.forwards == 3 + 1
    # Four equal looks at a purifier that does nothing are one look: the same images.
    assert torch.equal(four.images, one.images)


def test_the_mean_gradient_is_that_of_the_mean_loss() -> None:
    model, image = defended("noise:sigma=0.1", eot=3), models.picture(40, 56)[None]
    from redsam.attacks.loop import Evaluation, State, slope

    def evaluate(x: Tensor, active: Sequence[int], progress: float) -> Evaluation:
        low = model.decode(model.encode(x), [[point(20, 20)]]).low_res.mean((1, 2, 3))
        return Evaluation(loss=low, rank=low.detach(), reached=low.detach() < -1e9)

    state = State(
        threat=FAST, steps=1, clean=image, region=None, x=image, best=image, best_rank=torch.zeros(1), generators=[],
        active=[0], rows=torch.zeros(1, dtype=torch.long),
    )  # fmt: skip
    with draws.expecting(3):
        found, gradient = slope(evaluate, state, image)
    each, losses = [], []
    for draw in range(3):
        leaf = image.clone().requires_grad_()
        with draws.looking_at(draw):
            loss = evaluate(leaf, [0], 0.0).loss
        losses.append(loss.detach())
        each.append(torch.autograd.grad(loss.sum(), leaf)[0])
    assert not torch.equal(each[0], each[1])
    torch.testing.assert_close(gradient, torch.stack(each).mean(0))
    torch.testing.assert_close(found.rank, torch.stack(losses).mean(0))
    assert found.reached is not None and not bool(found.reached)
    assert draws.count() == 1 and draws.current() == 0


@pytest.mark.parametrize("chain", CHAINS)
def test_an_attack_gets_through_and_a_batch_equals_a_loop(chain: str) -> None:
    model = defended(chain, eot=2)
    images = torch.stack([models.picture(40, 56, seed=s) for s in (1, 2)])
    prompts = [[point(20, 20)], [box(5, 5, 40, 30)]]
    pgd = attack("pgd", steps=3)
    together = pgd.run(model, images, prompts, threat=FAST, seeds=[1, 2])
    assert not any(together.flags)
    for i in range(2):
        alone = pgd.run(model, images[i : i + 1], prompts[i : i + 1], threat=FAST, seeds=[i + 1])
        assert float((alone.images[0].int() - together.images[i].int()).abs().float().mean()) < 0.2
    assert bool((together.losses[-1] < together.losses[0]).all()) or model.draws > 1
