"""The network's Lava processes: Source, NeuronGroup, Readout. Synapses are Lava's own Dense.

Every process computes one step of its program per Lava step. Messages are int32: binary spikes or
graded spikes of at most 24 bits. These are models for Lava's CPU simulation; the programs are the
specification of the microcode that a chip would need.
"""

import os

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from pspike_processes.noise import noise_from
from pspike_processes.program import (
    DelayLine,
    Probe,
    Program,
    Registers,
    Timetable,
    write_progress,
    write_traceback,
)


class Source(AbstractProcess):
    """Sends the integers of ``inputs.npz`` into the network, one row per step.

    Args:
        group: the group's entry in the manifest.
        run: what all groups share, see ``run.py``.
        inputs: int64 (sample, step, feature).
    """

    def __init__(self, *, group, run, inputs):
        super().__init__(name=group["name"], group=group, run=run, inputs=inputs)
        self.out = OutPort(shape=(run["batch"] * group["neurons"],))


class NeuronGroup(AbstractProcess):
    """Neurons that share one program.

    ``a_in`` takes the sums of the synapses, ``r_in`` those of the synapses from the group to
    itself, ``x_in`` and ``y_in`` graded spikes (the residual stream, the factor of a product); a
    port that the manifest does not name stays unconnected. ``state`` holds all state words of a
    neuron.

    Args:
        group: the group's entry in the manifest.
        run: what all groups share, see ``run.py``.
        parameters: arrays by node and name.
    """

    def __init__(self, *, group, run, parameters):
        super().__init__(name=group["name"], group=group, run=run, parameters=parameters)
        neurons = run["batch"] * group["neurons"]
        self.a_in = InPort(shape=(neurons,))
        self.r_in = InPort(shape=(neurons,))
        self.x_in = InPort(shape=(neurons,))
        self.y_in = InPort(shape=(neurons,))
        self.out = OutPort(shape=(run["batch"] * group["outputs"],))
        self.state = Var(shape=(max(1, group["state_words"]), neurons), init=0)


class Readout(AbstractProcess):
    """The host's part: mean over time and decoder, in 64-bit integers, once per step.

    Of it only the running sum in ``state`` would stay on a chip. Arguments as for NeuronGroup.
    """

    def __init__(self, *, group, run, parameters):
        super().__init__(name=group["name"], group=group, run=run, parameters=parameters)
        neurons = run["batch"] * group["neurons"]
        self.x_in = InPort(shape=(neurons,))
        self.state = Var(shape=(max(1, group["state_words"]), neurons), init=0)


class GroupModel(PyLoihiProcessModel):
    """What the models of all groups share: timetable, probe, traceback file."""

    def __init__(self, proc_params):
        super().__init__(proc_params)
        self.group, self.run_facts = proc_params["group"], proc_params["run"]
        run = self.run_facts
        self.batch = run["batch"]
        self.timetable = Timetable(run["samples"], run["steps"], self.group["latency"], self.batch)
        self.probe = None

    def run_spk(self):
        """One Lava step. An exception leaves its traceback in the run folder."""
        try:
            if self.probe is None:
                self.bind()
            self.compute(self.timetable.moment(self.time_step))
        except BaseException:
            write_traceback(self.run_facts["folder"])
            raise

    def bind(self):
        """Open the files of the run; ports and Vars exist only from the first step on."""
        run = self.run_facts
        samples, steps = len(run["samples"]), run["steps"]
        self.probe = Probe(run["folder"], self.group, run["nodes"], samples, steps)

    def silence(self, neurons):
        """Zeros of a step in which no sample is here."""
        return np.zeros((self.batch, neurons) if self.batch > 1 else neurons, np.int64)

    def send_message(self, values):
        """Send int64 values as int32 messages; zeros for samples that are not there."""
        message = values.astype(np.int32)
        if self.batch > 1:
            message = np.zeros((self.batch, values.shape[-1]), np.int32)
            message[: len(values)] = values
        self.out.send(message.reshape(-1))


@implements(proc=Source, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PySource(GroupModel):
    """CPU model of Source."""

    out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def compute(self, at):
        """Send this step's row; zeros while the last samples leave the pipeline."""
        if self.time_step % 100 == 1:
            write_progress(
                self.run_facts["folder"], self.time_step - 1, self.run_facts["run_length"]
            )
        values = self.silence(self.group["neurons"])
        if at is not None:
            values = self.proc_params["inputs"][at.position, at.step]
            self.probe.store(at, {self.group["program"][0]["node"]: values}, ())
        self.send_message(values)


class ProgramModel(GroupModel):
    """Model of a group that computes a program, with the residual delayed to match the synapses."""

    def bind(self):
        """Bind the program to the state, and the overflow counter to its file."""
        super().bind()
        group, run = self.group, self.run_facts
        counts = np.load(os.path.join(run["folder"], run["overflow_file"]), mmap_mode="r+")
        registers = Registers(
            run["manifest"]["overflow"], run["folder"], counts[group["number"] :][:1]
        )
        state = self.state
        if self.batch > 1:
            state = state.reshape(len(state), self.batch, group["neurons"])
        self.program = Program(
            group,
            self.proc_params["parameters"],
            state,
            registers,
            noise_from(run["manifest"], run["bundle"]),
            run["manifest"]["noise_bits"],
        )
        self.delays = {
            port: DelayLine(entry["delay"], self.batch * group["neurons"])
            for port, entry in group["inputs"].items()
        }

    def compute(self, at):
        """Receive, compute the step, send; zeros while no sample has arrived yet."""
        arriving = {
            "@" + port: delay.push(getattr(self, port).recv())
            for port, delay in self.delays.items()
        }
        values = None
        if at is not None and self.batch > 1:
            here = len(at.sample)
            arriving = {k: v.reshape(self.batch, -1)[:here] for k, v in arriving.items()}
        if at is not None:
            values = self.program.step(at, arriving)
            self.probe.store(at, values, self.program.nodes)
        self.finish(values)


@implements(proc=NeuronGroup, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyNeuronGroup(ProgramModel):
    """CPU model of NeuronGroup."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    r_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    x_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    y_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    state: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=24)

    def finish(self, values):
        """Send the value of the last node."""
        silent = values is None
        self.send_message(
            self.silence(self.group["outputs"]) if silent else values[self.group["name"]]
        )


@implements(proc=Readout, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class PyReadout(ProgramModel):
    """CPU model of Readout."""

    x_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    state: np.ndarray = LavaPyType(np.ndarray, np.int64, precision=24)

    def finish(self, values):
        """Nothing leaves the read-out but what its probe has stored."""


MODELS = {Source: PySource, NeuronGroup: PyNeuronGroup, Readout: PyReadout}
