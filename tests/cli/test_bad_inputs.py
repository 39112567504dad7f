"""Whatever a person can get wrong: one line that helps and exit code 2, before any file is written."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

Refused = Callable[..., str]


@pytest.fixture
def attack(refused: Refused, tiny_folder: Path, photo: Path, tmp_path: Path) -> Refused:
    """`attack("--eps", "8")`: a good command line with these options added is refused, and leaves no file."""

    def run(*more: object, image: Path = photo, model: object = tiny_folder, prompt: str = "--point=190,120") -> str:
        out = tmp_path / "out"
        options = ["--steps=1"] if "fgsm" not in more else []
        line = refused("attack", image, "--model", model, prompt, "--out", out, *options, *more)
        assert not list(out.glob("*")), "a refused command wrote files"
        return line

    return run


def save(path: Path, size: tuple[int, int] = (48, 40)) -> Path:
    """A colourful picture, width x height."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


# --- images -------------------------------------------------------------------------------------------------------
def test_a_missing_image(attack: Refused, tmp_path: Path) -> None:
    assert "nowhere.png: there is no such file" in attack(image=tmp_path / "nowhere.png")


def test_a_folder_for_an_image(attack: Refused, tmp_path: Path) -> None:
    assert "is a folder" in attack(image=tmp_path)


def test_a_truncated_jpeg(attack: Refused, photo: Path, tmp_path: Path) -> None:
    whole = photo.read_bytes()
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "cut.jpg: broken or truncated image" in attack(image=cut)


def test_text_named_like_an_image(attack: Refused, tmp_path: Path) -> None:
    fake = tmp_path / "fake.png"
    fake.write_text("no image")
    assert "not an image" in attack(image=fake)


