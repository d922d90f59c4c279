"""A sink that stores what it receives in a ``.npy`` file, step by step."""

import os
import traceback

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from parent_watch import PROGRESS_FILE, TRACEBACK_FILE


class FileSink(AbstractProcess):
    """Stores (step, *shape) as int32 in ``path``; reading many values from Lava would be slow.

    Args:
        shape: of its input.
        path: file to make.
        steps: steps of the run.
        told: steps of earlier runs and of all runs together, where it shall tell the progress.
    """

    def __init__(self, *, shape, path, steps, told=None):
        super().__init__(shape=shape, path=path, steps=steps, told=told)
        self.a_in = InPort(shape=shape)


@implements(proc=FileSink, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyFileSink(PyLoihiProcessModel):
    """Its model; the file is made when the process is built."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.told, path = proc_params["told"], proc_params["path"]
        # Plain integers: NumPy 2 would write its own into the header, which it cannot read again.
        shape = tuple(int(n) for n in (proc_params["steps"], *proc_params["shape"]))
        self.folder = os.path.dirname(path)
        self.file = np.lib.format.open_memmap(path, mode="w+", dtype=np.int32, shape=shape)

    def run_spk(self):
        """Store what arrives; an exception is written down, because Lava may hang on it."""
        try:
            self.file[self.time_step - 1] = self.a_in.recv()
            if self.told is not None and self.time_step % 50 == 0:
                with open(os.path.join(self.folder, PROGRESS_FILE), "w") as file:
                    file.write(f"{self.told[0] + self.time_step} {self.told[1]}")
        except Exception:
            with open(os.path.join(self.folder, TRACEBACK_FILE), "w") as file:
                file.write(traceback.format_exc())
            raise
