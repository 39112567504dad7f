"""Ray's workers: the records of the in-process executor, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from redsam.bench import RunStore, read_records
from redsam.bench.bench import bench
from redsam.bench.cluster import GIGABYTE, Ray, connected, require, share_of
from redsam.bench.fleet import DEATHS, Fleet
from redsam.bench.lanes import Lanes, Shelf, make_lanes
from redsam.bench.memory import reset_peak
from redsam.bench.planfile import PlanFile, plan_of
from redsam.bench.progress import Silent
from redsam.bench.worker import Parcel, Piece, Task, Worker
from redsam.errors import InputError, MissingExtra


def small(tiny_folder: Path, folder: Path, **more: Any) -> PlanFile:
    probes = [
        {"attack": "fgsm", "threats": ["8/255"]},
        {"attack": "pgd", "args": {"steps": 2}, "threats": ["4/255"]},
        {"corruption": "elastic", "severities": [3]},
    ]
    asked = {"models": [str(tiny_folder)], "prompts": ["point", "box"], "probes": probes, "data": str(folder)}
    return plan_of(asked | {"defenses": ["none", "jpeg:quality=50"]} | more)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One local Ray for these tests: loopback, no dashboard, nothing reported."""
    pytest.importorskip("ray")
    torch.set_num_threads(1)
    with connected(Ray(workers=2)) as running:
        yield running


def test_a_worker_measures_what_an_audit_measures(kit: Any, tmp_path: Path, tiny_folder: Path, folder: Path) -> None:
    """Without Ray: parcels of a worker against the records of the in-process executor, picture for picture."""
    plan = small(tiny_folder, folder, defenses=["none"])
    bench(plan, out=tmp_path / "here")
    expected = kit.records(tmp_path / "here")
    lanes = make_lanes(plan, shelf=Shelf())
    worker = Worker(device="cpu", threads=1, batch=1)
    for cell in lanes.cells:
        task = Task(lane=lanes.lanes[0], pieces=(Piece(cell=cell, indices=(0, 3)),), home=(0, 0))
        parcels: list[Parcel] = list(worker.run(task))
        assert [r["sample"] for p in parcels for r in p.records] == ["photo0", "photo3"]
        for parcel in parcels:
            for path, content in parcel.files.items():
                assert (tmp_path / "here" / path).read_bytes() == content
            for record in parcel.records:
                told = {k: v for k, v in record.items() if k not in ("seconds", "peak_mb")}
                assert told == {k: expected[cell.id, record["sample"]][k] for k in told}
    scratch = worker._root
    assert not list(scratch.rglob("*.png")), "pictures stay behind"
    worker.close()
    assert not scratch.exists()


def test_a_worker_refuses_other_weights_and_other_photographs(kit: Any, tiny_folder: Path, tmp_path: Path) -> None:
    lanes = make_lanes(small(tiny_folder, kit.folder(tmp_path / "data", 2)), shelf=Shelf())
    worker = Worker(device="cpu", threads=1, batch=1)
    cell = lanes.cells[0]
    for wrong, said in (
        (replace(cell, model={**cell.model, "fingerprint": "0" * 16}), "another model"),
        (replace(cell, data={**cell.data, "fingerprint": "0" * 16}), "other photographs"),
    ):
        task = Task(lane=lanes.lanes[0], pieces=(Piece(cell=wrong, indices=(0,)),), home=(0, 0))
        (parcel,) = worker.run(task)
        assert parcel.trouble is not None and said in parcel.trouble[0]
    worker.close()


def test_both_executors_make_the_same_records_though_a_worker_is_killed(
    kit: Any, ray: Any, tmp_path: Path, tiny_folder: Path, folder: Path
) -> None:
    plan = small(tiny_folder, folder)
    bench(plan, out=tmp_path / "here")

    class Killer(Silent):
        """Kills a worker by its pid at the seventh record; all its unfinished images must come again."""

        seen, killed = 0, 0

        def image(self, record: Mapping[str, Any]) -> None:
            self.seen += 1
            if self.seen == 7:
                self.killed = next(iter(fleet.pids.values()))
                os.kill(self.killed, signal.SIGKILL)

    killer = Killer()
    lanes = make_lanes(plan, shelf=Shelf())
    store = RunStore(tmp_path / "there")
    fleet = Fleet(plan=lanes, store=store, progress=killer, settings=Ray(workers=2))
    with store.lock(), pytest.warns(UserWarning, match="died"):
        fleet.run()
    assert killer.killed and kit.same(tmp_path / "there") == kit.same(tmp_path / "here")
    assert all(cell.done for cell in store.cells()) and killer.seen == len(kit.same(tmp_path / "here"))
    for cell in store.cells():
        for record in read_records(cell.samples):
            assert (store.root / record["clean_image"]).is_file()
            if record["image"]:
                assert (cell.folder / record["image"]).is_file() or (store.root / record["image"]).is_file()


