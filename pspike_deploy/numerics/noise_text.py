"""Noise named in one line of text, as on the command line.

A name, and after a colon what differs from the defaults: ``philox``,
``lfsr:width=16,taps=0xB400,shifts=1,sharing=core``, ``lcg:byte=low``. Numbers are decimal, or
hexadecimal after ``0x``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pspike_deploy.errors import PspikeError
from pspike_deploy.numerics.noise import Noise

_EXAMPLES: Final = "philox, lfsr:width=16,taps=0xB400,shifts=1,sharing=core or lcg:byte=low"
_NUMBERS: Final = ("width", "taps", "shifts", "core_neurons", "uniform_bits")
_SHARED: Final = ("sharing", "core_neurons", "uniform_bits")
_KINDS: Final[dict[str, tuple[Callable[..., Noise], tuple[str, ...]]]] = {
    "philox": (Noise.philox, ()),
    "lfsr": (Noise.lfsr, ("width", "taps", "shifts", *_SHARED)),
    "lcg": (Noise.lcg, ("byte", *_SHARED)),
}


def noise_of(text: str, seed: int = 0) -> Noise:
    """The noise that a text names.

    Args:
        text: ``kind`` or ``kind:name=value,name=value``.
        seed: 0 … 2**64 - 1.

    Raises:
        PspikeError: E-USAGE for an unknown kind or name, and values that are not allowed.
    """
    kind, colon, rest = text.strip().partition(":")
    if kind not in _KINDS:
        raise _refused(text, f"there is no generator {kind!r}")
    make, allowed = _KINDS[kind]
    given: dict[str, str | int] = {}
    for part in rest.split(",") if colon else ():
        name, equals, value = (word.strip() for word in part.partition("="))
        if name not in allowed or not equals or not value:
            known = f"of {', '.join(allowed)}" if allowed else "nothing"
            raise _refused(text, f"{part!r} is not name=value; {kind} takes {known}")
        if name in given:
            raise _refused(text, f"{name} is given twice")
        given[name] = _number(text, name, value) if name in _NUMBERS else value
    return make(seed=seed, **given)


def _number(text: str, name: str, value: str) -> int:
    try:
        return int(value, 0)
    except ValueError:
        raise _refused(text, f"{name} {value!r} is not an integer") from None


def _refused(text: str, why: str) -> PspikeError:
    return PspikeError(
        "E-USAGE", f"the noise {text!r} is not understood", why=why, fix=f"give {_EXAMPLES}"
    )
