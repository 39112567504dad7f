"""Leads, the bar and how many failures it may take, by hand; the error rate against every possible truth."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from redsam.errors import InputError
from redsam.privacy.singling import allowed, single_out, table


def test_the_table_by_hand() -> None:
    people = np.array([[0, 1], [1, 2]])
    asked = np.zeros((2, 1, 2), dtype=bool)
    asked[0, 0, 0] = True  # marks person 0 beside person 1, then everybody
    asked[1, 0] = True
    found = table(people, asked, 4)
    assert found[0, :3].tolist() == [1, -0.5, 0] and np.isnan(found[0, 3])


def skills(**marks: float) -> np.ndarray:
    """12 strings by 5 people, the first 5 strings their names; s0p0=0.9 sets one."""
    out = np.zeros((12, 5))
    for where, value in marks.items():
        string, person = where[1:].split("p")
        out[int(string), int(person)] = value
    return out


def test_leads_and_the_bar_by_hand() -> None:
    found = single_out(skills(s0p0=0.9, s1p1=0.4, s2p3=0.5, s7p4=0.3), 5, allow=1)
    assert found.lead[[0, 1, 7]].tolist() == pytest.approx([0.9, 0.4, 0.3])
    assert found.lead[2] == pytest.approx(-0.5), "a name of somebody else is behind"
    assert found.bar == pytest.approx(0.5), "it marks somebody else as firmly as it may"
    assert found.passed.tolist() == [True, False, False, False, False]
    assert single_out(skills(s0p0=0.9, s1p1=0.4, s2p3=0.5, s7p4=0.3), 5, allow=2).bar == pytest.approx(0.3)


def test_what_any_name_does_on_a_face_is_no_lead() -> None:
    attracts = skills(s0p0=0.9)
    attracts[:, 1] = 0.8
    found = single_out(attracts, 5, allow=1)
    assert found.passed.tolist() == [True, False, False, False, False] and found.bar == 0


def test_a_stray_name_on_a_known_face_does_no_harm_while_its_own_does_better() -> None:
    found = single_out(skills(s0p0=0.9, s7p0=0.85, s1p1=0.5), 5, allow=1)
    assert found.passed.tolist() == [True, True, False, False, False]
    assert not single_out(skills(s0p0=0.8, s7p0=0.85), 5, allow=1).passed.any()


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_no_difference_is_no_claim(constant: float) -> None:
    assert not single_out(np.full((12, 5), constant), 5, allow=1).passed.any()


def test_somebody_never_drawn_is_left_out() -> None:
    some = skills(s0p0=0.9, s4p4=0.7)
    some[:, 2] = np.nan
    assert single_out(some, 5, allow=1).passed.tolist() == [True, False, False, False, True]
    assert not single_out(np.full((12, 5), np.nan), 5, allow=1).passed.any()


def test_the_error_rate_over_every_truth_is_exact() -> None:
    """Person 0 is known. Which of the other five strings is whose name, or a decoy, is drawn: over all 120 truths a
    false claim has at most 1 of the M + U = 5 places, whatever the table; here often all of it."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(40):
        drawn = rng.normal(0, 1, (6, 3))
        drawn[0] = [3, 0, 0]
        wrong = []
        for order in permutations(range(1, 6)):  # two unknown people, three decoys
            found = single_out(drawn[[0, *order]], 3, allow=1)
            wrong.append(bool(found.passed[1:].any()))
        shares.append(np.mean(wrong))
    assert max(shares) <= 1 / 5 + 1e-12 and max(shares) == pytest.approx(1 / 5)


@pytest.mark.parametrize(("decoys", "alpha", "failures"), [(38, 0.05, 1), (40, 0.05, 1), (80, 0.05, 2), (18, 0.1, 1)])
def test_how_many_failures_a_number_of_decoys_carries(decoys: int, alpha: float, failures: int) -> None:
    assert allowed(decoys, alpha) == failures


def test_too_few_decoys_say_how_many_are_needed() -> None:
    with pytest.raises(InputError, match="file with 38 names"):
        allowed(36, 0.05)
    assert allowed(38, 0.05) == 1
    with pytest.raises(InputError, match="file with 198 names"):
        allowed(40, 0.01)
