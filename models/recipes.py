"""Training recipes: a network, a data set, and every number that the training needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Final

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.config import PSpikeSSMConfig


@dataclass(frozen=True)
class Recipe:
    """How to train a network.

    Attributes:
        name: what :func:`find_recipe` calls it.
        config: the network.
        dataset: name of the data set.
        epochs: passes over the training samples.
        batch_size: samples per step of the optimiser; a smaller last batch is dropped.
        learning_rate: peak rate of AdamW for all but the state-space matrices.
        ssm_learning_rate: peak rate for A_real, A_imag and B.
        weight_decay: of AdamW, for the parameters that decay.
        warmup_fraction: share of all steps over which the rate rises linearly from zero; then it
            falls to zero along a half cosine.
    """

    name: str
    config: PSpikeSSMConfig
    dataset: str
    epochs: int
    batch_size: int
    learning_rate: float
    ssm_learning_rate: float
    weight_decay: float
    warmup_fraction: float

    def settings(self) -> dict[str, object]:
        """The numbers of the training as plain data."""
        values = asdict(self)
        del values["config"], values["dataset"]
        return values


_DIGITS: Final = Recipe(
    name="p_spikessm_digits",
    config=PSpikeSSMConfig(
        d_input=1,
        d_model=64,
        d_state=16,
        n_layers=2,
        n_classes=10,
        sequence_length=64,
        dropout=0.1,
        # Step sizes for 64 steps: memories of 4 to 200 steps; the usual 1e-3 to 1e-1 is for 1000.
        dt_min=1e-2,
        dt_max=0.5,
    ),
    dataset="digits",
    epochs=60,
    batch_size=32,
    learning_rate=8e-3,
    ssm_learning_rate=1e-3,
    weight_decay=0.05,
    warmup_fraction=0.1,
)

RECIPES: Final[dict[str, Recipe]] = {
    recipe.name: recipe
    for recipe in (
        _DIGITS,
        replace(
            _DIGITS,
            name="p_spikessm_digits_linear",
            config=replace(_DIGITS.config, mixer_activation="none"),
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        PspikeError: ``E-RECIPE``, listing all recipes.
    """
    if name not in RECIPES:
        raise PspikeError(
            "E-RECIPE",
            f"there is no training recipe {name!r}",
            why=f"the recipes are: {', '.join(sorted(RECIPES))}",
            fix="choose one of them",
        )
    return RECIPES[name]
