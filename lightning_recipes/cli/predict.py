"""`predict`: from a checkpoint and images to a CSV."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from rich.progress import track
from torch import Tensor

from ..datamodules.batches import BatchPlan, DecodingLoader
from ..datamodules.image_folder import find_images
from ..datamodules.samples import FileReader, Samples
from ..layers.test_time import Views, check_views
from ..modules import EnsembleClassifier, ImageClassifier
from ..utils.errors import UserError
from ..utils.files import write_csv
from .checkpoints import class_of, read_checkpoint
from .parser import RecipesParser
from .runs import explain_write_errors


def run_predict(arguments: Sequence[str]) -> None:
    """Parse the arguments and write the predictions.

    Raises:
        UserError: Whatever is wrong with the arguments, the checkpoint, the images or the output.
    """
    parser = RecipesParser(
        prog="lightning-recipes predict",
        description="Write the class of each image to a CSV, from a checkpoint alone.",
    )
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="A YAML file with these arguments.")
    parser.add_argument(
        "images", nargs="+", type=str, help="Image files, and folders that are searched for them."
    )
    parser.add_argument(
        "--ckpt_path", type=str, required=True, help="A checkpoint of `fit`: runs/NAME/best.ckpt."
    )
    parser.add_argument(
        "--output", type=str, default="predictions.csv", help="The CSV: file, class, probability."
    )
    parser.add_argument("--overwrite", type=bool, default=False, help="Replace an output that exists.")
    parser.add_argument(
        "--top_k", type=int, default=1, help="Rows an image: its likeliest classes, best first."
    )
    parser.add_argument("--batch_size", type=int, default=64, help="Images a batch.")
    parser.add_argument("--num_workers", type=int, default=0, help="Processes that read ahead.")
    parser.add_argument(
        "--device", type=str, default="auto", help="cpu, cuda, cuda:1, mps; auto takes a GPU if any."
    )
    parser.add_argument(
        "--on_bad_image",
        type=Literal["raise", "skip"],
        default="raise",
        help="Stop at an image that cannot be read, or leave it out and list it.",
    )
    parser.add_argument(
        "--tta", type=Views | None, default=None, help="Test-time augmentation, in place of the checkpoint's."
    )
    given = parser.parse_args(list(arguments))
    output = Path(given.output)
    if output.exists() and not given.overwrite:
        raise UserError(f"{output} exists. Give another `--output`, or `--overwrite true`.")
    model = load_classifier(given.ckpt_path)
    assert model.preprocessing is not None  # `load_classifier` has seen to it
    if given.tta is not None:
        if not isinstance(model, ImageClassifier):
            raise UserError(f"{given.ckpt_path} is an ensemble, which takes no `--tta`. Leave it out.")
        rotated = model.preprocessing.normalization.matrix is not None
        check_views(given.tta, mirror=model.horizontal_flip is not False, rotated=rotated)
        model.tta = given.tta
    if not 1 <= given.top_k <= len(model.class_names):
        raise UserError(f"`--top_k` must lie in 1..{len(model.class_names)}, got {given.top_k}.")
    files = _files(given.images)
    samples = Samples(files, torch.zeros(len(files)), FileReader(model.preprocessing.channels))
    if given.on_bad_image == "skip" and (bad := samples.unreadable()):
        print(
            f"Skipped {len(bad)} of {len(files)} images:",
            *(text for _, text in bad),
            sep="\n  ",
            file=sys.stderr,
        )
        kept = sorted(set(range(len(files))) - {index for index, _ in bad})
        if not kept:
            raise UserError(f"None of the {len(files)} images can be read.")
        samples = samples.subset(torch.tensor(kept))
    plan = BatchPlan(len(samples), given.batch_size, shuffle=False)
    loader = DecodingLoader(samples, plan, model.preprocessing, num_workers=given.num_workers)
    rows = list(_rows(model, loader, list(samples.items), given.top_k, find_device(given.device)))
    with explain_write_errors(output.parent):
        write_csv(output, [["file", "class", "probability"], *rows])
    print(f"{len(samples)} images: {output}")


def load_classifier(path: str) -> ImageClassifier | EnsembleClassifier:
    """Return the classifier of a checkpoint, ready to predict.

    Raises:
        UserError: The checkpoint is of another kind, or does not say how its images were made.
    """
    checkpoint = read_checkpoint(path)
    model = class_of(checkpoint, path).load_from_checkpoint(path, map_location="cpu", weights_only=True)
    if model.preprocessing is None:
        raise UserError(
            f"{path} does not say how its images were made: it was not trained on an ImageDataModule."
        )
    return model.eval()


def _files(paths: Sequence[str]) -> list[Path]:
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"There is no image or folder {path}.")
        found = find_images(path) if path.is_dir() else [path]
        if not found:
            raise UserError(f"No images in {path}.")
        files += found
    return files


def find_device(name: str) -> torch.device:
    """Return the device of that name, a GPU if any for "auto".

    Raises:
        UserError: There is none.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"`--device {name}` is not to be had: {str(error).splitlines()[0]} Try `--device cpu`."
        ) from error


@torch.inference_mode()
def _rows(
    model: ImageClassifier | EnsembleClassifier,
    loader: DecodingLoader,
    files: Sequence[Path],
    top_k: int,
    device: torch.device,
) -> Iterator[tuple[str, str, str]]:
    """Yield file, class and probability, `top_k` rows an image."""
    model.to(device)
    position = 0
    for images, _ in track(loader, "predicting", disable=not sys.stdout.isatty()):
        probabilities: Tensor = model.predict_step(images.to(device)).cpu()  # (B, K)
        values, classes = probabilities.topk(top_k, 1)
        for chances, numbers in zip(values.tolist(), classes.tolist(), strict=True):
            for chance, number in zip(chances, numbers, strict=True):
                yield str(files[position]), model.class_names[number], f"{chance:.6f}"
            position += 1
