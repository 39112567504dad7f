"""sam-autoattack against its own members: as strong as each, cheaper than all, and its version is what it was."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from redsam import registry
from redsam.attacks import autoattack
from redsam.attacks.autoattack import SamAutoAttack
from redsam.attacks.base import Attack, AttackResult
from redsam.attacks.compose import Ledger, Member, deliver, overlap
from redsam.attacks.loop import Trace
from redsam.attacks.task import Task
from redsam.errors import InputError
from redsam.metrics import iou
from redsam.models import Segmenter, tiny
from redsam.prompts import Prompt, point
from redsam.threat import Threat
from redsam.types import from_uint8, to_uint8

# A short list whose members disagree: the later ones are stronger on some images only.
LIST = (
    Member(name="fgsm"),
    Member(name="pgd", args={"steps": 3, "objective": "bce"}),
    Member(name="apgd", args={"steps": 8}),
    Member(name="pgd", args={"steps": 6, "objective": "enlarge"}),
)
LINF, L2 = Threat(eps=6 / 255), Threat(norm="l2", eps=1.5)
COUNT = 4
SEEDS = list(range(COUNT))
Singly = tuple[Threat, list[AttackResult], Tensor]
PROMPTS: list[list[Prompt]] = [[point(9, 9)] for _ in range(COUNT)]


@pytest.fixture(scope="module")
def sam() -> Segmenter:
    return tiny("sam", image_size=32)


@pytest.fixture(autouse=True)
def short_list(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, tuple[Member, ...]]:
    """A version "short" beside the real ones."""
    versions = {**autoattack.VERSIONS, "short": LIST}
    monkeypatch.setattr(autoattack, "VERSIONS", versions)
    return versions


def pictures() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return from_uint8(torch.randint(0, 256, (COUNT, 3, 20, 24), generator=generator, dtype=torch.uint8))


def left(segmenter: Segmenter, result: AttackResult, reference: list[Tensor]) -> Tensor:
    """IoU after the attack, measured here once more: one prompt an image."""
    found = segmenter.predict(from_uint8(result.images), PROMPTS[: len(reference)])
    return torch.stack([iou(m.masks, r)[0] for m, r in zip(found, reference, strict=True)])


def clean_masks(segmenter: Segmenter) -> list[Tensor]:
    return [m.masks for m in segmenter.predict(pictures(), PROMPTS)]


def alone(segmenter: Segmenter, attack: Attack | Member, threat: Threat, **given: list[Tensor]) -> AttackResult:
    """The attack image by image, so that no batch decides how sums are ordered."""
    recipe = attack.make() if isinstance(attack, Member) else attack
    rows = [
        recipe.run(
            segmenter, pictures()[i : i + 1], PROMPTS[i : i + 1], threat=threat, seeds=[SEEDS[i]],
            **{key: value[i : i + 1] for key, value in given.items()},
        )
        for i in range(COUNT)
    ]  # fmt: skip
    return joined(rows)


def joined(rows: list[AttackResult]) -> AttackResult:
    return AttackResult(
        images=torch.cat([r.images for r in rows]), budget=sum((r.budget for r in rows), ()),
        losses=torch.cat([r.losses for r in rows], 1), steps=sum((r.steps for r in rows), ()),
        gradients=sum(r.gradients for r in rows), forwards=sum(r.forwards for r in rows),
        flags=sum((r.flags for r in rows), ()),
    )  # fmt: skip


@pytest.fixture(scope="module", params=[LINF, L2], ids=["linf", "l2"])
def singly(request: pytest.FixtureRequest, sam: Segmenter) -> Singly:
    """A threat, every member run by itself on every image, and the IoU that each leaves, members x images."""
    found = [alone(sam, member, request.param) for member in LIST]
    return request.param, found, torch.stack([left(sam, result, clean_masks(sam)) for result in found])


def test_exhaustive_is_at_most_every_member_and_equals_the_lowest(sam: Segmenter, singly: Singly) -> None:
    threat, _, each = singly
    found = alone(sam, SamAutoAttack(version="short", exhaustive=True), threat)
    assert torch.equal(left(sam, found, clean_masks(sam)), each.min(0).values)
    if threat.norm == "linf":
        assert len(set(each.argmin(0).tolist())) > 1  # no single member is the worst everywhere
    assert torch.equal(found.losses[1:], each)  # a row a member


def test_survivors_only_is_as_strong_at_the_threshold_and_costs_less(sam: Segmenter, singly: Singly) -> None:
    threat, members, each = singly
    survive = float(each[0].sort().values[-2])  # the first member succeeds on all images but one
    quick = alone(sam, SamAutoAttack(version="short", survive=survive), threat)
    full = alone(sam, SamAutoAttack(version="short", survive=survive, exhaustive=True), threat)
    iou_quick = left(sam, quick, clean_masks(sam))
    assert bool(((iou_quick <= survive) | (iou_quick[None] <= each).all(0)).all())
    early = each[0] <= survive
    assert early.any() and not early.all()
    assert torch.equal(iou_quick[early], each[0][early])
    assert bool(quick.losses[2:, early].isnan().all()) and not bool(quick.losses[1].isnan().any())
    # Literally weaker somewhere: what the docstring warns of is real here, and `exhaustive` is the cure.
    assert bool((iou_quick > each.min(0).values).any())
    assert quick.gradients < full.gradients and quick.forwards < full.forwards
    assert full.gradients == sum(m.gradients for m in members)
    # Beyond the members' own passes: one for the clean image, one for each member's delivered image.
    assert full.forwards == sum(m.forwards for m in members) + COUNT * (1 + len(LIST))
    assert quick.steps[int(early.nonzero()[0])] == 1


def test_ground_truth_decides_who_survives(sam: Segmenter) -> None:
    reference = [~m if i % 2 else m for i, m in enumerate(clean_masks(sam))]  # every other clean mask is all wrong
    found = alone(sam, SamAutoAttack(version="short"), LINF, reference=reference)
    assert [bool(flag) for flag in found.flags] == [False, True] * (COUNT // 2)
    assert torch.equal(found.images[1::2], to_uint8(pictures())[1::2]) and set(found.steps[1::2]) == {0}
    assert bool((found.losses[0, 1::2] == 0).all()) and bool((found.losses[0, ::2] == 1).all())


def test_an_attack_that_helps_is_not_delivered(toy_class: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a reference that is the whole image, "enlarge" only raises the IoU."""
    monkeypatch.setattr(autoattack, "VERSIONS", {"up": (Member(name="fgsm", args={"objective": "enlarge"}),)})
    images = from_uint8(torch.randint(90, 166, (1, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte())
    whole = [torch.ones(1, 16, 16, dtype=torch.bool)]
    model = toy_class(side=16)
    found = SamAutoAttack(version="up").run(model, images, [[point(3, 3)]], threat=LINF, reference=whole)
    assert torch.equal(found.images, to_uint8(images))
    assert found.losses[1, 0] > found.losses[0, 0]


def test_where_no_attack_matters_the_first_is_delivered_and_not_the_clean_image(
    toy_class: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = (Member(name="fgsm"), Member(name="pgd", args={"steps": 2}))
    monkeypatch.setattr(autoattack, "VERSIONS", {"weak": members})
    images, threat = from_uint8(torch.full((1, 3, 16, 16), 250, dtype=torch.uint8)), Threat(eps=2 / 255)
    model = toy_class(side=16)
    found = SamAutoAttack(version="weak").run(model, images, [[point(3, 3)]], threat=threat, seeds=[0])
    first, second = (m.make().run(model, images, [[point(3, 3)]], threat=threat, seeds=[0]).images for m in members)
    assert found.losses[:, 0].tolist() == [1.0, 1.0, 1.0]
    assert torch.equal(found.images, first) and not torch.equal(first, second)
    assert not torch.equal(first, to_uint8(images))


def test_several_prompts_count_by_their_mean(sam: Segmenter) -> None:
    both: list[list[Prompt]] = [[point(9, 9), point(2, 17)]]
    found = SamAutoAttack(version="short", exhaustive=True).run(sam, pictures()[:1], both, threat=LINF)
    clean = sam.predict(pictures()[:1], both)[0].masks
    after = sam.predict(from_uint8(found.images), both)[0].masks
    assert float(found.losses.min()) == pytest.approx(float(iou(after, clean).mean()))


@pytest.mark.parametrize(
    "threat",
    [
        LINF,
        Threat(eps=6.4 / 255, lattice=False),
        L2,
        Threat(eps=6 / 255, space="model"),
        Threat(norm="l2", eps=1.5, region="object"),
    ],
    ids=lambda t: f"{t.label} {t.space} {t.region}",
)
def test_measured_is_what_is_delivered(sam: Segmenter, threat: Threat, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image whose IoU decides is, bit for bit, the one that leaves `run`."""
    seen: list[Tensor] = []

    def watch(task: Task, images: Tensor) -> Tensor:
        seen.append(deliver(task, images))
        return seen[-1]

    monkeypatch.setattr(autoattack, "deliver", watch)
    monkeypatch.setattr(autoattack, "VERSIONS", {"one": (Member(name="pgd", args={"steps": 3}),)})
    found = SamAutoAttack(version="one").run(sam, pictures()[:2], PROMPTS[:2], threat=threat, seeds=[0, 1])
    assert torch.equal(found.images, seen[-1]) and len(seen) == 2
    single = Member(name="pgd", args={"steps": 3}).make()
    assert torch.equal(found.images, single.run(sam, pictures()[:2], PROMPTS[:2], threat=threat, seeds=[0, 1]).images)


def test_bad_options_are_refused(sam: Segmenter) -> None:
    with pytest.raises(InputError, match="no version '7'.*Known: 1"):
        SamAutoAttack(version="7")
    with pytest.raises(InputError, match="survive=1"):
        SamAutoAttack(survive=1.0)
    with pytest.raises(InputError, match="limit of queries"):
        SamAutoAttack(version="short").run(sam, pictures()[:1], PROMPTS[:1], threat=Threat(queries=900))


def test_members_take_the_shared_options_they_have() -> None:
    given = SamAutoAttack(version="short", steps=2, stop_at=0.3, select="area").members("linf")
    assert [getattr(a, "steps", None) for _, a in given] == [None, 2, 2, 2]
    assert all(a.stop_at == 0.3 and a.select == "area" for _, a in given)
    assert given[1][0] == "pgd(steps=2, objective=bce)"


def test_members_that_do_not_know_the_norm_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoattack, "VERSIONS", {"mixed": (Member(name="bim"), Member(name="pgd"))})
    assert [label for label, _ in SamAutoAttack(version="mixed").members("l2")] == ["pgd"]


def test_a_ledger_adds_up_by_image() -> None:
    def trace(count: int, **given: object) -> Trace:
        return Trace(
            images=torch.zeros(count, 3, 2, 2), losses=torch.zeros(2, count), steps=(3,) * count, gradients=5,
            forwards=7, flags=("",) * (count - 1) + ("odd",), **given,  # type: ignore[arg-type]
        )  # fmt: skip

    ledger = Ledger(count=3)
    ledger.add("a", trace(3), [0, 1, 2])
    assert ledger.trace(torch.zeros(3), torch.zeros(1)).queries == ()
    ledger.add("b", trace(2, queries=(11, 12)), [0, 2])
    whole = ledger.trace(torch.zeros(3), torch.zeros(1))
    assert whole.steps == (6, 3, 6) and whole.queries == (11, 0, 12)
    assert (whole.gradients, whole.forwards) == (10, 14)
    assert whole.flags == ("", "", "a: odd; b: odd")


def test_overlap_is_the_mean_over_prompts(sam: Segmenter) -> None:
    prompts: list[list[Prompt]] = [[point(9, 9), point(2, 17)]]
    masks = sam.predict(pictures()[:1], prompts)[0].masks
    task = Task(segmenter=sam, clean=pictures()[:1], prompts=prompts, reference=[torch.stack([masks[0], ~masks[1]])])
    assert overlap(task, to_uint8(pictures()[:1]), "iou").tolist() == [0.5]


def test_version_1_is_what_was_published() -> None:
    """Numbers of one version are comparable: whoever wants another list adds a version."""
    assert SamAutoAttack().version == "1"
    first = [("fgsm", {}), ("almost-nothing", {"steps": 10}), ("apgd", {"steps": 100})]
    last = [("almost-nothing", {"steps": 100}), ("square", {"queries": 500})]
    losses = ("masked-ce", "segpgd", "js", "masked-logit")
    middle = {
        "linf": [("sea", {"iterations": 100})],
        "l2": [("apgd", {"steps": 100, "objective": loss}) for loss in losses],
    }
    for norm, between in middle.items():
        found = [(m.name, dict(m.args)) for m in autoattack.VERSIONS["1"] if m.searches_in(norm)]
        assert found == [*first, *between, *last]
        for (name, args), (_, attack) in zip(found, SamAutoAttack().members(norm), strict=True):
            assert attack == registry.create("attack", name, **args)


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_version_1_runs_and_counts_its_queries(sam: Segmenter, threat: Threat) -> None:
    attack = SamAutoAttack(steps=3, queries=10, exhaustive=True)
    found = attack.run(sam, pictures()[:1], PROMPTS[:1], threat=threat)
    assert len(found.losses) == 1 + len(attack.members(threat.norm)) and not found.losses.isnan().any()
    assert found.queries == (10,) and found.flags == ("",)
    assert float(left(sam, found, clean_masks(sam)[:1])) == pytest.approx(float(found.losses[1:].min()))