class Here:
    """As much of Ray as the fleet asks of it, in this process; what would go between processes is pickled."""

    class exceptions:  # noqa: N801
        RayError = RayTaskError = type("RayError", (Exception,), {})

    class Reference:
        def __init__(self, value: Any) -> None:
            self.value = value

    class Method:
        def __init__(self, call: Any) -> None:
            self.call = call

        def options(self, **_: Any) -> Here.Method:
            return self

        def remote(self, *given: Any, **named: Any) -> Any:
            found = self.call(*passed(given), **passed(named))
            return found if isinstance(found, Iterator | Here.Actor) else Here.Reference(found)

    class Actor:
        def __init__(self, worker: Any) -> None:
            self.worker = worker

        def __getattr__(self, name: str) -> Here.Method:
            return Here.Method(getattr(self.worker, name))

    def remote(self, kind: Any) -> Here.Method:
        return Here.Method(lambda **named: Here.Actor(kind(**named)))

    def get(self, one: Any) -> Any:
        return passed(one.value if isinstance(one, Here.Reference) else one)

    def wait(self, ready: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return ready[:1], ready[1:]

    def kill(self, actor: Here.Actor) -> None:
        actor.worker.close()

    def cluster_resources(self) -> dict[str, int]:
        return {"CPU": 2}


def passed(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def test_workers_find_how_many_images_they_take_and_the_cell_says_so(
    kit: Any, close: Any, tmp_path: Path, tiny_folder: Path, folder: Path
) -> None:
    """Without Ray's processes: the same records within float noise, the number in each, the facts in env.json."""
    if not reset_peak(torch.device("cpu")):
        pytest.skip("this system does not start a peak anew")
    plan = small(tiny_folder, folder, defenses=["none"], prompts=["box"])
    bench(plan, out=tmp_path / "here")
    lanes, store = make_lanes(plan, shelf=Shelf()), RunStore(tmp_path / "there")
    fleet = Fleet(plan=lanes, store=store, progress=Silent(), settings=Ray(workers=2), batch="auto")
    with store.lock():
        fleet._run(Here())
    here, there = (kit.same(tmp_path / name) for name in ("here", "there"))
    assert here.keys() == there.keys() and len(there) == 20 and all(cell.done for cell in store.cells())
    for key, one in here.items():
        close(one, there[key])
    for cell in store.cells():
        told = json.loads((cell.folder / "env.json").read_text())
        assert told["executor"] == "ray" and told["batch"]["asked"] == "auto" and told["batch"]["used"]["48x64"] >= 2
        assert {r["batch"] for r in read_records(cell.samples)} <= {1, 2, 3, 4, 5}


def test_an_image_that_workers_die_of_is_a_failed_record(kit: Any, ray: Any, tmp_path: Path, tiny_folder: Path) -> None:
    """Every worker is killed as soon as it is given the second image."""
    plan = small(tiny_folder, kit.folder(tmp_path / "data", 3), defenses=["none"], prompts=["box"], probes=[])
    lanes = make_lanes(plan, shelf=Shelf())
    store = RunStore(tmp_path / "out")

    class Deadly(Fleet):
        def _dispatch(self, slot: Any) -> None:
            super()._dispatch(slot)
            if any(1 in piece.indices for piece in slot.task.pieces):
                os.kill(slot.pid, signal.SIGKILL)

    with store.lock(), pytest.warns(UserWarning, match="died"):
        Deadly(plan=lanes, store=store, progress=Silent(), settings=Ray(workers=1)).run()
    found = {r["sample"]: r for r in kit.same(tmp_path / "out").values()}
    assert [found[f"photo{i}"]["status"] for i in range(3)] == ["ok", "failed", "ok"]
    assert f"died {DEATHS} times" in found["photo1"]["reason"] and store.cells()[0].done


def test_many_workers_may_start_but_three_that_never_speak_end_the_run(tmp_path: Path) -> None:
    class Mute:
        """An actor whose hello never comes."""

        class hello:  # noqa: N801
            remote = staticmethod(lambda: "a reference")

    plan = Lanes(name="none", lanes=())
    fleet = Fleet(plan=plan, store=RunStore(tmp_path), progress=Silent(), settings=Ray(workers=16))
    slots = [fleet._hire(Mute) for _ in range(16)]
    fleet._died(slots[0])
    fleet._died(slots[1])
    with pytest.raises(InputError, match="die before they start"):
        fleet._died(slots[2])


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra) as caught:
        require()
    assert "redsam[ray]" in caught.value.hint


def test_the_share_of_a_gpu() -> None:
    assert share_of(None, None, there=0) == 0 and share_of(None, None, there=4) == 1
    assert share_of("0.5", None, there=1) == 0.5 and share_of(2, None, there=4) == 2
    assert share_of("20GB", 80 * GIGABYTE, there=1) == 0.25 and share_of("21gb", 80 * GIGABYTE, there=1) == 0.27
    for wrong in ("half", "-1", "1.5", "99GB", "nan"):
        with pytest.raises(InputError):
            share_of(wrong, 80 * GIGABYTE, there=8)
    with pytest.raises(InputError, match="no GPU"):
        share_of("0.5", None, there=0)
