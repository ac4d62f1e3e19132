import os
import signal

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # the suite says the same on every machine
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many processes as cores, and sums in one order

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    """Run every test in a folder of its own: whatever it writes by default lands there."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _ctrl_c():
    """Have Ctrl-C raise, as at a terminal: in the background it is ignored, and Lightning leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def digits():
    """Ten scans of each of three digits: uint8 (30, 8, 8) and int64 (30,)."""
    data = load_digits(n_class=3)
    chosen = torch.cat([torch.from_numpy(data.target == c).nonzero().flatten()[:10] for c in range(3)])
    images = (torch.from_numpy(data.images)[chosen] * (255 / 16)).round().to(torch.uint8)
    return images, torch.from_numpy(data.target)[chosen].long()


@pytest.fixture
def folder(tmp_path, digits):
    """A folder of real PNG files, one folder a class: zero, one and two."""
    root = tmp_path / "digits"
    for number, (image, target) in enumerate(zip(*digits, strict=True)):
        path = root / ("zero", "one", "two")[target] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(path)
    return root
