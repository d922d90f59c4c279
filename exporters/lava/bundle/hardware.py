"""Runs on Loihi 2: asks for everything that it takes before anything proprietary is imported.

Public Lava holds no models for neuro-cores. Members of Intel's research community (INRC) have them
as lava-loihi; the programmable neurons of this bundle need microcode besides. Whoever writes it
puts a file ``chip_models.py`` beside this one:

    MODELS = {Source: ..., NeuronGroup: ..., Readout: ...}      # process class -> model class
    def prepare(): ...                                          # optional: choose host and board

``pspike_processes/neurons.py`` is the specification, ``neuron_programs.json`` of the export lists
the operations. The models leave what ``Probe`` in ``pspike_processes/program.py`` leaves, as far as
the chip can be read out.
"""

import importlib.util
import os


class HardwareMissingError(RuntimeError):
    """Something that a run on the chip needs is not on this machine."""


def require_hardware(bundle):
    """Say what is missing on this machine; nothing proprietary is imported here.

    Raises:
        HardwareMissingError: naming everything that is missing, and who has it.
    """
    from lava.utils import loihi

    missing = []
    if not loihi.is_installed():
        missing.append(
            "lava-loihi, which holds the models for neuro-cores: Intel gives it to members of its "
            "research community (INRC)"
        )
    if not os.path.isfile(os.path.join(bundle, "chip_models.py")):
        missing.append(
            "chip_models.py beside run.py, with models of Source, NeuronGroup and Readout for the "
            "chip: see hardware.py"
        )
    if missing:
        raise HardwareMissingError("this machine lacks " + "; and ".join(missing))


def run_configuration(bundle, processes):
    """Run configuration of Loihi 2 for processes, by instance."""
    require_hardware(bundle)
    specification = importlib.util.spec_from_file_location(
        "chip_models", os.path.join(bundle, "chip_models.py")
    )
    chip_models = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(chip_models)
    if hasattr(chip_models, "prepare"):
        chip_models.prepare()
    from lava.magma.core.run_configs import Loihi2HwCfg

    models = {process: chip_models.MODELS[type(process)] for process in processes}
    return Loihi2HwCfg(select_tag="fixed_pt", exception_proc_model_map=models)
