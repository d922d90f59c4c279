"""Integer form of diagonal state-space models, driven by spikes or by graded values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.nodes import DiagonalSSM
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format, fraction_bits_for
from pspike_deploy.quantize.formats import read_out_format, state_format

if TYPE_CHECKING:
    from pspike_deploy.quantize.integers import Quantizer


def diagonal_ssm(work: Quantizer, node: DiagonalSSM, name: str) -> DiagonalSSM:
    """Integers of an SSM; notes its formats.

    What a spike adds has the format of the state or the output, so nothing is multiplied. A graded
    input is multiplied by 16-bit factors.
    """
    if np.hypot(node.a_bar[..., 0], node.a_bar[..., 1]).max(initial=0.0) > 1:
        raise PspikeError(
            "E-TARGET-UNSUPPORTED",
            f"the SSM {name!r} is unstable",
            why="a mode has a magnitude above 1, so its state grows without limit",
            fix="retrain with decays below 1",
            where=name,
        )
    source, f_in, _ = work.arriving(name)
    output, bits = work.choices[name].format, work.config.coefficient_bits
    if work.nodes[source].spikes:
        state = state_format(work.config)
        b, d = Format(work.config.state_bits, state.fraction_bits), output
    else:
        state = state_format(work.config, work.choices[source].magnitude)
        # Products are shifted right, never left.
        largest = float(np.abs(node.b_bar).max(initial=0.0))
        f_b = fraction_bits_for(largest, bits, most=bits - 1)
        b = Format(bits, max(f_b, int(state.fractions()) - f_in))
        f_d = fraction_bits_for(float(np.abs(node.d).max(initial=0.0)), bits, most=bits - 1)
        d = Format(bits, max(f_d, int(output.fractions()) - f_in))
    tensors = {
        "a_bar": Format(bits, bits - 1),
        "b_bar": b,
        "c": read_out_format(node, work.config),
        "d": d,
        "state": state,
    }
    work.formats[name] = NodeQuantization(output, tensors, "toward_zero")
    fields = ("a_bar", "b_bar", "c", "d")
    return DiagonalSSM(
        *(work.store(name, field, getattr(node, field), tensors[field]) for field in fields)
    )
