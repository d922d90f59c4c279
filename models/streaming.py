"""Why a network cannot run step by step on a streaming target: every reason, with the way out.

A streaming target computes each step from this step's input and the states. What looks into the
future can never run there; what is causal but has no node in the dialect is refused, too. Layers
carry the names of ``network.named_modules()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from torch import nn

from pspike_deploy.errors import PspikeError
from pspike_deploy.models.config import PSpikeSSMConfig
from pspike_deploy.models.diagonal_form import diagonal_form
from pspike_deploy.models.dplr import DPLR
from pspike_deploy.models.modal import ModalForm
from pspike_deploy.models.p_spikessm import PSpikeSSM
from pspike_deploy.models.spiking_ssm import SpikingSSM
from pspike_deploy.models.spiking_ssm_graph import spiking_ssm_refusals
from pspike_deploy.models.two_state import TwoStateNetwork
from pspike_deploy.models.two_state_graph import non_finite_layers, not_finite_error

_OFFICIAL: Final = "in the reference code:"


def refusals(network: nn.Module, forms: Mapping[str, ModalForm] | None = None) -> list[PspikeError]:
    """Every reason against streaming; empty where the network can stream.

    ``E-TARGET-NONCAUSAL`` comes first, then ``E-TARGET-UNSUPPORTED``, each with the layers in
    ``where``. ``forms`` are those of :func:`modal_forms`, where they are at hand.
    """
    if isinstance(network, TwoStateNetwork):
        layers = non_finite_layers(network)
        return [not_finite_error(layers)] if layers else []
    if isinstance(network, SpikingSSM):
        return spiking_ssm_refusals(network)
    if not isinstance(network, PSpikeSSM):
        return []
    if forms is None:
        forms = modal_forms(network)
    return [
        *_noncausal(network),
        *_case_b(network),
        *not_in_the_dialect(network),
        *_ill_conditioned(forms),
    ]


def joined(errors: list[PspikeError]) -> PspikeError:
    """One error that says them all; the code is that of the first."""
    if len(errors) == 1:
        return errors[0]
    return PspikeError(
        errors[0].code,
        f"the network cannot stream, for {len(errors)} reasons",
        why="; ".join(f"{error.what} ({error.why})" for error in errors),
        fix="; ".join(error.fix for error in errors),
        where="; ".join(error.where for error in errors if error.where),
    )


def modal_forms(network: nn.Module) -> dict[str, ModalForm]:
    """Diagonal form of every DPLR layer by its name; of a network that is not causal, none."""
    if not isinstance(network, PSpikeSSM) or network.config.two_sided:
        return {}
    steps = network.config.sequence_length
    return {
        name: diagonal_form(module, steps)
        for name, module in network.named_modules()
        if isinstance(module, DPLR)
    }


def _noncausal(network: PSpikeSSM) -> list[PspikeError]:
    if not network.config.two_sided:
        return []
    blocks = [f"blocks.{i}" for i in range(network.config.n_layers)]
    kinds = ("ssm", "reverse_ssm") if network.config.bidirectional else ("ssm",)
    layers = ", ".join(f"{block}.{kind}" for block in blocks for kind in kinds)
    return [
        PspikeError(
            "E-TARGET-NONCAUSAL",
            "the network is not causal: it has two-sided kernels",
            why=f"layers {layers} sum over later spikes, so no step can be computed "
            "before the sequence has ended; a streaming target computes step by step",
            fix=f"retrain with two_sided=False (one-sided kernels; {_OFFICIAL} "
            "model.layer.bidirectional=false); the trained two-sided weights cannot be converted. "
            "To study them as they are: --target nir --offline",
            where=layers,
        )
    ]


def _case_b(network: PSpikeSSM) -> list[PspikeError]:
    if not network.config.bidirectional:
        return []
    return [
        _unsupported_error(
            "the blocks are of case B (a second SSM beside the first)",
            "their sites 0, 2 and 3 share one noise tensor, and a sampling node has a site and "
            "noise of its own",
            f"retrain with bidirectional=False ({_OFFICIAL} model.bidirectional=false)",
            [f"blocks.{i}" for i in range(network.config.n_layers)],
        )
    ]


def not_in_the_dialect(network: PSpikeSSM) -> list[PspikeError]:
    """What no graph can express, whether it streams or not."""
    config: PSpikeSSMConfig = network.config
    found: list[PspikeError] = []
    blocks = [f"blocks.{i}" for i in range(config.n_layers)]
    if config.norm == "layer":
        norms = [f"{block}.norm" for block in blocks] + (["norm"] if config.prenorm else [])
        found.append(
            _unsupported_error(
                "the network normalises with LayerNorm",
                "mean and variance over all neurons are needed at every step; that is not local to "
                "a neuron and does not fold into its weights",
                f'retrain with norm="batch" ({_OFFICIAL} model.norm=batch), which folds',
                norms,
            )
        )
    if config.head == "retrieval":
        found.append(
            _unsupported_error(
                "the network compares two documents",
                "the retrieval head needs the features of two sequences at once",
                "retrain with a linear head, or export the network up to its pooled features",
                ["decoder"],
            )
        )
    return found


def _ill_conditioned(forms: Mapping[str, ModalForm]) -> list[PspikeError]:
    problems = {name: form.problem() for name, form in forms.items()}
    bad = {name: problem for name, problem in problems.items() if problem is not None}
    if not bad:
        return []
    return [
        _unsupported_error(
            "DPLR kernels cannot be brought to diagonal form safely",
            "; ".join(f"{name}: {problem}" for name, problem in bad.items()),
            f"retrain with diagonal kernels ({_OFFICIAL} model.layer.mode=diag, "
            "model.layer.init=diag-lin); the initial HiPPO matrix is the worst case of DPLR",
            list(bad),
        )
    ]


def _unsupported_error(what: str, why: str, fix: str, layers: list[str]) -> PspikeError:
    return PspikeError("E-TARGET-UNSUPPORTED", what, why=why, fix=fix, where=", ".join(layers))
