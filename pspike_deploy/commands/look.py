"""``pspike inspect`` and ``pspike check``: look at a network without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pspike_deploy.commands.common import (
    AsJson,
    Data,
    Model,
    ReadingText,
    Settings,
    StepLength,
    print_json,
    print_result,
    reported_errors,
    tell,
)
from pspike_deploy.errors import EXIT_TARGET_CANNOT

if TYPE_CHECKING:
    from pspike_deploy.check import Check


def inspect(
    model: Model,
    settings: Settings = None,
    data: Data = None,
    reading: ReadingText = None,
    dt: StepLength = None,
    as_json: AsJson = False,
) -> None:
    """List layers, shapes and parameters; with calibration samples also ranges and errors."""
    with reported_errors(as_json):
        from pspike_deploy.inspection import describe
        from pspike_deploy.report.tables import inspection_table

        decided = None
        if reading is not None or dt is not None:
            from pspike_deploy.foreign.reading import reading_of

            decided = reading_of(reading, dt)
        description = describe(model, settings, data, decided)
        print_result(description, inspection_table(description), as_json=as_json)
        if not as_json:
            reasons = description.pop("cannot_stream", [])
            undecided = description.pop("open_decisions", [])
            presets = description.pop("presets", {})
            _print_ranges(description)
            _print_loss(description.pop("loss", []))
            facts = [f"{k}: {v}" for k, v in description.items() if k != "nodes"]
            typer.echo("\n".join(facts))
            for line in undecided:
                typer.echo(f"open: {line}")
            for name, rule in presets.items():
                typer.echo(f"--reading {name}: {rule}")
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


def _print_loss(rows: list[dict[str, str]]) -> None:
    """Print what readers of a file of plain NIR will not know."""
    if not rows:
        return
    from pspike_deploy.report.tables import loss_table, plain_console

    console = plain_console()
    console.print(loss_table(rows))
    console.print()


def check(
    model: Model,
    target: Annotated[str, typer.Option(help="nir, lava, loihi or onnx")] = "lava",
    profile: Annotated[str, typer.Option(help="chip of the target loihi: loihi2 or loihi1")] = (
        "loihi2"
    ),
    chips: Annotated[
        int | None,
        typer.Option(help="chips that there are; default: those of the largest system", min=1),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(help="what the mapping minimises: fewest-cores, lowest-load, least-traffic"),
    ] = "fewest-cores",
    cores: Annotated[
        bool, typer.Option("--cores", help="list every core: place, neurons, load")
    ] = False,
    settings: Settings = None,
    reading: ReadingText = None,
    dt: StepLength = None,
    as_json: AsJson = False,
) -> None:
    """Say every reason why a target cannot run a network. Exit status 3 if there is one.

    For loihi also how many cores and chips it takes, how full they are, and, where it does not
    fit, the cheapest change that would make it fit.
    """
    with reported_errors(as_json):
        from pspike_deploy.check import check as check_model
        from pspike_deploy.foreign.reading import reading_of
        from pspike_deploy.targets.profile import load_profile

        load_profile(profile)
        found = check_model(
            model,
            target,
            settings,
            profile=profile,
            chips=chips,
            objective=objective,  # type: ignore[arg-type]  # an unknown one is a finding
            reading=reading_of(reading, dt),
        )
        document: dict[str, Any] = {
            "model": model.name,
            "target": target,
            "findings": found.findings,
        }
        if found.loss:
            document["loss"] = found.loss
        if target == "loihi":
            document |= {"profile": profile, "feasibility": found.feasibility}
            if cores:
                document["mapping"] = None if found.mapping is None else found.mapping.to_dict()
        if as_json:
            print_json(document)
        else:
            _print_check(target, found, cores)
        raise typer.Exit(0 if found.can_run else EXIT_TARGET_CANNOT)


def _print_check(target: str, found: Check, cores: bool) -> None:
    """Findings, the table of the chip, and whether the target can run the network."""
    for finding in found.findings:
        tell(f"{finding['severity']}: {finding['code']}: {finding['message']}", finding)
    _print_loss(found.loss)
    if found.feasibility is not None:
        from pspike_deploy.report.core_tables import core_table, feasibility_table
        from pspike_deploy.report.tables import plain_console

        plain_console().print(feasibility_table(found.feasibility))
        if cores and found.mapping is not None:
            plain_console().print(core_table(found.mapping))
    verdict = f"{target} {'can' if found.can_run else 'cannot'} run this"
    counted = f"; {len(found.findings)} finding(s)" if found.findings else ""
    typer.echo(f"{verdict}{counted}")
