"""Why a graph cannot become a Lava bundle: all reasons at once, each with its node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pspike_deploy.errors import PspikeError


@dataclass(frozen=True)
class Refusal:
    """One reason.

    Attributes:
        node: name of the node concerned.
        why: the facts that conflict, with numbers.
        fix: what to do about it.
    """

    node: str
    why: str
    fix: str


def raise_refusals(refusals: Sequence[Refusal], target: str = "lava") -> None:
    """Raise one error that names every node that a target cannot run; nothing where there is none.

    Raises:
        PspikeError: E-TARGET-UNSUPPORTED.
    """
    if not refusals:
        return
    nodes = list(dict.fromkeys(refusal.node for refusal in refusals))
    fixes = list(dict.fromkeys(refusal.fix for refusal in refusals))
    raise PspikeError(
        "E-TARGET-UNSUPPORTED",
        f"the target {target} cannot run {len(nodes)} node(s): {', '.join(nodes)}",
        why="; ".join(f"{refusal.node}: {refusal.why}" for refusal in refusals),
        fix="; ".join(fixes),
        where=", ".join(nodes),
    )
