"""``pspike inspect`` and ``pspike check``: look at a network without running it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pspike_deploy.commands.common import (
    AsJson,
    Data,
    Model,
    Settings,
    print_json,
    print_result,
    reported_errors,
    tell,
)
from pspike_deploy.errors import EXIT_TARGET_CANNOT


def inspect(
    model: Model, settings: Settings = None, data: Data = None, as_json: AsJson = False
) -> None:
    """List layers, shapes and parameters; with calibration samples also ranges and errors."""
    with reported_errors(as_json):
        from pspike_deploy.inspection import describe
        from pspike_deploy.report.tables import inspection_table

        description = describe(model, settings, data)
        print_result(description, inspection_table(description), as_json=as_json)
        if not as_json:
            reasons = description.pop("cannot_stream", [])
            _print_ranges(description)
            facts = [f"{k}: {v}" for k, v in description.items() if k != "nodes"]
            typer.echo("\n".join(facts))
            for reason in reasons:
                tell(f"cannot stream: {reason['code']}: {reason['what']}", reason)


def _print_ranges(description: dict[str, Any]) -> None:
    """Print the tables of the range analysis, and take them out of the description."""
    from pspike_deploy.report.range_tables import guard_table, range_tables
    from pspike_deploy.report.tables import plain_console

    guards = description.pop("guard", {})
    quantized = description.pop("quantization", None)
    error = description.pop("cannot_quantize", None)
    tables = range_tables(quantized["nodes"]) if quantized else [guard_table(guards)] * bool(guards)
    console = plain_console()
    for table in tables:
        console.print()
        console.print(table)
    console.print()
    if error is not None:
        tell(f"cannot quantise: {error['code']}: {error['what']}", error)


def check(
    model: Model,
    target: Annotated[str, typer.Option(help="nir, lava or loihi")] = "lava",
    profile: Annotated[
        str, typer.Option(help="chip of the target loihi: loihi2 or loihi1")
    ] = "loihi2",
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Say every reason why a target cannot run a network. Exit status 3 if there is one."""
    with reported_errors(as_json):
        from pspike_deploy.check import check_target

        findings = check_target(model, target, settings, profile)
        document = {"model": model.name, "target": target, "findings": findings}
        if as_json:
            print_json(document)
        else:
            for finding in findings:
                tell(f"{finding['severity']}: {finding['code']}: {finding['message']}", finding)
            typer.echo(f"{len(findings)} finding(s)" if findings else f"{target} can run this")
        errors = any(finding["severity"] == "error" for finding in findings)
        raise typer.Exit(EXIT_TARGET_CANNOT if errors else 0)