def test_an_empty_file(attack: Refused, tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    assert "empty (0 bytes)" in attack(image=empty)


def test_an_image_of_one_pixel(attack: Refused, tmp_path: Path) -> None:
    assert "1 x 1 pixels is too small" in attack(image=save(tmp_path / "dot.png", (1, 1)), prompt="--point=0,0")


# --- prompts ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("prompt", ["--point=384,100", "--point=-1,100", "--point=100,256"])
def test_a_point_outside(attack: Refused, prompt: str) -> None:
    assert "outside the 384 x 256 image" in attack(prompt=prompt)


def test_a_box_outside(attack: Refused) -> None:
    assert "outside the 384 x 256 image" in attack(prompt="--box=10,10,385,100")


def test_an_empty_box(attack: Refused) -> None:
    assert "X1 > X0" in attack(prompt="--box=100,10,50,100")


@pytest.mark.parametrize("text", ["12", "12,", "a,b", "1,2,3", "nan,4", "12;4"])
def test_a_point_that_is_none(attack: Refused, text: str) -> None:
    assert "--point X,Y" in (line := attack(prompt=f"--point={text}")) or "not a finite number" in line


def test_no_prompt(refused: Refused, tiny_folder: Path, photo: Path, tmp_path: Path) -> None:
    line = refused("attack", photo, "--model", tiny_folder, "--out", tmp_path / "out")
    assert "--point X,Y or --box X0,Y0,X1,Y1" in line


def test_a_mask_of_another_size(attack: Refused, tmp_path: Path) -> None:
    line = attack(prompt=f"--mask={save(tmp_path / 'mask.png')}")
    assert "the mask is 48 x 40, its image 384 x 256" in line


def test_an_empty_mask(attack: Refused, tmp_path: Path) -> None:
    Image.new("L", (384, 256)).save(tmp_path / "mask.png")
    assert "mask.png: the mask is empty" in attack(prompt=f"--mask={tmp_path / 'mask.png'}")


# --- names and numbers --------------------------------------------------------------------------------------------
def test_an_unknown_attack(attack: Refused) -> None:
    assert "no attack named 'pdg'. Did you mean 'pgd'" in attack("--attack", "pdg")


def test_an_unknown_objective(attack: Refused) -> None:
    assert "Did you mean 'vanish'" in attack("--objective", "vanis")


def test_an_option_the_attack_does_not_take(attack: Refused) -> None:
    assert "option of attack 'fgsm' named 'decay'" in attack("--attack", "fgsm", "--set", "decay=1")


def test_an_option_without_a_value(attack: Refused) -> None:
    assert "--set NAME=VALUE" in attack("--set", "decay")


def test_eps_in_grey_levels(attack: Refused) -> None:
    assert "Did you mean 8/255 (type --eps 8/255)" in attack("--eps", "8")


@pytest.mark.parametrize("eps", ["8/0", "eight", "-1/255", "nan", ""])
def test_eps_that_is_none(attack: Refused, eps: str) -> None:
    assert "--eps 8/255" in attack(f"--eps={eps}")


def test_an_unknown_norm(attack: Refused) -> None:
    assert "There is no norm 'linfinity'" in attack("--norm", "linfinity")


def test_a_norm_the_attack_does_not_search_in(attack: Refused) -> None:
    assert "'pgd' does not search in l0" in attack("--norm", "l0", "--eps", "100")


def test_an_unknown_device(attack: Refused) -> None:
    assert "Device 'cudda' cannot be used" in attack("--device", "cudda")


def test_a_device_that_is_not_there(attack: Refused) -> None:
    assert "cannot be used on this machine" in attack("--device", "cuda:99")


def test_an_unknown_dtype(attack: Refused) -> None:
    assert "Did you mean 'float16'" in attack("--dtype", "flaot16")


def test_an_option_that_does_not_exist(attack: Refused) -> None:
    assert "--esp" in attack("--esp", "8/255")


def test_an_unknown_command(refused: Refused) -> None:
    assert "'audit'" in refused("audti", "lab-b")


def test_an_unknown_preset(refused: Refused, tiny_folder: Path, tmp_path: Path) -> None:
    assert "Did you mean 'quick'" in refused("audit", tiny_folder, "--preset", "quik", "--out", tmp_path / "out")


def test_an_unknown_reader(refused: Refused, tiny_folder: Path, tmp_path: Path) -> None:
    line = refused("audit", tiny_folder, "--data", tmp_path, "--reader", "cocco", "--out", tmp_path / "out")
    assert "Did you mean 'coco'" in line


def test_a_data_folder_that_does_not_exist(refused: Refused, tiny_folder: Path, tmp_path: Path) -> None:
    line = refused("audit", tiny_folder, "--data", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert "nowhere: there is no such file or folder" in line


def test_a_data_folder_without_images(refused: Refused, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert "data" in refused("audit", tiny_folder, "--data", tmp_path / "data", "--out", tmp_path / "out")


def test_a_report_of_nothing(refused: Refused, tmp_path: Path) -> None:
    assert "redsam audit" in refused("report", tmp_path)


# --- weights ------------------------------------------------------------------------------------------------------
def test_an_unknown_model(attack: Refused) -> None:
    assert "Did you mean 'facebook/sam-vit-base'" in attack(model="sam-vit-bas")


def test_a_hub_model_that_cannot_be_reached(attack: Refused) -> None:
    assert "'nobody/no-such-model' is not in the local cache" in attack(model="nobody/no-such-model")


def test_a_folder_without_a_model(attack: Refused, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert "no config.json" in attack(model=tmp_path / "model")


def test_weights_with_nan(attack: Refused, tiny_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    weights = load_file(broken / "model.safetensors")
    name = sorted(n for n, w in weights.items() if w.ndim > 1)[0]
    weights[name].view(-1)[3] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    line = attack(model=broken)
    assert "is not finite" in line
    assert name.split(".")[-1] in line


def test_truncated_weights(attack: Refused, tiny_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    whole = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "broken" in attack(model=broken)


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.mkdir, (str(self.path), 0o755)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_with_code_in_it(attack: Refused, tmp_path: Path, how: str) -> None:
    target, file = tmp_path / "boom", tmp_path / "model.pth"
    bomb = {"image_encoder.pos_embed": torch.zeros(1), "payload": Bomb(target)}
    if how == "torch":
        torch.save(bomb, file)
    else:
        file.write_bytes(pickle.dumps(bomb))
    assert "model.pth" in attack(model=file)
    assert not target.exists(), "the pickle was run"


# --- where the files go -------------------------------------------------------------------------------------------
def good(model: Path, photo: Path, out: Path) -> list[str]:
    return ["attack", str(photo), "--model", str(model), "--steps=1", "--point=190,120", "--out", str(out)]


def test_an_output_folder_below_a_file(refused: Refused, tiny_folder: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot write there" in refused(*good(tiny_folder, photo, tmp_path / "file" / "out"))


@pytest.mark.parametrize("command", ["attack", "audit"])
def test_a_read_only_output_folder(
    refused: Refused, tiny_folder: Path, photo: Path, tmp_path: Path, command: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o555)
    if os.access(out, os.W_OK):
        pytest.skip("this user may write anywhere; see test_a_read_only_file_system")
    line = good(tiny_folder, photo, out) if command == "attack" else ["audit", str(tiny_folder), "--out", str(out)]
    assert "cannot write there (permission denied)" in refused(*line)


def on_file_system(
    options: str, mount: Path, arguments: list[str], *, script: str = 'exec "$@"'
) -> subprocess.CompletedProcess[str]:
    """Run a command line ("$@" of the script) with a small file system of its own mounted at `mount`."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    inside = f'mount -t tmpfs -o {options} none "{mount}" || exit 77; {script}'
    command = ["unshare", "-Urm", "sh", "-c", inside, "sh", sys.executable, "-m", "redsam", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this machine allows no mounts")
    return done


@pytest.mark.parametrize("command", ["attack", "audit"])
def test_a_read_only_file_system(tiny_folder: Path, photo: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    line = good(tiny_folder, photo, out) if command == "attack" else ["audit", str(tiny_folder), "--out", str(out)]
    done = on_file_system("ro,size=64k", out, line)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"redsam: {out}: cannot write there (read-only file system). Give another --out folder.\n"


def test_a_full_disk(tiny_folder: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    done = on_file_system("size=64k", out, good(tiny_folder, photo, out))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "disk is full" in done.stderr
