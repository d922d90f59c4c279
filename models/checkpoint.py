"""Checkpoints: the format of this project, and those of the reference codes of the networks.

:func:`load_checkpoint` reads all of them; official files are described in
:mod:`pspike_deploy.models.official` (P-SpikeSSM), :mod:`pspike_deploy.models.silif_official`
(SSM-inspired-LIF and sparch) and :mod:`pspike_deploy.models.spiking_ssm_official`. The format of
this project is plain data and tensors, and nothing that runs: a file written by ``torch.save`` that
holds one dictionary with exactly these
keys:

==============  ===================================================================================
key             value
==============  ===================================================================================
format          ``"pspike-checkpoint"``
version         ``1``; a reader refuses a version that it does not know
architecture    a name of :data:`pspike_deploy.models.networks.ARCHITECTURES`
config          every field of the configuration of that architecture, no other; of
                :class:`~pspike_deploy.models.config.PSpikeSSMConfig`, those of ``EXTENSIONS`` may
                be absent
state_dict      every parameter and buffer by name; float32, counters int64; all finite
data            ``None``, or plain data on the data set; ``name`` is one of
                :mod:`pspike_deploy.models.datasets`
training        plain data on how the weights were made; may be empty
==============  ===================================================================================

Plain data are None, bool, int, finite float, str, and lists and string-keyed dictionaries of them.
The tensors of ``two_state``, ``linoss`` and ``spiking_ssm`` are listed in
:mod:`pspike_deploy.models.two_state`, ``.linoss`` and ``.spiking_ssm``. Those of
``p_spikessm`` are, with M = d_state / 2, H = d_model, T = n_ssm, S = 2 for two-sided kernels, else
1, and Q = 2 in bidirectional blocks, else 1:

===========================================  =======================  =============================
name                                         shape                    meaning
===========================================  =======================  =============================
encoder.weight, encoder.bias                 (H, d_input), (H)        linear encoder; embedding:
                                                                      weight (d_input, H) only
blocks.{i}.inp_a, inp_b, out_a, out_b        (H)                      affine maps around the SSM
blocks.{i}.inp2_a, inp2_b                    (H)                      only if bidirectional
blocks.{i}.ssm.inv_dt                        (H, 1)                   step size before softplus
blocks.{i}.ssm.A_real, A_imag                (T, M)                   log(-Re lambda), -Im lambda
blocks.{i}.ssm.B                             (1, T, M, 2)             input vector (real, imag)
blocks.{i}.ssm.P                             (1, T, M, 2)             low-rank vector, only dplr
blocks.{i}.ssm.l_kernel                      ()                       int64, only dplr
blocks.{i}.ssm.C                             (S, H, M, 2)             output vector (real, imag)
blocks.{i}.ssm.D                             (1, H)                   direct term
blocks.{i}.reverse_ssm.*                     as blocks.{i}.ssm.*      only if bidirectional
blocks.{i}.mixer.weight, bias                (H, Q H), (H)            dense synapses of the mixer
blocks.{i}.norm.weight, bias,                (H)                      BatchNorm; LayerNorm: weight,
running_mean, running_var                                             bias; norm "none": absent
blocks.{i}.norm.num_batches_tracked          ()                       int64
norm.*                                       as blocks.{i}.norm.*     only if prenorm
decoder.weight, decoder.bias                 (n_classes, H), ...      linear decoder
decoder.classifier.{0,2}.weight, bias        (H, 4 H), (n_classes, H) retrieval head instead
===========================================  =======================  =============================

Equal content gives equal bytes with one torch version. Loading is described in
:mod:`pspike_deploy.models.archive`; it never runs code from the file.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from pspike_deploy.atomic import write_file
from pspike_deploy.errors import PspikeError
from pspike_deploy.models.archive import MAX_FILE_BYTES, load_lightning, load_plain
from pspike_deploy.models.networks import (
    ARCHITECTURES,
    Architecture,
    Network,
    NetworkConfig,
    architecture_of,
    empty_network,
    official_architecture,
    warnings_of,
)
from pspike_deploy.models.settings_file import read_settings_file
from pspike_deploy.models.weights import check_tensors

FORMAT: Final = "pspike-checkpoint"
VERSION: Final = 1
KEYS: Final = ("format", "version", "architecture", "config", "state_dict", "data", "training")
MAX_PLAIN_ITEMS: Final = 100_000
MAX_PLAIN_DEPTH: Final = 16
_T = TypeVar("_T")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        network: the network, in evaluation mode, on the CPU.
        config: its configuration.
        data: plain data on the data set, or None.
        training: plain data on how the weights were made.
        sha256: hash of the file, hexadecimal.
        source: ``pspike`` (the format of this project) or ``official`` (a reference code).
        unused: names in an official file that the network does not use.
        skipped: globals that an official file names; they were neither imported nor called.
        warnings: what a user should know about the weights, though they are valid.
    """

    network: Network
    config: NetworkConfig
    data: dict[str, Any] | None
    training: dict[str, Any]
    sha256: str
    source: str = "pspike"
    unused: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """Name of the architecture."""
        return architecture_of(self.config).name


