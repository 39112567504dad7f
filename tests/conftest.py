"""Fixtures for every room. No test reaches the network, and none takes more than one thread: models this small are
slower on two, and tests run side by side."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it once
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve each other on a busy machine

import pytest
import torch

from redsam.data.demo import demo_root
from redsam.models import lab_names, load, tiny
from redsam.models.base import Segmenter

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def lab() -> Segmenter:
    """The small lab model."""
    if "lab-b" not in lab_names():
        pytest.skip("lab-b is not bundled")
    return load("lab-b")


@pytest.fixture(scope="session")
def photo() -> Path:
    """A demo photograph of 384 x 256 pixels, with a cup in the middle."""
    return demo_root() / "coffee.jpg"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random SAM as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny("sam").model.save_pretrained(folder)
    return folder
