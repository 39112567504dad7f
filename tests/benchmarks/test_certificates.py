"""The search for wrong certificates finds them where they are, and none where they are sound."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import certificates as bench
import pytest
import torch

from redsam.defenses.smoothing import SegCertify
from redsam.prompts import point
from tests.defenses.test_smoothing import SIGMA, ramp, threshold_model

ARGS = Namespace(tries=200, copies=8, confirm=400, batch=100, seed=0)


@pytest.mark.parametrize("tries", [bench.pgd, bench.random])
def test_sound_certificates_hold_and_false_ones_fall(tries: object) -> None:
    model, prompts = threshold_model(), [point(3, 3)]
    sound = SegCertify(sigma=SIGMA, n=400, n0=30).certify(model, ramp(), prompts, batch=100)
    held = bench.search(tries, model, ramp(), prompts, sound, ARGS)
    assert held["tries"] == 200 and held["flipped"] == 0
    # A radius six times as long is a lie for pixels next to the threshold, and the direction is plain.
    false = replace(sound, radius=6 * sound.radius * (3 * 256) ** 0.5 / 16)
    fallen = bench.search(tries, model, ramp(), prompts, false, ARGS)
    if tries is bench.pgd:
        assert fallen["flipped"] > 0 and fallen["lost"] >= fallen["flipped"] and fallen["suspects"] > 0
    # Where nothing is certified there is nothing to search.
    none = replace(sound, certified=torch.zeros_like(sound.certified))
    assert bench.search(tries, model, ramp(), prompts, none, ARGS)["tries"] == 0


def test_the_table_counts_over_both_searches() -> None:
    found = {"tries": 5, "lost": 1, "flipped": 0}
    numbers = {f"iou_{name}": 0.5 for name in ("plain", "smoothed", "certified", "guaranteed")}
    rows = [{"sigma": 0.1, "radius": 0.067, "abstained": 0.25, **numbers, "pgd": found, "random": found}] * 2
    args = Namespace(model="lab-b", n0=10, n=100, tries=5, sigmas=[0.1], copies=2, confirm=200)
    told = bench.markdown(rows, args)
    assert "| 0.1 | 0.067 | 2 | 0.500 | 0.500 | 0.500 | 0.500 | 0.250 | 20 | 4 | 0 |" in told
    many = bench.markdown(rows * 3 + [rows[0] | {"abstained": 0.5}], args)
    assert "| 0.286 [0.250, 0.357] | 70 | 14 | 0 |" in many
