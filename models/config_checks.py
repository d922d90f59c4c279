"""What the configurations of all networks share: checks of single values, and one error for all."""

from __future__ import annotations

from collections.abc import Iterable

from pspike_deploy.errors import PspikeError


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