def save_checkpoint(
    path: Path | str,
    network: Network,
    *,
    data: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> str:
    """Write a checkpoint; the file appears whole or not at all, and replaces one that was there.

    Args:
        path: the file to write, ``*.pt`` or ``*.pth``.
        network: float32 network.
        data: plain data on the data set.
        training: plain data on how the weights were made.

    Returns:
        The SHA-256 of the file, hexadecimal.

    Raises:
        PspikeError: ``E-CHECKPOINT-TENSORS`` (not float32, or not finite), ``E-CHECKPOINT-FORMAT``
            (data or training are not plain), ``E-OUT-UNWRITABLE``, ``E-OUT-DISK-FULL``.
    """
    where = str(path)
    # Fresh objects without shared identities: the pickle depends on which objects are the same.
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    check_tensors(tensors, network.config, where)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": architecture_of(network.config).name,
        "config": network.config.to_dict(),
        "state_dict": tensors,
        "data": None if data is None else _plain(dict(data), "data", where),
        "training": _plain(dict(training or {}), "training", where),
    }
    buffer = io.BytesIO()
    torch.save(_with_shared_texts(content, {}), buffer)
    raw = buffer.getvalue()
    write_file(path, raw)
    return hashlib.sha256(raw).hexdigest()


def load_checkpoint(
    path: Path | str,
    *,
    config: Mapping[str, Any] | Path | str | None = None,
    max_bytes: int = MAX_FILE_BYTES,
) -> Checkpoint:
    """Read a checkpoint of this project or of a reference code, without running anything from it.

    Args:
        path: the file.
        config: settings of an official network that its file does not hold, as a mapping or as the
            path of a YAML or JSON file; they win over those of the file.
        max_bytes: size limit of the file and of its members together.

    Raises:
        PspikeError: ``E-INPUT-MISSING``, ``E-CHECKPOINT-SIZE``, ``E-CHECKPOINT-UNSAFE``,
            ``E-CHECKPOINT-FORMAT``, ``E-CHECKPOINT-CONFIG``, ``E-CHECKPOINT-TENSORS``; the last
            two name every problem at once. ``E-USAGE`` for settings that the file does not need.
    """
    where = str(path)
    given = config if isinstance(config, Mapping | None) else read_settings_file(config)
    skipped: tuple[str, ...] = ()
    try:
        loaded, sha256 = load_plain(path, max_bytes=max_bytes)
    except PspikeError as error:
        if error.code != "E-CHECKPOINT-UNSAFE":
            raise
        lightning = load_lightning(path, max_bytes=max_bytes)
        if lightning is None:
            raise
        loaded = {"state_dict": lightning.state_dict, "hyper_parameters": lightning.settings}
        sha256, skipped = lightning.sha256, lightning.skipped
    architecture = official_architecture(loaded)
    if isinstance(loaded, dict) and architecture is not None:
        return _load_official(architecture, loaded, given, where, sha256, skipped)
    content = _check_layout(loaded, where)
    if given is not None:
        raise PspikeError(
            "E-USAGE",
            "settings were given for a checkpoint that holds its own",
            why="only checkpoints of reference codes need them",
            fix="leave --config out",
            where=where,
        )
    config_class = ARCHITECTURES[content["architecture"]].config
    network_config = _at(where, lambda: config_class.from_dict(content["config"]))
    network = _load_network(network_config, content["state_dict"], where)
    return Checkpoint(
        network,
        network_config,
        content["data"],
        content["training"],
        sha256,
        warnings=warnings_of(network),
    )


def _load_official(
    architecture: Architecture,
    content: dict[str, Any],
    given: Mapping[str, Any] | None,
    where: str,
    sha256: str,
    skipped: tuple[str, ...],
) -> Checkpoint:
    found = _at(where, lambda: architecture.read_official(content, given, where))
    network = _load_network(found.config, found.tensors, where, found.names)
    return Checkpoint(
        network,
        found.config,
        None,
        {},
        sha256,
        "official",
        found.unused,
        skipped,
        warnings_of(network),
    )


