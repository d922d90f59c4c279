"""The tables of supported formats and variants in the guides, from the networks of the tests.

``python -m tests.format_tables`` writes them.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pspike_deploy.graph.nodes import TwoStateNeuron
from pspike_deploy.models.checkpoint import load_checkpoint, save_checkpoint
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.linoss_config import LinOSSConfig
from pspike_deploy.models.networks import empty_network
from pspike_deploy.models.p_spikessm import PSpikeSSM
from pspike_deploy.models.spiking_ssm_config import SpikingSSMConfig
from pspike_deploy.models.streaming import refusals
from pspike_deploy.models.to_graph import to_graph
from pspike_deploy.models.two_state_config import NEURONS
from pspike_deploy.report.pages import Block
from tests.official import Variant, state_dict
from tests.test_linoss import network_of as linoss
from tests.test_official_checkpoints import lightning
from tests.test_official_networks import VARIANTS, save_official
from tests.test_spiking_ssm import network_of as spiking_ssm
from tests.test_spiking_ssm import official as official_spiking_ssm
from tests.test_two_state_checkpoints import PUBLISHED, as_published, settings_for
from tests.test_two_state_checkpoints import random_network as published_network
from tests.test_two_state_networks import CONFIG, random_network

GUIDES = Path(__file__).parent.parent / "docs" / "guides"
COMMAND = "python -m tests.format_tables"


def variants() -> str:
    """One row per variant: how it is built, and whether it streams."""
    rows = [
        "| variant | kernel | `n_ssm` | kernels | block | norm | residual | streams |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "official.pt"
        for name, variant in VARIANTS.items():
            save_official(path, variant)
            network = load_checkpoint(path).network
            codes = sorted({f"`{error.code}`" for error in refusals(network)})
            config = network.config
            norm = {"batch": "BatchNorm", "layer": "LayerNorm", "none": "none"}[config.norm]
            if config.norm != "none":
                norm += ", pre" if config.prenorm else ", post"
            cells = (
                name,
                "DPLR" if config.ssm == "dplr" else "S4D-Lin",
                "H" if config.n_ssm == config.d_model else str(config.n_ssm),
                "two-sided" if config.two_sided else "one-sided",
                "B" if config.bidirectional else "A",
                norm,
                "R" if config.residual else "null",
                ", ".join(codes) or "yes",
            )
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def neurons() -> str:
    """One row per two-state neuron: where it is read from, and what its node is."""
    rows = [
        "| neuron | authors' files | told by | recurrent | order | reset | threshold | states |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for neuron in NEURONS:
        network = random_network(replace(CONFIG, neuron=neuron, timestep=None))
        graph = to_graph(network)
        node = next(n for n in graph.nodes.values() if isinstance(n, TwoStateNeuron))
        constants = sorted(set(np.round(node.threshold, 6).tolist()))
        names = [n for n in network.layers[0].cell.state_dict() if n != "recurrent"]
        told = ", ".join(f"`{name}`" for name in names)
        ambiguous = settings_for(neuron) is not None
        cells = (
            neuron,
            "yes" if neuron in PUBLISHED else "no; ours",
            ("`--config`: " if ambiguous else "") + told,
            "yes" if node.is_recurrent else "no",
            node.order,
            _reset(node) + (", but a refractory state" if node.r_jump.any() else ""),
            f"u {'>=' if node.tie == 'ge' else '>'} {', '.join(map(str, constants))}",
            str(_states(node)),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _reset(node: TwoStateNeuron) -> str:
    subtracts = node.reset_by.any() or node.f_u.any()
    return node.reset if node.reset == "hard" or subtracts else "none"


def _states(node: TwoStateNeuron) -> int:
    """State words of one neuron that are ever used."""
    second = bool(node.a_wu.any() or node.f_w.any())
    return 1 + second + bool(node.r_jump.any())


def formats() -> str:
    """One row per file format: a file of it is made, loaded and turned into a graph."""
    rows = [
        "| file | read as | needs `--config` | becomes a graph |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, (write, settings)) in enumerate(FORMATS.items()):
            path = Path(folder) / f"{number}.pt"
            write(path)
            checkpoint = load_checkpoint(path, config=settings)
            kind = sorted({type(n).__name__ for n in to_graph(checkpoint.network).nodes.values()})
            core = [n for n in kind if n in CHARACTERISTIC]
            needs = ", ".join(f"`{key}`" for key in settings or {}) or "no"
            cells = (name, f"`{checkpoint.architecture}`", needs, ", ".join(core))
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def layout(config: LinOSSConfig | SpikingSSMConfig) -> str:
    """Fields of a configuration, and the tensors of one network by name and shape."""
    text = inspect.getdoc(type(config)) or ""
    meanings = {
        name: " ".join(meaning.split())
        for names, meaning in re.findall(
            r"^    ([\w, ]+): (.*?)(?=\n    \w[\w, ]*: |\n\n|\Z)", text, re.M | re.S
        )
        for name in names.split(", ")
    }
    rows = ["| field | here | meaning |", "|---|---|---|"]
    for name, value in config.to_dict().items():
        rows.append(f"| `{name}` | {value} | {meanings[name].replace('``', '`')} |")
    rows += ["", "| tensor | shape with these values |", "|---|---|"]
    for name, tensor in empty_network(config).state_dict().items():
        rows.append(f"| `{name}` | {tuple(tensor.shape)} |")
    return "\n".join(rows) + "\n"


def _save(weights: object) -> Callable[[Path], object]:
    return lambda path: torch.save(weights, path)


#: Networks whose layout the page of the format shows; no two axes have the same length.
LINOSS = LinOSSConfig(d_input=3, d_model=8, d_state=5, n_layers=1, n_classes=4)
SPIKING_SSM = SpikingSSMConfig(d_input=3, d_model=8, d_state=10, n_layers=1, n_classes=4)
#: Nodes that say what a network is.
CHARACTERISTIC = ("Bernoulli", "DiagonalSSM", "SecondOrderSSM", "TwoStateNeuron")
Writer = tuple[Callable[[Path], object], dict[str, object] | None]
#: How the tests write a file of every format, and the settings that it needs.
FORMATS: dict[str, Writer] = {
    "pspike-deploy, P-SpikeSSM": (
        lambda path: save_checkpoint(path, PSpikeSSM(PSpikeSSMConfig(2, 8, 2, 1, 3, 16))),
        None,
    ),
    "pspike-deploy, two-state neurons": (
        lambda path: save_checkpoint(path, published_network("SiLIF")),
        None,
    ),
    "pspike-deploy, SpikingSSM": (
        lambda path: save_checkpoint(path, spiking_ssm()),
        None,
    ),
    "pspike-deploy, LinOSS": (lambda path: save_checkpoint(path, linoss("damped")), None),
    "P-SpikeSSM authors, state_dict with settings": (
        lambda path: save_official(path, Variant()),
        None,
    ),
    "P-SpikeSSM authors, bare state_dict": (
        _save(state_dict(Variant())),
        {"model": {"residual": "R"}},
    ),
    "P-SpikeSSM authors, Lightning `.ckpt`": (lightning, None),
    "SSM-inspired-LIF and sparch, state_dict": (
        _save(as_published(published_network("SiLIF"))),
        None,
    ),
    "the same, adLIF or cAdLIF": (
        _save(as_published(published_network("adLIF"))),
        {"neuron": "adLIF"},
    ),
    "SpikingSSMs, state_dict": (_save(official_spiking_ssm(spiking_ssm())), None),
}


#: Tables by name, and the guide in which each stands.
TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "variants": (GUIDES / "official-checkpoints.md", variants),
    "neurons": (GUIDES / "two-state-neurons.md", neurons),
    "linoss": (GUIDES.parent / "checkpoint-format.md", lambda: layout(LINOSS)),
    "spiking_ssm": (GUIDES.parent / "checkpoint-format.md", lambda: layout(SPIKING_SSM)),
    "formats": (GUIDES.parent / "supported-formats.md", formats),
}


def with_table(name: str, page: str) -> str:
    """A page with one of the tables as it is now."""
    return Block(name, COMMAND).put(page, TABLES[name][1]())


if __name__ == "__main__":
    for table, (guide, _) in TABLES.items():
        guide.write_text(with_table(table, guide.read_text("utf-8")), "utf-8")
