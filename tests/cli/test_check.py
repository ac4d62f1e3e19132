import json
import textwrap

import pytest

from .conftest import TINY

MODULE = """
    import torch
    from lightning.pytorch import LightningDataModule, LightningModule
    from torch.nn import functional
    from torch.utils.data import DataLoader, TensorDataset
    from sklearn.datasets import load_digits


    class Mine(LightningModule):
        def __init__(self, rate: float = 1e-3, softmax: bool = False, smoothing: float = 0.0):
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
            )

        def training_step(self, batch, batch_idx):
            logits = self.net(batch[0])
            if self.hparams.softmax:
                logits = logits.softmax(1)
            return functional.cross_entropy(logits, batch[1], label_smoothing=self.hparams.smoothing)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), self.hparams.rate)


    class Data(LightningDataModule):
        def train_dataloader(self):
            images, targets = load_digits(return_X_y=True)
            images = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8)
            data = TensorDataset((images - images.mean()) / images.std(), torch.tensor(targets))
            return DataLoader(data, 32, shuffle=True)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module and a datamodule of one's own, in a file that can be imported: the arguments for them."""
    (tmp_path / "own_package.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(tmp_path)
    return "--model", "own_package.Mine", "--data", "own_package.Data"


def found(out):
    return json.loads(out)["findings"]


def test_the_embedded_digits_have_no_fault(run, tmp_path):
    status, out, _ = run("check", *TINY, "--seconds", "120", "--json", "--data.limit_per_class", "null")
    assert status == 0, out
    assert {finding["status"] for finding in found(out)} <= {"PASS", "SKIP", "INFO"}
    assert not [finding for finding in found(out) if finding["status"] == "SKIP" and not finding["message"]]
    assert list(tmp_path.iterdir()) == []  # no directory of a run


def test_a_module_of_ones_own(run, mine):
    status, out, _ = run("check", *mine, "--seconds", "60", "--json", "--strict")
    assert status == 0, out
    assert sum(finding["status"] == "PASS" for finding in found(out)) > 15


def test_a_fault_ends_in_2_and_a_table_that_names_it(run, mine, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    status, out, _ = run("check", *mine, "--model.softmax", "true", "--seconds", "60")
    assert status == 2
    lines = [line for line in out.splitlines() if line.startswith("│")]
    assert lines[0].split("│")[1].strip() == "FAIL"
    assert "softmax-before-cross-entropy" in lines[0]
    assert "Hand the logits to the cross-entropy" in out


@pytest.mark.parametrize(("strict", "expected"), [((), 0), (("--strict",), 1)])
def test_a_warning_ends_in_1_where_one_is_strict(run, mine, strict, expected):
    status, out, _ = run("check", *mine, "--model.smoothing", "0.7", "--seconds", "60", "--json", *strict)
    assert status == expected, out
    assert found(out)[0]["status"] == "WARN"
    assert found(out)[0]["causes"] == ["label-smoothing-too-strong"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seconds", "0"), "`seconds` must be above 0, got 0"),
        (("--seconds", "long"), "`--seconds` must be"),
        (("--model", "own_package.Mime"), "own_package.Mime"),
        (("--sekonds", "3"), "Did you mean `--seconds`"),
    ],
)
def test_wrong_arguments_end_in_one_line(run, mine, arguments, said):
    status, _, err = run("check", *mine, *arguments)
    assert status == 2
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert said in errors[0]
