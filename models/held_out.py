"""Accuracy on speakers that a network has never heard: one training per speaker, without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pspike_deploy.models.evaluation import evaluate
from pspike_deploy.models.recipes import AnyRecipe
from pspike_deploy.models.spoken_digits import SpokenDigits
from pspike_deploy.models.train import Progress, train
from pspike_deploy.numerics.noise import Noise

_NOISE_SEED: Final = 0


def measure_held_out_speakers(
    recipe: AnyRecipe,
    digits: SpokenDigits,
    *,
    seed: int = 0,
    epochs: int | None = None,
    progress: Callable[[str, Progress], None] | None = None,
) -> dict[str, Any]:
    """Train the recipe once per speaker on all other speakers, and test on that speaker.

    The networks are thrown away: a published network is trained on all speakers.

    Args:
        recipe: of a network for spoken digits.
        digits: recordings of two speakers or more.
        seed: of every training.
        epochs: instead of the recipe's number.
        progress: called with the speaker after every epoch.

    Returns:
        Plain data: ``speakers``, by name ``samples`` and ``accuracy`` (share in [0, 1]), and
        ``mean``, the mean over speakers.

    Raises:
        PspikeError: as :meth:`~pspike_deploy.models.spoken_digits.SpokenDigits.dataset` and
            :func:`~pspike_deploy.models.train.train`.
    """
    speakers: dict[str, dict[str, Any]] = {}
    for speaker in digits.speakers():
        dataset = digits.dataset(held_out_speaker=speaker)

        def tell(done: Progress, speaker: str = speaker) -> None:
            if progress is not None:
                progress(speaker, done)

        result = train(recipe, seed=seed, epochs=epochs, progress=tell, dataset=dataset)
        noise = Noise.philox(_NOISE_SEED)
        accuracy = evaluate(result.network, dataset.test_x, dataset.test_y, noise, draws=1)
        speakers[speaker] = {"samples": len(dataset.test_y), "accuracy": float(accuracy[0])}
    mean = sum(entry["accuracy"] for entry in speakers.values()) / len(speakers)
    return {"speakers": speakers, "mean": mean}
