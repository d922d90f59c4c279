"""Synapses for samples side by side: what Lava's Dense computes, for several samples at once."""

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.utils.weightutils import truncate_weights


class BatchDense(AbstractProcess):
    """Dense synapses whose messages hold one row per sample.

    Args:
        weights: int32 (out, in), on Lava's grid.
        batch: samples side by side.
        num_weight_bits, num_message_bits, weight_exp, sign_mode: as of Lava's Dense.
    """

    def __init__(self, *, weights, batch, name, **settings):
        super().__init__(name=name, weights=weights, batch=batch, settings=settings)
        self.s_in = InPort(shape=(batch * weights.shape[1],))
        self.a_out = OutPort(shape=(batch * weights.shape[0],))


@implements(proc=BatchDense, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyBatchDense(PyLoihiProcessModel):
    """CPU model of BatchDense: sums leave one step after the spikes came, as from Lava's Dense."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params):
        super().__init__(proc_params)
        settings, weights = proc_params["settings"], proc_params["weights"]
        self.batch, self.settings = proc_params["batch"], settings
        held = truncate_weights(weights, settings["sign_mode"], settings["num_weight_bits"])
        # Sums of int32 are exact in float64, whose products of matrices are many times faster.
        self.columns = np.ascontiguousarray(held.T, np.float64)
        self.sums = np.zeros(self.batch * len(weights), np.int32)

    def run_spk(self):
        """Send the sums of the step before, and add up those of this one."""
        self.a_out.send(self.sums)
        arriving = self.s_in.recv().reshape(self.batch, -1)
        if self.settings["num_message_bits"] == 0:
            arriving = arriving.astype(bool)
        sums = (arriving.astype(np.float64) @ self.columns).astype(np.int32)
        shift = self.settings["weight_exp"]
        sums = np.left_shift(sums, shift) if shift > 0 else np.right_shift(sums, -shift)
        self.sums = sums.reshape(-1)
