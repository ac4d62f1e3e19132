"""What every callback must do, for all of `callbacks.__all__`: a new one is covered when it is exported."""

import contextlib
import inspect
import random
import re
import signal
from pathlib import Path

import lightning.pytorch
import pytest
import timm
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from lightning_recipes import callbacks
from lightning_recipes.cli.train import RecipesCLI
from lightning_recipes.utils.errors import UserError

from ..processes import run_forked, run_pair
from . import ddp_run, killed_run
from .cases import CASES, class_of, make, make_other, settings
from .toys import HOOKS, QUIET, Breaking, Manual, Skipping, Toy, close, fit, loader, same, toy

ROOT = Path(__file__).parents[2]
every = pytest.mark.parametrize("name", callbacks.__all__)


def files(folder):
    """Return what a callback wrote, by name; pictures by their size on the page only."""
    return {
        path.relative_to(folder): path.read_bytes() if path.suffix != ".png" else None
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and path.suffix not in (".ckpt", ".pt")
    }


def hooks(module):
    """Count the hooks on all layers."""
    return sum(
        len(hooks)
        for layer in module.modules()
        for key, hooks in vars(layer).items()
        if "hooks" in key and isinstance(hooks, dict)
    )


def test_every_public_callback_has_a_case():
    assert set(CASES) == set(callbacks.__all__)
    assert all(issubclass(class_of(name), Callback) for name in CASES)


# 1. Automatic and manual optimization, several optimizers, accumulation, skipped steps, autocast


