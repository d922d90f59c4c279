"""``pspike lava setup`` and ``pspike doctor``: what runs on this machine."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pspike_deploy.commands.common import AsJson, Quiet, print_json, reported_errors
from pspike_deploy.errors import PspikeError


def lava_setup(
    python: Annotated[str | None, typer.Option(help="Python to use instead of searching")] = None,
    way: Annotated[
        str, typer.Option(help="auto, declared (Python 3.10) or shim (Python 3.11 and newer)")
    ] = "auto",
    extras: Annotated[
        list[str] | None,
        typer.Option(
            "--with", help="netx: lava-dl's loader of .net files, too (68 MB to download)"
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make the environment that runs Lava; does nothing where it exists."""
    with reported_errors(as_json):
        from pspike_deploy.simulators.lava.environment import setup_lava_environment

        def tell(message: str) -> None:
            if not quiet:
                typer.echo(message, err=True)

        environment = setup_lava_environment(
            python=python, way=_way(way), progress=tell, extras=_extras(extras or [])
        )
        if as_json:
            print_json(environment.to_dict())
        elif not quiet:
            typer.echo(f"Lava runs with {environment.python}")


def _way(name: str) -> Literal["auto", "declared", "shim"]:
    ways: dict[str, Literal["auto", "declared", "shim"]] = {
        "auto": "auto",
        "declared": "declared",
        "shim": "shim",
    }
    if name not in ways:
        raise PspikeError(
            "E-USAGE", f"unknown way {name!r}", fix=f"choose one of: {', '.join(ways)}"
        )
    return ways[name]


def _extras(names: list[str]) -> tuple[Literal["netx"], ...]:
    unknown = sorted(set(names) - {"netx"})
    if unknown:
        raise PspikeError(
            "E-USAGE", f"unknown extra {', '.join(map(repr, unknown))}", fix="choose: netx"
        )
    return ("netx",) if names else ()


def doctor(as_json: AsJson = False) -> None:
    """Say what works on this machine."""
    with reported_errors(as_json):
        from pspike_deploy.doctor import diagnose

        facts = diagnose()
        if as_json:
            print_json(facts)
        else:
            for topic, sentence in facts["sentences"].items():
                typer.echo(f"{topic + ':':12} {sentence}")
