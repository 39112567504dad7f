"""Texts as a prompt kind: what is refused, how instances become one mask, and that attacks follow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from redsam import registry
from redsam.errors import InputError
from redsam.models import tiny
from redsam.models.text import MAX_INSTANCES, TextSegmenter, Uncut, margin, strongest, tokens, union
from redsam.models.tiny_text import tiny_tokenizer
from redsam.prompts import Prompt, point, text
from redsam.threat import Threat

FAMILIES = [e.name for e in registry.entries("model") if e.obj.takes_text]


def image(height: int = 40, width: int = 56, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed)) / 255.0


@pytest.mark.parametrize("name", ["", "   ", "\n\t"])
def test_an_empty_text_is_no_prompt(name: str) -> None:
    with pytest.raises(InputError) as caught:
        text(name)
    assert "\n" not in str(caught.value)


def test_a_text_of_ten_thousand_characters_is_refused_in_a_short_line() -> None:
    with pytest.raises(InputError, match="10,000 characters") as caught:
        text("x" * 10_000)
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


def test_a_text_stands_alone_and_is_spelled_in_one_line() -> None:
    with pytest.raises(InputError, match="stands alone"):
        both = Prompt(text="dog", points=((1, 1),), labels=(1,))
        tiny("grounded-owlv2").predict(image()[None], [[both]])
    assert text("  a \n red\tcar ").text == "a red car"
    assert text("dog").kind == "text" and text("dog").to_dict() == {"kind": "text", "text": "dog"}
    found = Prompt(text="dog", found=((1.0, 2.0, 3.0, 4.0),))
    assert found.to_dict()["found"] == [[1.0, 2.0, 3.0, 4.0]]


def test_a_model_without_texts_says_how_to_ground_it() -> None:
    model = tiny("sam")
    with pytest.raises(InputError, match=r"takes no text prompt.*grounded:"):
        model.predict(image()[None], [[text("dog")]])


@pytest.mark.parametrize("family", ["sam3", "lab-text"])
def test_a_model_of_texts_only_refuses_a_click(family: str) -> None:
    with pytest.raises(InputError, match="takes texts only"):
        tiny(family).predict(image()[None], [[point(3, 3)]])


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "lab-text"])  # which has no limit but the prompt's
def test_more_tokens_than_the_model_reads_are_refused(family: str) -> None:
    with pytest.raises(InputError, match="tokens long") as caught:
        tiny(family).predict(image()[None], [[text("many words " * 80)]])
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("family", FAMILIES)
def test_detections_are_inside_above_the_threshold_and_sorted(family: str) -> None:
    model = tiny(family, seed=1)
    assert isinstance(model, TextSegmenter)
    model.threshold = 0.02
    found = model.detect(image(), "dog")
    assert found or family in ("lab-text", "sam3")
    for one in found:
        x0, y0, x1, y1 = one.box
        assert 0 <= x0 < x1 <= 56 and 0 <= y0 < y1 <= 40 and model.threshold < one.score <= 1
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    model.threshold = 0.999999
    assert model.detect(image(), "dog") == []
    empty = model.predict(image()[None], [[text("dog")]])[0]
    assert not empty.masks.any() and float(empty.iou) <= (1 if family == "lab-text" else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_attack_changes_what_a_text_means(family: str) -> None:
    """PGD towards another mask, through everything: the loss falls and the image stays in its budget."""
    model = tiny(family, seed=1)
    attack = registry.create("attack", "pgd", steps=4, objective="mse")
    reference = [torch.ones(1, 40, 56, dtype=torch.bool)]
    result = attack.run(
        model, image()[None], [[text("dog")]], threat=Threat(eps=16 / 255), reference=reference, seeds=[0]
    )
    assert float(result.losses[-1, 0]) < float(result.losses[0, 0])
    assert result.budget[0].linf <= 16 / 255 + 1e-6


def test_union_is_the_published_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randn(6, 9, 9, generator=generator) * 5
    scores = torch.tensor([0.9, 0.31, 0.3, 0.29, 0.05, 0.6])
    best = strongest(scores, 0.3)
    wanted = ((masks > 0) & (scores > 0.3)[:, None, None]).any(0)
    assert sorted(best.tolist()) == [0, 1, 5] and best.tolist() == [0, 5, 1]
    assert torch.equal(union(masks[best], scores[best], 0.3) > 0, wanted)
    assert margin(torch.tensor([0.0, 0.3, 0.6]), 0.3).tolist() == pytest.approx([-10, 0, 10])


def test_where_nothing_is_found_the_best_still_has_a_gradient() -> None:
    masks = (torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(1)) + 4).requires_grad_()
    scores = torch.tensor([0.1, 0.25, 0.2], requires_grad=True)
    best = strongest(scores, 0.3)
    logits = union(masks[best], scores[best], 0.3)
    assert best.tolist() == [1] and bool((logits < 0).all())
    (gradient,) = torch.autograd.grad(logits.sum(), scores)
    assert gradient[1] > 0 and gradient[0] == 0
    assert len(strongest(torch.linspace(0.5, 0.9, 500), 0.3)) == MAX_INSTANCES


def test_detach_passes_on_inside_only() -> None:
    x = torch.ones(2, requires_grad=True)
    with Uncut():
        kept = x.detach() * 2
        with torch.no_grad():
            assert not (x * 1).requires_grad
    assert kept.requires_grad and not x.detach().requires_grad


def test_tokens_without_a_tokenizer_say_what_to_save() -> None:
    with pytest.raises(InputError, match=r"tokenizer\.save_pretrained"):
        tokens(None, ["dog"], limit=5, device=torch.device("cpu"))
    given = tokens(tiny_tokenizer("bert"), ["dog.", "a"], limit=9, device=torch.device("cpu"))
    assert given["input_ids"][0].tolist()[0] == 101 and given["input_ids"][0].tolist()[-2:] == [1012, 102]
    assert given["attention_mask"].sum(1).tolist() == [6, 3]
