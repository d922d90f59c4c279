"""Run NIR files in another framework: python run_reader.py READER JOBS.json

READER is a key of READERS; this program runs in an environment where it is installed, and needs
nothing of pspike-deploy. JOBS.json is a list of {"file", "inputs", "output", "dt"}: a NIR file;
``.npy`` of its inputs (sample, step, lane); where the output (sample, step, value) goes; and the
length of a step in seconds. Where the framework refuses a file, its reason goes to OUTPUT.refused.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

import nir
import numpy as np
import torch

PACKAGES = ("nir", "nirtorch", "snntorch", "norse", "spikingjelly", "sinabs", "torch", "numpy")


class Heaviside(torch.nn.Module):
    """nir.Threshold, for which nirtorch has no map of its own."""

    def __init__(self, node):
        super().__init__()
        self.register_buffer("threshold", torch.from_numpy(np.array(node.threshold)))

    def forward(self, x):
        return (x > self.threshold).to(x.dtype)


def affine(node):
    """nir.Affine with its own bias; the map of nirtorch 2.6 leaves random numbers there."""
    layer = torch.nn.Linear(node.weight.shape[1], node.weight.shape[0])
    layer.weight.data = torch.from_numpy(np.array(node.weight))
    layer.bias.data = torch.from_numpy(np.array(node.bias))
    return layer


def in_nirtorch(graph, dt, samples):
    """With maps of our own."""
    import nirtorch

    return nirtorch.nir_to_torch(graph, {nir.Threshold: Heaviside, nir.Affine: affine})


def in_nirtorch_alone(graph, dt, samples):
    """With the maps that it has."""
    import nirtorch

    return nirtorch.nir_to_torch(graph, {})


def in_snntorch(graph, dt, samples):
    """snnTorch, whose dt is 1e-4, always."""
    from snntorch.import_nir import import_from_nir

    return import_from_nir(graph)


def in_norse(graph, dt, samples):
    """Norse."""
    import norse.torch

    return norse.torch.from_nir(graph, dt=dt)


def in_spikingjelly(graph, dt, samples):
    """spikingjelly."""
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return import_from_nir(graph, dt=dt)


def in_sinabs(graph, dt, samples):
    """sinabs."""
    from sinabs.nir import from_nir

    return from_nir(graph, batch_size=samples)


READERS = {
    "nirtorch": in_nirtorch,
    "nirtorch_alone": in_nirtorch_alone,
    "snntorch": in_snntorch,
    "norse": in_norse,
    "spikingjelly": in_spikingjelly,
    "sinabs": in_sinabs,
}


def run(model, inputs):
    """Output (sample, step, value) of a model that takes one step and a state."""
    model.eval()
    state, outputs = None, []
    with torch.no_grad():
        for step in range(inputs.shape[1]):
            output, state = model(inputs[:, step], state)
            outputs.append(output)
    return torch.stack(outputs, dim=1).double().numpy()


def work(reader, job):
    """Run one file."""
    torch.manual_seed(0)
    inputs = torch.from_numpy(np.load(job["inputs"], allow_pickle=False))
    try:
        model = READERS[reader](nir.read(job["file"]), job["dt"], len(inputs))
        output = run(model, inputs)
    except Exception as error:
        words = " ".join(str(error).split())
        reason = f"{type(error).__name__}: {words}" if words else type(error).__name__
        Path(job["output"] + ".refused").write_text(reason, encoding="utf-8")
    else:
        np.save(job["output"], output)


def main(reader, jobs):
    """Run all files, and write the versions of what ran them."""
    torch.set_num_threads(1)
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    jobs = Path(jobs)
    (jobs.parent / "versions.json").write_text(json.dumps(versions), encoding="utf-8")
    for job in json.loads(jobs.read_text(encoding="utf-8")):
        work(reader, job)


if __name__ == "__main__":
    main(*sys.argv[1:])