def overflowing():
    """Return fp16 autocast whose first gradients overflow, so that the scaler leaves steps out."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, backoff_factor=2.0**-6)
    return MixedPrecision("16-mixed", "cpu", scaler)


KINDS = {
    "automatic": (Toy, {}),
    "two optimizers by hand": (Manual, {}),
    "accumulation": (Toy, {"accumulate_grad_batches": 2}),
    "skipped steps": (Skipping, {}),
    "bf16 autocast": (Toy, {"precision": "bf16-mixed"}),
    "fp16 autocast, with steps skipped": (Toy, {"plugins": overflowing}),
    "validation within the epoch": (Toy, {"val_check_interval": 2}),
    "validation every second epoch": (Toy, {"check_val_every_n_epoch": 2}),
    "clipping": (Toy, {"gradient_clip_val": 0.1}),
}


@every
@pytest.mark.parametrize("kind", KINDS)
def test_works_with(name, kind):
    module, options = KINDS[kind]
    alone, watched = toy(module), toy(module)

    def made():
        return {name: value() if callable(value) else value for name, value in options.items()}

    fit(alone, **made())
    trainer = fit(watched, [make(name)], **made())
    assert trainer.state.finished
    assert float(watched.steps.detach()) > 0
    assert "skipped" not in kind or float(alone.steps.detach()) < 12
    if CASES[name].watches:
        assert same(watched.state_dict(), alone.state_dict())


# 2. Interrupted equals uninterrupted: dropout, BatchNorm, noise in the data; within an epoch and between two


@every
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ours", "noisy"])
def test_killed_and_resumed_equals_uninterrupted(name, kind, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    kill_at = random.Random(name + kind).randrange(5, 15)
    done = run_forked(killed_run.run, name, kind, cut, kill_at)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (cut / "final.ckpt").exists()
    done = run_forked(killed_run.run, name, kind, cut, None, cut / "last.ckpt")
    assert done.returncode == 0, done.stderr
    killed_run.run(name, kind, whole)
    resumed, expected = (torch.load(folder / "final.ckpt", weights_only=True) for folder in (cut, whole))
    for state in (resumed, expected):
        state.pop("loops")  # counts how often it was begun
        for key in [key for key in state["callbacks"] if key.startswith("ModelCheckpoint")]:
            state["callbacks"].pop(key)  # names its folder
        if CASES[name].follows_training and kind == "noisy":
            state["callbacks"].pop(make(name).state_key)
    assert resumed.keys() == expected.keys()
    for key in expected:
        assert same(resumed[key], expected[key]), key
    if not CASES[name].follows_training or kind == "ours":
        assert files(cut) == files(whole)


# 3. The same object serves the next fold


@every
def test_serves_a_second_fit_as_a_new_one_would(name, tmp_path):
    reused, fresh = make(name), make(name)
    fit(toy(), [reused], default_root_dir=tmp_path / "first")
    fit(toy(), [reused], data_seed=5, default_root_dir=tmp_path / "second")
    fit(toy(), [fresh], data_seed=5, default_root_dir=tmp_path / "fresh")
    assert same(reused.state_dict(), fresh.state_dict())
    assert files(tmp_path / "second") == files(tmp_path / "fresh")


# 4. The module is left with its own weights, mode and hooks


@every
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("hook", HOOKS)
def test_leaves_the_module_as_it_was_after_an_error(name, hook, error):
    def broken(extra):
        module = toy(Breaking, hook, error)
        handler = signal.getsignal(signal.SIGINT)
        expected = SystemExit if error is KeyboardInterrupt else error
        try:
            with pytest.raises(expected):
                fit(module, extra)
        finally:
            signal.signal(signal.SIGINT, handler)  # Lightning ignores it from then on
        return module

    alone, watched = broken([]), broken([make(name)])
    assert hooks(watched) == hooks(alone)
    assert [m.training for m in watched.modules()] == [m.training for m in alone.modules()]
    if CASES[name].watches:
        assert same(watched.state_dict(), alone.state_dict())


@every
def test_leaves_no_hooks_after_a_fit(name):
    module = toy()
    fit(module, [make(name)])
    assert hooks(module) == 0


# 5. Nothing outside its stage


@every
@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_does_nothing_outside_fit(name, stage, tmp_path):
    def run(extra):
        module = toy()
        trainer = Trainer(**QUIET, callbacks=extra, default_root_dir=tmp_path)
        return getattr(trainer, stage)(module, loader(16, train=False)), module

    result, module = run([make(name)])
    expected, untouched = run([])
    assert same(result, expected)
    assert same(module.state_dict(), untouched.state_dict())
    assert files(tmp_path) == {}


# 6. Two processes behave as one


@every
@pytest.mark.slow
def test_two_processes_agree_with_each_other_and_with_one(name, tmp_path):
    pair, single = tmp_path / "pair", tmp_path / "single"
    pair.mkdir()
    done = run_pair(ddp_run.run, name, pair)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(pair / f"rank-{rank}.pt", weights_only=True) for rank in range(2)]
    assert same(ranks[0], ranks[1])
    callback, module = make(name), toy(Toy, nn.ReLU())
    trainer = Trainer(**QUIET, max_epochs=3, callbacks=[callback], default_root_dir=single)
    trainer.fit(module, loader(train=True), loader(18, train=False, seed=1))
    # Gradients are averaged over two halves instead of one whole: equal but for the order of sums.
    torch.testing.assert_close(ranks[0]["module"], dict(module.state_dict()), rtol=1e-4, atol=1e-6)
    if not CASES[name].of_process:
        assert close(ranks[0]["callback"], callback.state_dict())
    assert files(pair).keys() == files(single).keys()


# 7. Two instances live together; the state is plain


@pytest.mark.parametrize("name", [name for name in callbacks.__all__ if settings(name)])
def test_two_instances_live_together(name, tmp_path):
    first, second = make(name), make_other(name)
    assert first.state_key != second.state_key
    trainer = fit(toy(), [first, second])
    trainer.save_checkpoint(tmp_path / "both.ckpt")
    stored = torch.load(tmp_path / "both.ckpt", weights_only=True)["callbacks"]
    for callback in (first, second):
        assert same(stored.get(callback.state_key, {}), callback.state_dict())
        again = type(callback)(**(CASES[name].options if callback is first else CASES[name].other))
        again.load_state_dict(stored.get(callback.state_key, {}))
        assert same(again.state_dict(), callback.state_dict())


# 8. Config round trip


@every
def test_config_round_trip(name, tmp_path, capsys):
    def printed(*arguments):
        with contextlib.suppress(SystemExit):
            RecipesCLI("fit", [*arguments, "--print_config"])
        return capsys.readouterr().out

    first = printed(f"--trainer.callbacks+={name}")
    config = tmp_path / "config.yaml"
    config.write_text(first)
    assert printed("--config", str(config)) == first
    (entry,) = yaml.safe_load(first)["trainer"]["callbacks"]
    assert entry["class_path"].endswith(f".{name}")
    parameters = inspect.signature(class_of(name)).parameters
    given = entry.get("init_args", {})
    assert set(given) == set(parameters)
    built = class_of(name)(**given)
    assert built.state_key == class_of(name)().state_key
    documented = set(
        re.findall(r"^ {8}(\w+): ", inspect.getdoc(class_of(name)).replace("\n    ", "\n        "), re.M)
    )
    assert set(parameters) <= documented


# 9. A name of its own


@every
def test_bears_no_name_that_others_export(name):
    others = [
        lightning.pytorch,
        lightning.pytorch.callbacks,
        lightning.pytorch.loggers,
        torch,
        torch.nn,
        torch.optim,
        torch.optim.lr_scheduler,
        torch.optim.swa_utils,
        timm,
        timm.utils,
        timm.layers,
    ]
    assert [other.__name__ for other in others if hasattr(other, name)] == []


# 10. Says what is wrong


@pytest.mark.parametrize("name", [name for name in callbacks.__all__ if settings(name)])
def test_says_what_is_wrong(name):
    assert CASES[name].wrong
    for options, says in CASES[name].wrong:
        with pytest.raises(UserError, match=re.escape(says)):
            class_of(name)(**options)
