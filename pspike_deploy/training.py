"""``pspike train``: train a recipe with a progress bar and publish checkpoint and card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pspike_deploy.atomic import readable_os_errors
from pspike_deploy.errors import PspikeError
from pspike_deploy.models import card
from pspike_deploy.models.recipes import find_recipe
from pspike_deploy.models.train import Progress, train

#: Folder of the zoo in a clone of the repository; used where it exists.
ZOO = Path("models/zoo")


def train_to_file(
    recipe: str,
    folder: Path | None = None,
    *,
    epochs: int | None = None,
    seed: int = 0,
    force: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a recipe and write ``RECIPE.pt`` with its card into a folder.

    Args:
        recipe: name of a recipe.
        folder: default: the zoo of a clone, else the current folder.
        epochs: default: the recipe's.
        seed: of initial values, order of samples and spikes.
        force: replace files that exist.
        quiet: no progress bar.

    Returns:
        The facts of the card.

    Raises:
        PspikeError: E-RECIPE, E-OUT-EXISTS, E-OUT-UNWRITABLE, E-OUT-DISK-FULL.
    """
    find_recipe(recipe)
    folder = folder or (ZOO if ZOO.is_dir() else Path())
    target = folder / f"{recipe}.pt"
    if target.exists() and not force:
        raise PspikeError(
            "E-OUT-EXISTS",
            "the checkpoint exists already",
            why="nothing is overwritten without being asked",
            fix="choose another --out folder, or replace it with --force",
            where=str(target),
        )
    with readable_os_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=quiet,
        )
        with bar:
            task = bar.add_task(f"training {recipe}", total=None, state="")

            def show(done: Progress) -> None:
                state = f"loss {done.loss:.3f}, accuracy {100 * done.accuracy:.1f} %"
                bar.update(task, completed=done.epoch, total=done.epochs, state=state)

            result = train(recipe, seed=seed, epochs=epochs, progress=show)
        return card.publish(result, folder)
