"""The speed benchmarks: peers make the same step, ratios by hand, and every script runs from end to end on a tiny
model, also the one that needs a CUDA device."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attention as attention_script
import gpu
import pytest
import random_sam as make
import sam2_profile
import step_cpu
import torch

SIDE = 64


@pytest.fixture(scope="module")
def net() -> Any:
    return make.network("b", side=SIDE, depth=1)


def test_redsam_and_what_a_user_writes_make_the_same_step(net: Any) -> None:
    from redsam.models import load

    clicks, clean = make.places(3, SIDE), make.picture(SIDE)
    by_hand = make.with_transformers(net, clicks, backward=True)(clean, clean)
    alone = make.with_transformers(net, clicks, backward=False)(clean, clean)
    ours = make.with_redsam(load(net), clicks)(clean, clean)
    moved = (ours - clean).abs() > 1e-3
    assert moved.float().mean() > 0.9 and (ours - clean).abs().max() <= make.STEP + 1e-6
    for other in (by_hand, alone):
        assert ((ours - clean).sign() == (other - clean).sign()).float().mean() > 0.999


def test_torchattacks_steps_on_the_closure(net: Any) -> None:
    pytest.importorskip("torchattacks")
    clean = make.picture(SIDE)
    out = make.with_torchattacks(net, make.places(2, SIDE))(clean, clean)
    assert out.shape == clean.shape and ((out - clean).abs() > 1e-3).float().mean() > 0.9


def test_metas_modules_step_past_no_grad() -> None:
    if importlib.util.find_spec("segment_anything") is None:
        pytest.skip("Meta's package is not installed")
    clean = make.picture(SIDE)
    out = make.with_meta(make.places(1, SIDE), side=SIDE, depth=1)(clean, clean)
    assert ((out - clean).abs() > 1e-3).float().mean() > 0.9


@pytest.mark.parametrize("size", ["2t", "2b+"])
def test_sam_2_is_built_as_published(size: str) -> None:
    with torch.device("meta"):
        model = make.network(size, device="meta")
    count = sum(p.numel() for p in model.parameters())
    # The video models' published 38.9 and 80.8 million hold a memory of earlier frames beside what images need.
    assert {"2t": 30e6, "2b+": 70e6}[size] < count < {"2t": 39e6, "2b+": 81e6}[size]


def _arm(wall: float, memory: float) -> dict[str, Any]:
    return {"wall": wall, "cpu": wall, "memory_mb": memory, "loaded_mb": 1.0, "signs": [1, -1]}


def test_ratios_of_the_cpu_step_are_paired_medians() -> None:
    turns = [
        {step_cpu.REDSAM: _arm(2.0, 100), step_cpu.PEER: _arm(4.0, 400), step_cpu.MANY: _arm(2.4, 300)},
        {step_cpu.REDSAM: _arm(3.0, 100), step_cpu.PEER: _arm(4.0, 400), step_cpu.MANY: _arm(3.3, 300)},
        {step_cpu.REDSAM: _arm(2.0, 100), step_cpu.PEER: {"failed": "killed"}, step_cpu.MANY: _arm(2.6, 300)},
    ]
    found = step_cpu.summary(turns)
    assert found["ratios"][step_cpu.PEER] == {"wall": 0.625, "cpu": 0.625, "memory_mb": 0.25}
    assert found["ratios"][step_cpu.MANY]["wall"] == 1.2 and found["arms"][step_cpu.PEER]["n"] == 2
    assert found["other_side"] == 0 and all(step_cpu.verdicts(found, "wall").values())
    assert len(step_cpu.verdicts(found, "wall")) == 3


def test_the_rule_of_attention_must_name_a_fastest_way() -> None:
    def way(seconds: float) -> dict[str, Any]:
        return {"wall": seconds, "cpu": seconds, "memory_mb": 1.0, "errors": [], "rule": "blocked"}

    found = attention_script.summary([{"official": way(2.0), "folded": way(1.0), "blocked": way(1.02)}], "wall")
    assert found["rule"] == {"names": "blocked", "over_the_fastest": 1.02, "holds": True}
    assert found["folded"]["wall_ratio"] == 0.5
    slow = attention_script.summary([{"official": way(2.0), "folded": way(1.0), "blocked": way(1.2)}], "wall")
    assert not slow["rule"]["holds"]


def test_one_case_of_attention_in_this_process() -> None:
    found = attention_script.child("tiny", "blocked", "cpu", "float32", 1)
    assert max(found["errors"]) < 1e-5 and found["rule"] == "official" and found["wall"] > 0


def test_the_gpu_script_runs_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "gpu.json"
    command = "gpu.py --device cpu --tiny --models b 2t --largest 2 --repeats 1 --steps 2 --pgd-images 2"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--out", str(out)])
    assert gpu.main() == 0
    found = json.loads(out.read_text())
    assert found["tiny"] and found["left_out"] == [] and set(found["models"]) == {"b", "2t"}
    rows = found["models"]["b"]["float32"]
    assert [row["batch"] for row in rows] == [1, 2] and all(row["floor"] > 0 and row["share"] > 0 for row in rows)
    assert set(found["models"]["b"]["float32, ways"]) == {"official", "folded", "blocked"}
    assert found["models"]["b"]["time_ratio"] > 0 and found["pgd"]["images"] == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_gpu_script_refuses_in_one_line() -> None:
    done = subprocess.run([sys.executable, gpu.__file__], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "no CUDA device" in done.stderr


def test_the_gpu_script_stops_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = gpu.Clock(minutes=-1)
    args = argparse.Namespace(device="cpu", tiny=True, side=64, repeats=1, largest=2)
    assert gpu.one_model("b", {"fp32_tflops": 1, "bf16_tflops": 1, "copy_gbs": 1}, args, clock) == {}
    assert clock.left_out == ["b float32", "b bfloat16"]


def test_what_is_kept_for_the_backward_pass_by_hand() -> None:
    """A frozen linear layer keeps its weights alone, which do not count; ReLU keeps 5 x 20 floats; what nothing uses is
    gone when the backward pass begins."""
    model = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.ReLU()).requires_grad_(False)
    x = torch.randn(5, 10, requires_grad=True)
    with sam2_profile.saving(model) as kept:
        x.exp()
        torch.autograd.grad(model(x).sum(), x)
    assert kept == {"ReLU": 5 * 20 * 4}


def test_the_fused_kernel_of_sam_2_keeps_less_than_the_plain_path() -> None:
    from redsam.models import tiny

    model: Any = tiny("sam2").model
    fused = sam2_profile.kept_by(model, SIDE)
    model.set_attn_implementation("eager")
    plain = sam2_profile.kept_by(model, SIDE)
    assert 0 < sam2_profile.of_attention(fused) < sam2_profile.of_attention(plain) < sum(plain.values())
    kinds = {"aten::_scaled_dot_product_flash_attention_for_cpu_backward": sam2_profile.ATTENTION[0]}
    kinds |= {"aten::_softmax": sam2_profile.ATTENTION[1], "aten::addmm": "linear layers", "aten::add_": "element-wise"}
    assert {name: sam2_profile.kind_of(name) for name in kinds} == kinds


def test_a_graph_that_cannot_be_recorded_is_a_row() -> None:
    args = argparse.Namespace(device="cpu", side=64, repeats=1)
    found = gpu.graphs(gpu.build("b", "cpu", torch.float32, small=True), args)
    assert found["launched"]["seconds"] > 0
    if not torch.cuda.is_available():
        assert "failed" in found["graph"] and "ratio" not in found


def test_memory_that_runs_out_is_a_row() -> None:
    def step(x: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert gpu.measured(step, 4, 64, "cpu", 1) == {"batch": 4, "out_of_memory": True}
