"""The architectures that a checkpoint can hold: one entry each, and nothing else to change.

``architecture`` of a checkpoint names an entry; files of reference codes are recognised by the
names of their weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.linoss import LinOSSNetwork
from pspike_deploy.models.linoss_config import LinOSSConfig
from pspike_deploy.models.official import OfficialWeights, is_official, read_official
from pspike_deploy.models.p_spikessm import PSpikeSSM
from pspike_deploy.models.silif_official import is_silif, read_silif
from pspike_deploy.models.spiking_ssm import SpikingSSM
from pspike_deploy.models.spiking_ssm_config import SpikingSSMConfig
from pspike_deploy.models.spiking_ssm_official import is_spiking_ssm, read_spiking_ssm
from pspike_deploy.models.two_state import TwoStateNetwork
from pspike_deploy.models.two_state_config import TwoStateConfig
from pspike_deploy.models.two_state_graph import stability_warnings

Network = PSpikeSSM | TwoStateNetwork | LinOSSNetwork | SpikingSSM
NetworkConfig = PSpikeSSMConfig | TwoStateConfig | LinOSSConfig | SpikingSSMConfig
OfficialReader = Callable[[Mapping[str, Any], Mapping[str, Any] | None, str], OfficialWeights]


def _read_none(
    content: Mapping[str, Any], given: Mapping[str, Any] | None, where: str
) -> OfficialWeights:
    raise TypeError("files of this reference code are not read")


@dataclass(frozen=True)
class Architecture:
    """A kind of network.

    Attributes:
        name: what checkpoints call it.
        config: class of its configuration, with ``from_dict``.
        network: class of the network; takes a configuration.
        is_official: whether loaded content is a file of its reference code; never, by default.
        read_official: weights and configuration of such a file.
    """

    name: str
    config: (
        type[PSpikeSSMConfig] | type[TwoStateConfig] | type[LinOSSConfig] | type[SpikingSSMConfig]
    )
    network: Callable[[Any], Network]
    is_official: Callable[[object], bool] = lambda content: False
    read_official: OfficialReader = _read_none


#: Every architecture by its name.
ARCHITECTURES: Final[dict[str, Architecture]] = {
    architecture.name: architecture
    for architecture in (
        Architecture("p_spikessm", PSpikeSSMConfig, PSpikeSSM, is_official, read_official),
        Architecture("two_state", TwoStateConfig, TwoStateNetwork, is_silif, read_silif),
        Architecture("linoss", LinOSSConfig, LinOSSNetwork),
        Architecture("spiking_ssm", SpikingSSMConfig, SpikingSSM, is_spiking_ssm, read_spiking_ssm),
    )
}


def architecture_of(config: NetworkConfig) -> Architecture:
    """The architecture that a configuration belongs to."""
    return next(known for known in ARCHITECTURES.values() if isinstance(config, known.config))


def official_architecture(content: object) -> Architecture | None:
    """The architecture whose reference code wrote a file; None where none did."""
    return next((known for known in ARCHITECTURES.values() if known.is_official(content)), None)


def empty_network(config: NetworkConfig) -> Network:
    """A network without memory: names and shapes, and no draw from torch's random generator."""
    with torch.device("meta"):
        return architecture_of(config).network(config)


def warnings_of(network: Network) -> tuple[str, ...]:
    """What a user should know about trained weights, though they are valid."""
    return tuple(stability_warnings(network)) if isinstance(network, TwoStateNetwork) else ()