def _load_network(
    config: NetworkConfig,
    weights: Mapping[str, Any],
    where: str,
    names: Mapping[str, str] | None = None,
) -> Network:
    """The network with these weights; ``names`` are those of the file, for errors.

    Weights of mixed-precision training, which only files of others hold, become float32.
    """
    check_tensors(weights, config, where, names)
    network = empty_network(config)
    tensors = {
        name: weights[name].clone(memory_format=torch.contiguous_format).to(expected.dtype)
        for name, expected in network.state_dict().items()
    }
    network.load_state_dict(tensors, assign=True)
    network.requires_grad_(True).eval()
    return network


def _at(where: str, work: Callable[[], _T]) -> _T:
    """Run and add the file to errors that do not name it."""
    try:
        return work()
    except PspikeError as error:
        raise PspikeError(
            error.code, error.what, why=error.why, fix=error.fix, where=where
        ) from error


def _check_layout(loaded: object, where: str) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        kind = type(loaded).__name__
        raise _format_error(where, f"the file holds a {kind}, not a dictionary")
    content: dict[object, Any] = loaded
    if content.get("format") != FORMAT:
        found = content.get("format", "nothing")
        shown = found[:60] if isinstance(found, str) else type(found).__name__
        raise _format_error(where, f"format is {shown!r}, expected {FORMAT!r}")
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        shown = str(version)[:20] if type(version) is int else type(version).__name__
        fix = "install a newer pspike-deploy" if type(version) is int and version > VERSION else ""
        raise _format_error(where, f"version is {shown}, this release reads version {VERSION}", fix)
    architecture = content.get("architecture")
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        known = " or ".join(repr(name) for name in ARCHITECTURES)
        raise _format_error(where, f"architecture is {str(architecture)[:60]!r}, expected {known}")
    missing = [key for key in KEYS if key not in content]
    unknown = [str(key)[:60] for key in content if key not in KEYS]
    if missing or unknown:
        raise _format_error(where, f"missing keys {missing}, unknown keys {unknown}")
    for key in ("config", "state_dict", "training"):
        if not isinstance(content[key], dict):
            raise _format_error(where, f"{key} is a {type(content[key]).__name__}, not a dict")
    if content["data"] is not None and not isinstance(content["data"], dict):
        raise _format_error(where, f"data is a {type(content['data']).__name__}, not a dict")
    for key in ("config", "data", "training"):
        content[key] = _plain(content[key], key, where)
    return {str(key): value for key, value in content.items()}


def _plain(value: object, name: str, where: str) -> Any:
    """A deep copy of plain data; tuples become lists. Counts items: shared parts can explode."""
    remaining = MAX_PLAIN_ITEMS

    def copy(item: object, depth: int) -> object:
        nonlocal remaining
        remaining -= 1
        if remaining < 0 or depth > MAX_PLAIN_DEPTH:
            raise _format_error(where, f"{name} is too large or too deep to be plain data")
        if item is None or type(item) in (bool, int, str):
            return item
        if type(item) is float and math.isfinite(item):
            return item
        if isinstance(item, (list, tuple)):
            return [copy(part, depth + 1) for part in item]
        if isinstance(item, dict) and all(type(key) is str for key in item):
            return {key: copy(part, depth + 1) for key, part in item.items()}
        raise _format_error(where, f"{name} holds a {type(item).__name__}, which is not plain data")

    return copy(value, 0)


def _with_shared_texts(value: object, texts: dict[str, str]) -> object:
    """Copy plain data so that equal texts are one object: pickles then do not differ by chance."""
    if isinstance(value, str):
        return texts.setdefault(value, value)
    if isinstance(value, dict):
        return {texts.setdefault(k, k): _with_shared_texts(v, texts) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_shared_texts(part, texts) for part in value]
    return value


def _format_error(where: str, why: str, fix: str = "") -> PspikeError:
    return PspikeError(
        "E-CHECKPOINT-FORMAT",
        "the file is not a checkpoint of this project",
        why=why,
        fix=fix
        or "save the network with pspike_deploy.models.checkpoint.save_checkpoint; checkpoints of "
        "the reference codes of P-SpikeSSM, SSM-inspired-LIF, sparch and SpikingSSMs are read, too",
        where=where,
    )
