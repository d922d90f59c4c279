"""``pspike train``: train a recipe with a progress bar and publish checkpoint and card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pspike_deploy.atomic import readable_os_errors, refuse_existing
from pspike_deploy.errors import PspikeError
from pspike_deploy.models import card
from pspike_deploy.models.datasets import Dataset, load_dataset
from pspike_deploy.models.held_out import measure_held_out_speakers
from pspike_deploy.models.recipes import AnyRecipe, find_recipe
from pspike_deploy.models.spoken_digits import SpokenDigits, no_recordings
from pspike_deploy.models.train import Progress, train
from pspike_deploy.report.progress import TrainingProgress

#: Folder of the zoo in a clone of the repository; used where it exists.
ZOO = Path("models/zoo")


def train_to_file(
    recipe: str,
    folder: Path | None = None,
    *,
    data: Path | None = None,
    held_out_speakers: bool = False,
    epochs: int | None = None,
    seed: int = 0,
    resume: Path | None = None,
    force: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a recipe and write ``RECIPE.pt`` with its card into a folder.

    Args:
        recipe: name of a recipe.
        folder: default: the zoo of a clone, else the current folder.
        data: the user's copy of the data set, where it is not packaged.
        held_out_speakers: train once more per speaker, without that speaker, and put the accuracy
            on the unheard speaker on the card; spoken digits only.
        epochs: default: the recipe's.
        seed: of initial values, order of samples and spikes.
        resume: file that keeps the training after every epoch; where it exists, the training goes
            on from it.
        force: replace files that exist.
        quiet: no progress bar.

    Returns:
        The facts of the card.

    Raises:
        PspikeError: E-RECIPE, E-USAGE, E-INPUT-MISSING, E-OUT-EXISTS, E-OUT-UNWRITABLE,
            E-OUT-DISK-FULL, E-CHECKPOINT-FORMAT for a file of another training, and what the reader
            of the data raises.
    """
    chosen = find_recipe(recipe)
    folder = folder or (ZOO if ZOO.is_dir() else Path())
    target = folder / f"{recipe}.pt"
    if not force:
        fix = "choose another --out folder, or replace it with --force"
        refuse_existing(target, "checkpoint", fix)
    dataset, digits = _dataset(chosen, data, held_out_speakers)
    with readable_os_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        with TrainingProgress(f"training {recipe}", quiet=quiet) as bar:

            def show(done: Progress) -> None:
                bar.show(done.epoch, done.epochs, done.loss, done.accuracy)

            def show_without(speaker: str, done: Progress) -> None:
                bar.rename(f"training {recipe} without {speaker}")
                show(done)

            result = train(
                chosen, seed=seed, epochs=epochs, progress=show, dataset=dataset, resume=resume
            )
            held_out = None
            if digits is not None:
                held_out = measure_held_out_speakers(
                    chosen, digits, seed=seed, epochs=epochs, progress=show_without
                )
        return card.publish(result, folder, dataset=dataset, held_out=held_out)


def _dataset(
    recipe: AnyRecipe, data: Path | None, held_out_speakers: bool
) -> tuple[Dataset, SpokenDigits | None]:
    """The data set of a recipe, and the recordings if speakers are to be held out."""
    if not held_out_speakers:
        return load_dataset(recipe.dataset, data), None
    if recipe.dataset != "spoken_digits":
        raise PspikeError(
            "E-USAGE",
            "no speakers can be held out",
            why=f"{recipe.name} is trained on {recipe.dataset}",
            fix="leave out --held-out-speakers",
        )
    if data is None:
        raise no_recordings()
    digits = SpokenDigits.read(data)
    return digits.dataset(), digits
