"""A resumed run that equals one that was never cut off."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.data import sized_len
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Generator, Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..utils.loaders import generators_of
from ..utils.rng import generator_states, set_generator_states
from .interrupted_epoch import batches_seen, end_epoch_properly, make_up_for_validation

_SAVED = "accumulated_gradients"  # our part of a full checkpoint
States = dict[str, Any]  # of the process's generators, and those of the loaders


class ExactResume(Callback):
    """Put all random numbers into the checkpoint, so that interrupted equals uninterrupted, bit for bit.

    It keeps the generators of Python, NumPy, torch and CUDA on every rank, and those of loaders and samplers.
    A run that was cut off within an epoch goes on at the next batch: loaders that keep a state themselves
    (those of our datamodules, torchdata's `StatefulDataLoader`) are asked for it; any other loader over a
    map-style data set begins its epoch again from the random numbers it had, workers' seeds among them, and
    what was seen is skipped. Gradients that are being accumulated are kept, and a validation that was due is
    made up for. What cannot be made exact is named in a warning.

    >>> ExactResume().state_key
    'ExactResume'
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._start: States | None = None  # when the run began
        self._epoch: States | None = None  # when this epoch's iterator was made; None for the run's first
        self._between: States | None = None  # when the last batch was done
        self._resumed: States | None = None  # this rank's, of a checkpoint
        self._loaded: States | None = None
        self._generators: list[Generator] = []
        self._interrupted = False
        self._first = True
        self._cut = False  # whether the run was cut off between an epoch's last batch and its end
        self._gradients: dict[str, Tensor] | None = None  # accumulated when it was cut off
        self._late = False  # whether loaders got their states after their iteration had begun
        self._in_backward = False  # whether they are those of a whole number of batches

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew for a fit: the loaders are made from the random numbers of this moment."""
        if stage == "fit":
            self._reset()
            self._start = self._states()

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Have a resumed run make its loaders from the random numbers that the first one had."""
        loaded = checkpoint.get("callbacks", {}).get(self.state_key)
        if trainer.state.fn != "fit" or loaded is None:
            return
        ranks = loaded.get("ranks", [loaded])
        if len(ranks) != trainer.world_size:
            rank_zero_warn(
                f"The checkpoint has random numbers of {len(ranks)} processes, this run has "
                f"{trainer.world_size}: it will not equal the uninterrupted one."
            )
        self._resumed = ranks[trainer.global_rank % len(ranks)]
        self._start = self._resumed["start"]
        self._restore(self._start)
        self._cut = end_epoch_properly(checkpoint["loops"]["fit_loop"])
        self._gradients = checkpoint.get(_SAVED)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on where the checkpoint was taken."""
        training = trainer.fit_loop._combined_loader
        validating = trainer.fit_loop.epoch_loop.val_loop._combined_loader
        loaders = [] if training is None else list(training.flattened)
        self._generators = [
            generator
            for loader in [*loaders, *([] if validating is None else validating.flattened)]
            for generator in generators_of(loader)
        ]
        loaded, self._resumed, self._loaded = self._resumed, None, None
        inexact = [reason for loader in loaders for reason in _inexact(loader)]
        if trainer.strategy.root_device.type == "cuda" and not torch.are_deterministic_algorithms_enabled():
            inexact.append("CUDA kernels that add in no fixed order (set `Trainer(deterministic=True)`)")
        if loaded is not None:
            stateful = all(hasattr(loader, "load_state_dict") for loader in loaders)
            inexact += self._resume(trainer, pl_module, loaded, stateful=stateful)
        if inexact:
            rank_zero_warn(f"Resuming is exact but for {'; '.join(dict.fromkeys(inexact))}.")

    def _resume(
        self, trainer: Trainer, pl_module: LightningModule, loaded: States, *, stateful: bool
    ) -> Iterator[str]:
        """Go on, and yield what of the epoch that was cut off cannot be brought back."""
        self._first = False
        epoch_loop = trainer.fit_loop.epoch_loop
        due = epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
        if self._cut and not due:
            epoch_loop.val_loop._has_run = True  # nothing is left of the epoch but its end
            epoch_loop._batches_that_stepped += 1
        validates = due and not self._cut and make_up_for_validation(trainer)
        seen = batches_seen(trainer)
        if trainer.fit_loop._combined_loader_states_to_load and not self._cut:
            # The loaders were asked for their length before the checkpoint's loops were restored.
            trainer.fit_loop._load_combined_loader_states()
            self._late = True
        self._go_on(trainer, loaded, seen, stateful=stateful, validates=validates)
        if seen or self._cut:
            yield "the metrics of this epoch's training, which count only what follows"
        if seen and not self._accumulate(trainer, pl_module, seen):
            yield "the gradients accumulated so far"

    def _accumulate(self, trainer: Trainer, pl_module: LightningModule, seen: int) -> bool:
        """Take up the gradients of batches whose step is still to come; return whether none is missing."""
        gradients, self._gradients = self._gradients, None
        if gradients is None:
            return not pl_module.automatic_optimization or seen % trainer.accumulate_grad_batches == 0
        for name, parameter in pl_module.named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter)
        return True

    def _go_on(self, trainer: Trainer, loaded: States, seen: int, *, stateful: bool, validates: bool) -> None:
        """Give the Trainer an iterator at the right batch, and the generators their states."""
        now, fetcher = loaded["now"], trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if not trainer.fit_loop.epoch_loop.batch_progress.total.state_dict()["processed"]:
            # Nothing was trained: the iteration that Lightning has begun is the right one.
            self._restore(now)
            self._first = True
            return
        begun = self._states()
        if not seen or validates:
            self._restore(now)
        self._epoch = loaded["epoch"] if seen else self._states()
        if self._cut:  # only the end of its epoch is left
            return
        if fetcher.length is not None:
            fetcher.iterator = self._rest(
                fetcher.combined_loader, begun, None if validates else now, seen, stateful=stateful
            )
            return
        if self._late or (self._epoch is not None and not (seen and stateful)):
            self._restore(self._epoch or begun)
            iter(fetcher)  # looks a batch ahead, to know which is the last
        for _ in range(0 if stateful else seen):
            next(fetcher)
        if seen:
            self._restore(now)

    def _rest(
        self,
        batches: Any,  # noqa: ANN401 - Lightning's own
        begun: States,
        now: States | None,
        seen: int,
        *,
        stateful: bool,
    ) -> Iterator[Any]:
        """Yield the rest of the epoch. Its iterator is made when the first batch is asked for.

        That is after the hooks of the epoch's start, as in an epoch of a run that was not cut off, and after
        a validation that was due: then `now` is None, and the generators go on from it.
        """
        now = now or self._states()
        if not seen:
            self._epoch = self._states()
            batches = iter(batches)
        elif self._late or not stateful:
            self._restore(self._epoch or begun)
            if self._late or self._epoch is not None:  # otherwise Lightning has begun the same iteration
                batches = iter(batches)
            for _ in range(0 if stateful else seen):
                next(batches)
        if seen:
            self._restore(now)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the states from which the epoch's iterator is made; the first one's was made before."""
        if not self._first:
            self._epoch = self._states()
            trainer.fit_loop.epoch_loop.restarting = False  # which stays where nothing was left of its epoch
        self._first = False
        self._between = self._states()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Keep the states, for a batch that may be cut off."""
        self._between = self._states()
        self._in_backward = False

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Note that the gradients are no longer those of a whole number of batches."""
        self._in_backward = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the states, for a batch that may be cut off."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._between = self._states()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Have a checkpoint of this moment begin again with the batch that was cut off."""
        self._interrupted = True

    def _states(self) -> States:
        loaders = [generator.get_state() for generator in self._generators]
        return {"process": generator_states(), "loaders": loaders}

    def _restore(self, states: States) -> None:
        set_generator_states(states["process"])
        for generator, state in zip(self._generators, states["loaders"], strict=False):
            generator.set_state(state)

    # What is saved

    def state_dict(self) -> dict[str, Any]:
        """Return the states of this process: when the run began, when the epoch did, and now."""
        if self._loaded is not None:
            return self._loaded
        if self._start is None:
            return {}
        now = self._between if self._interrupted and self._between is not None else self._states()
        return {"start": self._start, "epoch": self._epoch, "now": now}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until the fit begins."""
        self._loaded = state_dict

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the states of the other ranks, and gradients that wait for their step."""
        if trainer.world_size == 1 and not (trainer.interrupted and self._in_backward):
            waiting = trainer.fit_loop.epoch_loop._should_accumulate()
            if waiting or not pl_module.automatic_optimization:
                named = pl_module.named_parameters()
                checkpoint[_SAVED] = {n: p.grad.clone() for n, p in named if p.grad is not None}
        if trainer.world_size > 1 and not trainer.interrupted:
            ranks: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(ranks, self.state_dict())
            checkpoint["callbacks"][self.state_key] = {"ranks": ranks}


def _inexact(loader: Any) -> Iterator[str]:  # noqa: ANN401 - any iterable of batches
    """Yield what of a training loader cannot be brought back."""
    name = type(loader).__name__
    if hasattr(loader, "load_state_dict"):
        if sized_len(loader) is None:  # Lightning looks a batch ahead, and keeps the state behind it
            yield (
                f"the batch that is fetched ahead from {name}, which has no length and is lost within an "
                "epoch (give its data set `__len__`)"
            )
        return
    if not isinstance(loader, DataLoader):
        yield f"the order of {name} (give it `state_dict` and `load_state_dict`)"
        return
    if isinstance(loader.dataset, IterableDataset):
        yield (
            f"the order of {type(loader.dataset).__name__}, which is replayed from its beginning (take a "
            "map-style data set, or torchdata's `StatefulDataLoader`)"
        )
    if loader.num_workers and loader.persistent_workers:
        yield "random numbers of workers that outlive an epoch (set `persistent_workers=False`)"
    for place in (loader.dataset, loader.sampler, loader.batch_sampler):
        for attribute, value in vars(place).items() if hasattr(place, "__dict__") else ():
            if isinstance(value, (random.Random, np.random.Generator, np.random.RandomState)):
                yield (
                    f"`{type(place).__name__}.{attribute}`, a generator of its own (draw from torch's, or "
                    "give the loader a state)"
                )
