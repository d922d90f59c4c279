"""Energy counters of the machine: NVIDIA's NVML for GPUs, RAPL for processors.

NVML (package ``nvidia-ml-py``, the extra ``energy-measure``) counts the energy of a whole board
since its driver was loaded, in mJ, from Volta on, in steps of about 100 ms. Its power is an average
of one second or an instantaneous value by architecture; where the driver offers the instantaneous
field that one is read. RAPL counts the energy of processor packages and their memory in µJ through
``/sys/class/powercap``; its counters wrap around.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

from pspike_deploy.errors import PspikeError

POWERCAP: Final = Path("/sys/class/powercap")
#: Domains of RAPL whose energies add up; ``core`` and ``uncore`` are inside of a package, and
#: ``psys`` is the whole platform.
RAPL_DOMAINS: Final = ("package", "dram")
#: A domain file holds one short line.
_LONGEST_LINE: Final = 64


class Meter(Protocol):
    """Something that knows the energy of a device."""

    #: Name in reports.
    name: str
    #: What the energy is of.
    covers: str

    def energy(self) -> float | None:
        """Energy in J since some start; never falls. None where there is no counter."""

    def power(self) -> float | None:
        """Power in W now; None where only energy is counted."""

    def temperature(self) -> float | None:
        """Temperature in °C, or None."""

    def facts(self) -> dict[str, Any]:
        """Device, driver, clocks and whatever else the numbers depend on, as plain data."""


def _refusal(what: str, why: str, fix: str, where: str | None = None) -> PspikeError:
    return PspikeError("E-ENERGY-METER", what, why=why, fix=fix, where=where)


class NvmlMeter:
    """Counter of one NVIDIA board. Close it, or use it in a ``with`` statement.

    Args:
        uuid: the board, as ``GPU-…``; follows CUDA_VISIBLE_DEVICES, which an index does not.
        index: the board by NVML's numbering, where no uuid is given.

    Raises:
        PspikeError: E-ENERGY-METER without the package, the driver or the board.
    """

    name = "nvml"
    covers = "the whole board: GPU, its memory and regulators; not the host"

    def __init__(self, uuid: str | None = None, index: int = 0) -> None:
        try:
            self._nvml: Any = import_module("pynvml")
        except ImportError as error:
            raise _refusal(
                "the energy of a GPU cannot be read",
                f"there is no package for NVML: {error}",
                "pip install 'pspike-deploy[energy-measure]'",
            ) from error
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise self._failed(error) from error
        try:
            self._board = (
                self._nvml.nvmlDeviceGetHandleByIndex(index)
                if uuid is None
                else self._nvml.nvmlDeviceGetHandleByUUID(uuid)
            )
        except self._nvml.NVMLError as error:
            self.close()
            raise self._failed(error) from error

    def __enter__(self) -> NvmlMeter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let NVML go."""
        self._nvml.nvmlShutdown()

    def _failed(self, error: Exception) -> PspikeError:
        return _refusal(
            "the energy of a GPU cannot be read",
            f"NVML: {error}",
            "look whether nvidia-smi runs; boards of the Jetson family are not in NVML and need "
            "their own power monitor",
        )

    def _optional(self, function: str, *arguments: Any) -> Any:
        """What a function of NVML says of the board, or None where the board cannot say it."""
        try:
            return getattr(self._nvml, function)(self._board, *arguments)
        except self._nvml.NVMLError:
            return None

    def energy(self) -> float | None:
        millijoules = self._optional("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else float(millijoules) / 1e3

    def power(self) -> float | None:
        milliwatts = self._instantaneous()
        if milliwatts is None:
            milliwatts = self._optional("nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else float(milliwatts) / 1e3

    def _instantaneous(self) -> int | None:
        field = getattr(self._nvml, "NVML_FI_DEV_POWER_INSTANT", None)
        if field is None:
            return None
        found = self._optional("nvmlDeviceGetFieldValues", [field])
        if not found or found[0].nvmlReturn != self._nvml.NVML_SUCCESS:
            return None
        return int(found[0].value.uiVal)

    def temperature(self) -> float | None:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        degrees = self._optional("nvmlDeviceGetTemperature", sensor)
        return None if degrees is None else float(degrees)

    def facts(self) -> dict[str, Any]:
        nvml = self._nvml
        limit = self._optional("nvmlDeviceGetEnforcedPowerLimit")
        return {
            "meter": self.name,
            "covers": self.covers,
            "device": _text(self._optional("nvmlDeviceGetName")),
            "driver": _text(nvml.nvmlSystemGetDriverVersion()),
            "clock_sm_MHz": self._optional("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            "clock_memory_MHz": self._optional("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            "power_limit_W": None if limit is None else limit / 1e3,
            "power_kind": "usage" if self._instantaneous() is None else "instantaneous",
        }


def _text(value: Any) -> str | None:
    """Strings of NVML are bytes in old versions of its package."""
    if value is None:
        return None
    return value.decode() if isinstance(value, bytes) else str(value)


@dataclass
class _Domain:
    """One counter of RAPL: its folder, its range and what it has counted, in µJ."""

    folder: Path
    name: str
    range: int
    last: int
    counted: int = 0

    def read(self) -> int:
        """µJ since the first reading; one wrap-around between two readings is seen."""
        now = _integer(self.folder / "energy_uj")
        self.counted += now - self.last if now >= self.last else now - self.last + self.range
        self.last = now
        return self.counted


class RaplMeter:
    """Counters of all processor packages and their memory. It has no reading of power.

    Args:
        powercap: folder of the power-capping framework of Linux.

    Raises:
        PspikeError: E-ENERGY-METER where there are no counters or they may not be read.
    """

    name = "rapl"
    covers = "processor packages and memory where counted; all that runs on them, not this alone"

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._domains = list(_domains(powercap))
        if not self._domains:
            raise _refusal(
                "the energy of the processor cannot be read",
                "there is no RAPL package domain; virtual machines and containers hide them",
                "measure on the machine itself, or let the power be assumed",
                str(powercap),
            )

    def energy(self) -> float | None:
        return sum(domain.read() for domain in self._domains) / 1e6

    def power(self) -> float | None:
        return None

    def temperature(self) -> float | None:
        return None

    def facts(self) -> dict[str, Any]:
        domains = [domain.name for domain in self._domains]
        return {"meter": self.name, "covers": self.covers, "domains": domains}


def _domains(powercap: Path) -> Iterator[_Domain]:
    # "intel-rapl-mmio:*" counts the same packages a second time; AMD's carry Intel's name, too.
    for folder in sorted(powercap.glob("intel-rapl:*")):
        name = _line(folder / "name")
        if name.split("-")[0] in RAPL_DOMAINS:
            reach, now = _integer(folder / "max_energy_range_uj"), _integer(folder / "energy_uj")
            yield _Domain(folder, name, reach, now)


def _line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_LONGEST_LINE).strip()
    except PermissionError as error:
        raise _refusal(
            "the energy of the processor may not be read",
            "since 2020 Linux shows the counters of RAPL to root only (CVE-2020-8694)",
            f"run as root, or allow it until the next start: sudo chmod a+r {path}",
            str(path),
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _refusal(
            "the energy of the processor cannot be read",
            f"{type(error).__name__}: {error}",
            "look whether the kernel module intel_rapl_msr is loaded",
            str(path),
        ) from error


def _integer(path: Path) -> int:
    text = _line(path)
    if not text.isdecimal() or len(text) == _LONGEST_LINE:
        raise _refusal(
            "a counter of RAPL holds no number",
            f"found {text[:20]!r}",
            "look whether the kernel module intel_rapl_msr is loaded",
            str(path),
        )
    return int(text)
