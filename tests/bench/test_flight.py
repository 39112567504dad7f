"""How many images are worked on together: typed, found on machines whose memory is known, halved, written down."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from redsam import registry
from redsam.attacks.fgsm import FGSM
from redsam.attacks.loop import Trace
from redsam.attacks.task import Task
from redsam.bench import RunStore, audit, flight, read_records
from redsam.bench.flight import LARGEST, Batch, Flight, batch_of, largest
from redsam.bench.lanes import Shelf, make_lanes
from redsam.bench.memory import held, reset_peak
from redsam.bench.planfile import plan_of
from redsam.bench.presets import Trial, linf
from redsam.bench.worker import Piece, Worker
from redsam.bench.worker import Task as Errand
from redsam.data import open_data
from redsam.errors import InputError
from redsam.models.base import Segmenter

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MB = 2**20
HERE = (480, 640)


# --- what is typed -------------------------------------------------------------------------------------------------
def test_what_can_be_typed() -> None:
    assert batch_of(4) == batch_of("4") == Batch(size=4) and batch_of("Auto") == batch_of("auto") == Batch(size=None)
    assert batch_of("auto", "0.5").memory == 0.5 and batch_of("auto", "6GB").memory == 6 * 2**30
    assert batch_of("auto", "500mb").memory == 500 * MB and batch_of(Batch(size=3)).size == 3
    assert Batch().size == 1, "a run that is typed without a number is repeated bit for bit"


@pytest.mark.parametrize("batch", [0, -1, "many", "", "1.5", "²"])
def test_what_is_no_batch(batch: int | str) -> None:
    with pytest.raises(InputError, match="no batch size"):
        batch_of(batch)


@pytest.mark.parametrize("memory", ["0", "-1", "7", "nan", "inf", "GB", "six", "-2GB"])
def test_what_is_no_memory(memory: str) -> None:
    with pytest.raises(InputError, match="no share of the memory"):
        batch_of("auto", memory)
    with pytest.raises(InputError, match="fixed batch"):
        batch_of(4, "0.5")


def test_a_plan_says_it_and_the_command_goes_before() -> None:
    least: dict[str, Any] = {"models": ["lab-b"], "prompts": ["point"]}
    assert plan_of(least).together() == Batch(size=1)
    plan = plan_of(least | {"batch": "auto", "memory": "2GB"})
    assert plan.together() == Batch(size=None, memory=2 * 2**30)
    assert plan.together("4") == Batch(size=4) and plan.together(None, "0.25") == Batch(size=None, memory=0.25)
    for wrong in ({"batch": "some"}, {"batch": 2, "memory": 0.5}, {"batch": 0}):
        with pytest.raises(InputError):
            plan_of(least | wrong)


# --- the line ------------------------------------------------------------------------------------------------------
def test_the_line_by_hand() -> None:
    assert largest({1: 10, 2: 14}, budget=40) == 8  # 10 + 4 * 7.5: eight images take 38
    assert largest({1: 10, 2: 14}, budget=37) == 4 and largest({1: 10, 2: 14}, budget=3) == 1
    assert largest({1: 10, 2: 10}, budget=40) == LARGEST, "what an image costs cannot be seen"
    assert largest({1: 10, 2: 10}, budget=40, floor=5) == 4
    assert largest({1: 10, 2: 14, 8: 80}, budget=60) == 4, "the largest that was measured bends the line"


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(0, 10**11))
def test_the_line_holds_and_twice_as_many_would_not(one: int, more: int, budget: int) -> None:
    found = largest({1: one, 2: one + more}, budget=budget)
    assert found & (found - 1) == 0 and 1 <= found <= LARGEST
    assert found == 1 or one + (found - 1) * more <= budget
    assert found == LARGEST or one + (2 * found - 1) * more > budget


# --- machines ------------------------------------------------------------------------------------------------------
class Machine:
    """100 free, 30 held; n images need 40 + 10 n at the peak, or what `need` says."""

    def __init__(self, patch: pytest.MonkeyPatch, *, anew: bool = True) -> None:
        self.need = lambda n: 40 + 10 * n
        self.peak, self.asked = 0, 0
        patch.setattr(flight, "reset_peak", lambda device: anew)
        patch.setattr(flight, "held", lambda device: 30)
        patch.setattr(flight, "room", self.room)
        patch.setattr(flight, "peak_bytes", lambda device: self.peak)

    def room(self, device: torch.device) -> int:
        self.asked += 1
        return 100

    def work(self, one: Flight, count: int, pixels: tuple[int, int] = HERE) -> int:
        """A group, and what is taken next."""
        one.begin(pixels, count)
        self.peak = self.need(count)
        one.went(pixels, count)
        return one.size(pixels)


def test_one_then_two_then_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    found = Flight(asked=batch_of("auto", "0.9"), device=CUDA)
    assert found.size(HERE) == 1 and machine.work(found, 1) == 2
    assert machine.work(found, 2) == 8, "30 + 0.9 * 100 holds 40 + 10 * 8"
    assert found.size((640, 480)) == 8, "portrait and landscape cost the same"
    assert found.size((100, 100)) == 1, "another size is measured by itself"
    machine.need = lambda n: 40 + 14 * n
    assert machine.work(found, 8) == 4, "a peak above the line makes it smaller"
    machine.need = lambda n: 10
    assert machine.work(found, 4) == 4 and machine.asked == 1, "never larger again; the budget stands"
    told = found.facts()
    assert told["used"] == {"480x640": 4} and told["asked"] == "auto" and told["halved"] == 0
    assert set(told["peak_mb"]["480x640"]) == {"1", "2", "4", "8"}


def test_far_from_what_was_measured_it_goes_in_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.need = lambda n: 40 + n // 3
    one = Flight(asked=batch_of("auto", "0.9"), device=CUDA)
    taken = [1]
    while len(taken) < 7:
        taken.append(machine.work(one, taken[-1]))
    assert taken == [1, 2, 8, 32, 64, 64, 64]
    machine.need = lambda n: 40 + 10 * max(0, n - 7)
    one, taken = Flight(asked=batch_of("auto", "0.9"), device=CUDA), [1]
    while len(taken) < 6:
        taken.append(machine.work(one, taken[-1]))
    assert taken == [1, 2, 8, 32, 8, 8], "two images said nothing, eight little, thirty-two enough"


def test_an_amount_of_memory_and_neighbours_that_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, size in (
        (Batch(size=None, memory=60), 2),  # 40 + 10 * 2
        (Batch(size=None, memory=10_000), 8),  # no more than there is: 130
        (Batch(size=None, memory=1.0, parts=4), 1),  # 30 + 25 is less than one image takes
    ):
        machine = Machine(monkeypatch)
        one = Flight(asked=asked, device=CUDA)
        machine.work(one, 1)
        assert machine.work(one, 2) == size


def test_out_of_memory_halves_and_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    one = Flight(asked=batch_of("auto"), device=CUDA)
    machine.work(one, 1)
    machine.work(one, 2)
    one.ran_out(HERE, 6)
    assert one.size(HERE) == 3 and machine.work(one, 3) == 3 and one.facts()["halved"] == 1
    fixed = Flight(asked=batch_of(8), device=CUDA)
    fixed.ran_out(HERE, 8)
    assert fixed.size((1, 1)) == 4 and fixed.facts() == {"asked": 8, "halved": 1}


def test_resident_pages_that_say_nothing_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the second peak may be no higher than the first; an image then counts half of what the first took."""
    machine = Machine(monkeypatch)
    machine.need = lambda n: 50
    one = Flight(asked=batch_of("auto", "0.9"), device=CPU)
    machine.work(one, 1)
    assert machine.work(one, 2) == 8  # 1 + (120 - 50) / 10


