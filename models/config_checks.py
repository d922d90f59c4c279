"""What the configurations of all networks share: checks of single values, and one error for all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from typing import Final, TypeVar

from pspike_deploy.errors import PspikeError

#: Most trainable parameters of a network; a file that asks for more is refused before it is built.
MAX_PARAMETERS: Final = 2**28  # 1 GiB of float32
_Config = TypeVar("_Config")


def config_from(
    cls: type[_Config],
    values: Mapping[str, object],
    problems_of: Callable[[Mapping[str, object]], list[str]],
    optional: Collection[str] = (),
) -> _Config:
    """A configuration from plain data that holds exactly the fields of its class.

    Args:
        cls: dataclass of the configuration.
        values: plain data, usually of a file.
        problems_of: what is wrong with the values of known fields.
        optional: fields that may be absent.

    Raises:
        PspikeError: ``E-CHECKPOINT-CONFIG``, naming every unknown key, missing key, wrong type and
            value out of range at once.
    """
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # a dataclass
    problems = [f"unknown key {shown(key)}" for key in values if key not in known]
    required = [key for key in known if key not in optional]
    problems += [f"missing key {key!r}" for key in required if key not in values]
    problems += problems_of({key: values[key] for key in known if key in values})
    raise_problems(problems)
    return cls(**values)


def raise_problems(problems: Iterable[str]) -> None:
    """Raise ``E-CHECKPOINT-CONFIG`` with every problem, if there is one."""
    found = list(problems)
    if found:
        raise PspikeError(
            "E-CHECKPOINT-CONFIG",
            f"the network configuration has {len(found)} problem(s)",
            why="; ".join(found),
            fix="correct the configuration, or save the checkpoint again from the network",
        )


def shown(value: object) -> str:
    """A value for an error text, short whatever a hostile file holds."""
    # A hostile file may hold megabytes of text or digits where a small number belongs.
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (str, bool, int, float)) or value is None:
        text = repr(value[:60] if isinstance(value, str) else value)
        return text if len(text) <= 64 else text[:60] + "..."
    return f"a {type(value).__name__}"


def is_integer(value: object) -> bool:
    """Whether a value is an int and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def problem_of_integer(name: str, value: object, low: int, high: int) -> str | None:
    """What is wrong with an integer field, if anything; both ends are allowed."""
    if not is_integer(value):
        return f"{name} must be an integer, not {shown(value)}"
    assert isinstance(value, int)
    return None if low <= value <= high else f"{name} must lie in {low}..{high}, not {shown(value)}"


def problem_of_choice(name: str, value: object, allowed: tuple[str, ...]) -> str | None:
    """What is wrong with a field that takes one of some words, if anything."""
    is_allowed = isinstance(value, str) and value in allowed
    return None if is_allowed else f"{name} must be one of {allowed}, not {shown(value)}"


def problem_of_bool(name: str, value: object) -> str | None:
    """What is wrong with a field that is true or false, if anything."""
    return None if isinstance(value, bool) else f"{name} must be a bool, not {shown(value)}"


def problem_of_type(name: str, value: object) -> str | None:
    """What is wrong with the type of a real number, if anything."""
    is_number = isinstance(value, float) or is_integer(value)
    return None if is_number else f"{name} must be a number, not {shown(value)}"


def problem_of_real(name: str, value: object) -> str | None:
    """What is wrong with ``dropout`` or with a length of steps, if anything."""
    if problem := problem_of_type(name, value):
        return problem
    assert isinstance(value, int | float)
    if name == "dropout":
        return None if 0 <= value < 1 else f"dropout must lie in [0, 1), not {shown(value)}"
    # The bounds keep every initial step size a normal float32 number.
    return None if 1e-9 <= value <= 1e3 else f"{name} must lie in 1e-9..1e3, not {shown(value)}"


def problems_of_order(values: Mapping[str, object], low: str, high: str) -> list[str]:
    """What is wrong with the two ends of a range of real numbers, if they are there."""
    ends = values.get(low), values.get(high)
    if all(isinstance(end, int | float) for end in ends) and ends[0] > ends[1]:  # type: ignore[operator]
        return [f"{low} {ends[0]} is greater than {high} {ends[1]}"]
    return []


def problems_of_size(parameters: int) -> list[str]:
    """What is wrong with the size of a network, if anything."""
    if parameters > MAX_PARAMETERS:
        return [f"the network would have {parameters:,} parameters, over {MAX_PARAMETERS:,}"]
    return []
