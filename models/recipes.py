"""Training recipes: a network, a data set, and every number that the training needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Final

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.linoss_config import LinOSSConfig
from pspike_deploy.models.listops import SHORT, VOCABULARY
from pspike_deploy.models.speech import BANDS, STEP_SECONDS
from pspike_deploy.models.spiking_ssm_config import SpikingSSMConfig
from pspike_deploy.models.two_state_config import TwoStateConfig


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
        ssm_learning_rate: peak rate for the parameters of the state-space recurrence.
        weight_decay: of AdamW, for the parameters that decay.
        warmup_fraction: share of all steps over which the rate rises linearly from zero; then it
            falls to zero along a half cosine.
        validation_fraction: share of the training samples that is held out.
        channels_first: train in the fast form (:mod:`pspike_deploy.models.channels_first`).
        restarts: numbers of epochs after which the rate starts again, at half its last peak and
            without a rise (warm restarts, Loshchilov and Hutter, arXiv 1608.03983).
    """

    name: str
    config: PSpikeSSMConfig | LinOSSConfig | SpikingSSMConfig
    dataset: str
    epochs: int
    batch_size: int
    learning_rate: float
    ssm_learning_rate: float
    weight_decay: float
    warmup_fraction: float
    validation_fraction: float = 0.0
    channels_first: bool = False
    restarts: tuple[int, ...] = ()

    def settings(self) -> dict[str, object]:
        """The numbers of the training as plain data."""
        values = asdict(self)
        del values["config"], values["dataset"]
        # Written only where they say something, so that older checkpoints keep their bytes.
        for name in ("validation_fraction", "channels_first", "restarts"):
            if not values[name]:
                del values[name]
        if self.restarts:
            values["restarts"] = list(self.restarts)
        return values


@dataclass(frozen=True)
class TwoStateRecipe:
    """How to train a network of two-state neurons: Adam, whose rate falls where accuracy stalls.

    The accuracy that counts is that of the held-out samples, and the weights of the best epoch are
    kept; where nothing is held out, it is that of the training samples, and the last are kept.

    Attributes:
        name: what :func:`find_recipe` calls it.
        config: the network.
        dataset: name of the data set.
        epochs: passes over the training samples.
        batch_size: samples per step of the optimiser; a smaller last batch is dropped.
        learning_rate: rate of Adam at the start.
        plateau_factor: by which the rate is multiplied where accuracy stalls.
        plateau_patience: epochs without improvement before that.
        least_learning_rate: the rate does not fall below it.
        validation_fraction: share of the training samples that is held out.
    """

    name: str
    config: TwoStateConfig
    dataset: str
    epochs: int
    batch_size: int
    learning_rate: float
    plateau_factor: float = 0.7
    plateau_patience: int = 10
    least_learning_rate: float = 1e-6
    validation_fraction: float = 0.1

    def settings(self) -> dict[str, object]:
        """The numbers of the training as plain data."""
        values = asdict(self)
        del values["config"], values["dataset"]
        return values


AnyRecipe = Recipe | TwoStateRecipe

_DIGITS_CONFIG: Final = PSpikeSSMConfig(
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
)
_DIGITS: Final = Recipe(
    name="p_spikessm_digits",
    config=_DIGITS_CONFIG,
    dataset="digits",
    epochs=60,
    batch_size=32,
    learning_rate=8e-3,
    ssm_learning_rate=1e-3,
    weight_decay=0.05,
    warmup_fraction=0.1,
)

_SPOKEN_DIGITS: Final = TwoStateRecipe(
    name="silif_spoken_digits",
    config=TwoStateConfig(
        d_input=2 * BANDS,  # on and off
        d_hidden=(128, 128),
        n_classes=10,
        neuron="SiLIF",
        dropout=0.25,
        initial_state="zero",
        timestep=STEP_SECONDS,
    ),
    dataset="spoken_digits",
    epochs=30,
    batch_size=64,
    learning_rate=5e-3,
    plateau_factor=0.5,
    plateau_patience=3,
)

_LINOSS_DIGITS: Final = Recipe(
    name="linoss_digits",
    config=LinOSSConfig(d_input=1, d_model=32, d_state=16, n_layers=2, n_classes=10, dropout=0.05),
    dataset="digits",
    epochs=16,
    batch_size=32,
    learning_rate=8e-3,
    ssm_learning_rate=2e-3,
    weight_decay=0.01,
    warmup_fraction=0.1,
)

_SPIKING_SSM_DIGITS: Final = replace(
    _LINOSS_DIGITS,
    name="spiking_ssm_digits",
    config=SpikingSSMConfig(
        d_input=1,
        d_model=48,
        d_state=16,
        n_layers=2,
        n_classes=10,
        dropout=0.05,
        # Memories of 4 to 200 steps, as above.
        dt_min=1e-2,
        dt_max=0.5,
    ),
    epochs=24,
    ssm_learning_rate=1e-3,
)

_SMNIST: Final = Recipe(
    name="p_spikessm_smnist",
    config=PSpikeSSMConfig(
        d_input=1, d_model=64, d_state=16, n_layers=2, n_classes=10, sequence_length=784
    ),
    dataset="smnist",
    epochs=8,
    batch_size=16,
    learning_rate=4e-3,
    ssm_learning_rate=1e-3,
    weight_decay=0.01,
    warmup_fraction=0.05,
    validation_fraction=0.05,
    channels_first=True,
)

_LISTOPS: Final = replace(
    _SMNIST,
    name="p_spikessm_listops",
    dataset="listops",
    config=PSpikeSSMConfig(
        d_input=len(VOCABULARY),
        d_model=64,
        d_state=16,
        n_layers=3,
        n_classes=10,
        sequence_length=SHORT[1],
        encoder="embedding",
        pool_lengths=True,
    ),
    epochs=20,
    batch_size=32,
)

RECIPES: Final[dict[str, AnyRecipe]] = {
    recipe.name: recipe
    for recipe in (
        _DIGITS,
        replace(
            _DIGITS,
            name="p_spikessm_digits_linear",
            config=replace(_DIGITS_CONFIG, mixer_activation="none"),
        ),
        _SPOKEN_DIGITS,
        _LINOSS_DIGITS,
        _SPIKING_SSM_DIGITS,
        _SMNIST,
        _LISTOPS,
        replace(
            _SMNIST,
            name="p_spikessm_psmnist",
            dataset="psmnist",
            epochs=26,
            restarts=(16,),
            config=replace(_SMNIST.config, d_model=96),
        ),
    )
}


def find_recipe(name: str) -> AnyRecipe:
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