def test_on_a_cpu_a_number_of_images_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that the process keeps from other work would be taken for that of these images."""
    machine, trims = Machine(monkeypatch), []
    monkeypatch.setattr(flight, "trim", lambda: trims.append(1))
    one = Flight(asked=batch_of("auto", "0.9"), device=CPU)
    taken = [machine.work(one, n) for n in (1, 2, 8)]
    machine.need = lambda n: 1000
    assert taken == [2, 8, 8] and machine.work(one, 8) == 8 and len(trims) == 3


def test_where_a_peak_cannot_be_measured_images_stay_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, anew=False)
    one = Flight(asked=batch_of("auto"), device=CPU)
    with pytest.warns(UserWarning, match="cannot be measured"):
        assert machine.work(one, 1) == 1


def test_real_memory_of_this_process() -> None:
    """Work that touches 100 MB for each image, 1,000 MB allowed beyond what is held: 8 fit."""
    before = held(CPU)
    if before is None or not reset_peak(CPU):
        pytest.skip("this system does not start a peak anew")
    one = Flight(asked=Batch(size=None, memory=before + 1000.0 * MB), device=CPU)
    for count in (1, 2):
        assert one.size(HERE) == count
        one.begin(HERE, count)
        np.ones(count * 100 * MB, dtype=np.uint8).sum()
        one.went(HERE, count)
    assert one.size(HERE) == 8


# --- runs ----------------------------------------------------------------------------------------------------------
def cells_of(out: Path) -> dict[str, tuple[list[Any], dict[str, Any]]]:
    """By label of the cell: how many images each record was made with, and what env.json says of it."""
    found = {}
    for one in RunStore(out).cells():
        name = f"{one.cell.probe['name']} {one.cell.eps:.3f} {one.cell.protocol['name']}"
        told = json.loads((one.folder / "env.json").read_text())["batch"]
        found[name] = ([r["batch"] for r in read_records(one.samples)], told)
    return found


@pytest.mark.parametrize("joint", [True, False])
def test_results_do_not_depend_on_what_was_found(
    kit: Any, close: Any, tmp_path: Path, model: Segmenter, folder: Path, joint: bool
) -> None:
    if not reset_peak(CPU):
        pytest.skip("this system does not start a peak anew")
    asked = kit.small if joint else kit.one
    for name, batch in (("alone", 1), ("auto", "auto")):
        audit(model, open_data(folder), out=tmp_path / name, preset=asked, batch=batch, joint=joint)
    alone, found = (kit.same(tmp_path / name) for name in ("alone", "auto"))
    assert alone.keys() == found.keys() and len(found) == (40 if joint else 10)
    for key, one in alone.items():
        assert one["status"] == "ok"
        close(one, found[key])
    used = cells_of(tmp_path / "auto")
    assert used["none 0.000 point"][0] == [1, 2, 2, 2, 2]
    if joint:
        assert used["fgsm 0.031 box"][0] == [1, 2, 2, 2, 2]
        assert used["pgd 0.016 box"][0] == [1, 2, 2, 2, 2]
        assert used["pgd 0.031 box"][0] == [5] * 5, "the same attack at another budget is not measured anew"
    told = used["fgsm 0.031 point"][1]
    assert told["asked"] == "auto" and told["halved"] == 0 and told["used"]["48x64"] >= 4
    assert {b for sizes, _ in cells_of(tmp_path / "alone").values() for b in sizes} == {1}


class Greedy(FGSM):
    """Runs out of memory above one image."""

    def search(self, task: Task) -> Trace:
        if len(task) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return super().search(task)


@pytest.mark.parametrize("batch, sizes", [("auto", {1}), (4, {1})])
def test_halving_is_written_down(
    kit: Any,
    tmp_path: Path,
    model: Segmenter,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: Any,
    sizes: set[int],
) -> None:
    meta = {"norms": ("linf",), "kind": "white-box", "knowledge": ("white-box",)}
    entry = registry.Entry(kind="attack", name="greedy", obj=Greedy, meta=meta)
    monkeypatch.setitem(registry._entries, ("attack", "greedy"), entry)
    greedy = replace(kit.one, trials=(Trial(attack="greedy", threats=linf(8)),))
    summary = audit(model, open_data(folder), out=tmp_path, preset=greedy, batch=batch)
    used, told = cells_of(tmp_path)["greedy 0.031 point"]
    assert set(used) == sizes and len(used) == 5 and summary.failures == ()
    assert told["asked"] == batch and told["halved"] == (1 if batch == "auto" else 2)


def test_a_worker_tells_what_it_found(tiny_folder: Path, folder: Path) -> None:
    if not reset_peak(CPU):
        pytest.skip("this system does not start a peak anew")
    probes = [{"attack": "fgsm", "threats": ["8/255"]}]
    plan = plan_of({"models": [str(tiny_folder)], "prompts": ["box"], "probes": probes, "data": str(folder)})
    lanes = make_lanes(plan, shelf=Shelf())
    worker = Worker(device="cpu", threads=1, batch=Batch(size=None, parts=10**6))
    assert worker.hello()[1]["batch"] == {"asked": "auto"}
    task = Errand(lane=lanes.lanes[0], pieces=(Piece(cell=lanes.cells[1], indices=(0, 1, 2, 3, 4)),), home=(0, 0))
    parcels = list(worker.run(task))
    worker.close()
    assert [len(p.records) for p in parcels] == [1, 2, 2]
    first, second = (p.facts["batch"]["used"]["48x64"] for p in parcels[:2])
    assert first == 2 and second > 2
    assert parcels[1].records[0]["batch"] == 2


def test_a_cpu_that_refuses_is_halved_and_recorded(tmp_path: Path, folder: Path, tiny_folder: Path) -> None:
    """An address space too small for four images: PyTorch's own error on a CPU, in a process of its own."""
    script = """
        import resource, sys
        import torch
        from redsam import registry
        from redsam.attacks.fgsm import FGSM
        from redsam.bench import audit
        from redsam.bench.presets import POINT, Preset, Trial, linf
        from redsam.data import open_data
        from redsam.models import load

        class Hungry(FGSM):
            def search(self, task):
                need = torch.empty(len(task), 2**28)  # 1 GiB for each image, never touched
                return super().search(task)

        meta = {"norms": ("linf",), "kind": "white-box", "knowledge": ("white-box",)}
        registry._entries["attack", "hungry"] = registry.Entry(kind="attack", name="hungry", obj=Hungry, meta=meta)
        torch.set_num_threads(1)
        model, data = load(sys.argv[1]), open_data(sys.argv[2])
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 3 * 2**30,) * 2)
        preset = Preset(name="x", summary="x", protocols=(POINT,), trials=(Trial(attack="hungry", threats=linf(8)),))
        audit(model, data, out=sys.argv[3], preset=preset, batch=4)
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("limits of this kind are Linux's")
    command = [sys.executable, "-c", textwrap.dedent(script), str(tiny_folder), str(folder), str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    used, told = cells_of(tmp_path)["hungry 0.031 point"]
    assert used == [2, 2, 2, 2, 1] and told == {"asked": 4, "halved": 1}
