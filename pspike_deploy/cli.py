"""The command line: ``pspike`` and its short form ``pspike-export``.

Nothing heavy is imported before a command needs it. Progress goes to stderr; stdout carries the
result, with ``--json`` exactly one JSON document.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn

import typer

from pspike_deploy.errors import EXIT_INTERRUPTED, EXIT_NEGATIVE, EXIT_TARGET_CANNOT, PspikeError
from pspike_deploy.signals import end_like_interrupt, ignore_interrupts

EXPORT_EXAMPLE: Final = (
    "Example:  pspike-export models/zoo/p_spikessm_digits.pt --target lava --out build/digits"
)

app = typer.Typer(
    name="pspike",
    help="Take spiking state-space networks from PyTorch to Loihi, with evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
lava_app = typer.Typer(help="The environment that runs Lava.", no_args_is_help=True)
app.add_typer(lava_app, name="lava")

Model = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="checkpoint (.pt, .pth, .ckpt) or float graph (.nir)"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress, no tables")]
Seed = Annotated[int, typer.Option(help="seed of the noise", min=0)]
Data = Annotated[Path | None, typer.Option(help="samples (sample, step, feature), .npy or .npz")]
Labels = Annotated[Path | None, typer.Option(help="one class per sample, .npy or .npz")]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline", help="buffer whole sequences: networks that look ahead, integer simulator only"
    ),
]
Settings = Annotated[
    Path | None,
    typer.Option(
        "--config", help="settings that an official checkpoint does not hold (YAML or JSON)"
    ),
]
Device = Annotated[str, typer.Option(help="where the reference runs: auto, cpu or cuda")]


# --- commands ---------------------------------------------------------------------------------


@app.command(epilog=EXPORT_EXAMPLE)
def export(
    model: Model,
    target: Annotated[str, typer.Option(help="nir or lava")] = "lava",
    out: Annotated[Path | None, typer.Option(help="folder to make; default: MODEL-TARGET")] = None,
    data: Data = None,
    labels: Labels = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="samples that ranges are measured on; default: training split or data"),
    ] = None,
    settings: Settings = None,
    offline: Offline = False,
    weight_bits: Annotated[int, typer.Option(help="bits of a synaptic weight, 2-8")] = 8,
    state_bits: Annotated[int, typer.Option(help="bits of a state, 8-24")] = 24,
    coefficient_bits: Annotated[
        int, typer.Option(help="bits of decays, read-outs and gains, 4-16")
    ] = 16,
    input_bits: Annotated[int, typer.Option(help="bits of an input integer, 2-16")] = 16,
    noise_bits: Annotated[int, typer.Option(help="random bits per draw, 1-22")] = 16,
    overflow: Annotated[str, typer.Option(help="error, saturate or wrap")] = "saturate",
    draws: Annotated[int, typer.Option(help="repetitions of the accuracy measurement")] = 10,
    lava_samples: Annotated[int, typer.Option(help="samples replayed in Lava")] = 20,
    lava_time_limit: Annotated[
        float | None, typer.Option(help="seconds that Lava may take; default: from the run's size")
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="replace an existing export")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Quantise a network, write it for a target, run it there, and verify it."""
    with _errors(as_json):
        from pspike_deploy.options import ExportOptions
        from pspike_deploy.pipeline import export_network
        from pspike_deploy.quantize.config import QuantConfig
        from pspike_deploy.report.progress import StageProgress
        from pspike_deploy.report.tables import export_table

        config = QuantConfig(
            weight_bits=weight_bits,
            state_bits=state_bits,
            coefficient_bits=coefficient_bits,
            input_bits=input_bits,
            noise_bits=noise_bits,
            overflow=overflow,  # type: ignore[arg-type]  # checked by QuantConfig
        )
        options = ExportOptions(
            model=model,
            target=target,
            out=out or Path(f"{model.stem}-{target}"),
            data=data,
            labels=labels,
            calibration=calibration,
            config=config,
            seed=seed,
            draws=draws,
            lava_samples=lava_samples,
            lava_time_limit=lava_time_limit,
            device=device,
            force=force,
            settings=settings,
            offline=offline,
        )
        with StageProgress(quiet=quiet) as progress:
            result = export_network(options, progress)
        _print(result.summary, export_table(result.summary), as_json=as_json, quiet=quiet)
        if not as_json and not quiet:
            typer.echo(f"artefacts in {result.out}", err=True)
        raise typer.Exit(result.exit_status)


@app.command(epilog="Example:  pspike inspect models/zoo/p_spikessm_digits.pt")
def inspect(model: Model, settings: Settings = None, as_json: AsJson = False) -> None:
    """List layers, shapes, states and parameters of a network or graph."""
    with _errors(as_json):
        from pspike_deploy.inspection import describe
        from pspike_deploy.report.tables import inspection_table

        description = describe(model, settings)
        _print(description, inspection_table(description), as_json=as_json)
        if not as_json:
            reasons = description.pop("cannot_stream", [])
            facts = [f"{k}: {v}" for k, v in description.items() if k != "nodes"]
            typer.echo("\n".join(facts))
            for reason in reasons:
                _tell(f"cannot stream: {reason['code']}: {reason['what']}", reason)


@app.command(epilog="Example:  pspike check network.nir --target lava")
def check(
    model: Model,
    target: Annotated[str, typer.Option(help="nir or lava")] = "lava",
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Say every reason why a target cannot run a network. Exit status 3 if there is one."""
    with _errors(as_json):
        from pspike_deploy.check import check_target

        findings = check_target(model, target, settings)
        document = {"model": model.name, "target": target, "findings": findings}
        if as_json:
            _json(document)
        else:
            for finding in findings:
                _tell(f"{finding['severity']}: {finding['code']}: {finding['message']}", finding)
            typer.echo(f"{len(findings)} finding(s)" if findings else f"{target} can run this")
        errors = any(finding["severity"] == "error" for finding in findings)
        raise typer.Exit(EXIT_TARGET_CANNOT if errors else 0)


@app.command(
    epilog="Example:  pspike simulate build/digits/quantized.nir --data x.npy --out run.npz"
)
def simulate(
    graph: Annotated[
        Path, typer.Argument(metavar="GRAPH", help="graph (.nir) or checkpoint (.pt, .pth)")
    ],
    out: Annotated[Path, typer.Option(help="recording to write (.npz)")],
    data: Data = None,
    settings: Settings = None,
    offline: Offline = False,
    backend: Annotated[
        str, typer.Option(help="reference, fixed-point, interpreter or lava")
    ] = "fixed-point",
    samples: Annotated[int | None, typer.Option(help="number of samples; default: all")] = None,
    draw: Annotated[int, typer.Option(help="number of the repetition", min=0)] = 0,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Run a graph on data and write a recording."""
    with _errors(as_json):
        from pspike_deploy.runs import simulate_file

        facts = simulate_file(
            graph,
            data,
            out,
            backend,
            samples=samples,
            draw=draw,
            seed=seed,
            device=device,
            settings=settings,
            offline=offline,
        )
        _json(facts) if as_json else typer.echo(f"{facts['samples']} samples recorded in {out}")


@app.command(epilog="Example:  pspike compare fixed-point.npz lava.npz")
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="recording (.npz)")],
    b: Annotated[Path, typer.Argument(metavar="B", help="recording (.npz)")],
    graph: Annotated[
        Path | None, typer.Option(help="the integer graph (.nir) that ran; for --replay")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="write the one differing neuron as a replay case (.npz)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Name the first step, node, neuron and bit at which two recordings differ."""
    with _errors(as_json):
        from pspike_deploy.report.tables import comparison_table
        from pspike_deploy.runs import compare_files

        result = compare_files(a, b, graph, replay)
        document = result.to_dict()
        _print(document, comparison_table(document), as_json=as_json)
        if not as_json:
            typer.echo("\n".join([*result.notes, result.sentence]))
        raise typer.Exit(0 if result.equal else EXIT_NEGATIVE)


@app.command(epilog="Example:  pspike replay case.npz")
def replay(
    case: Annotated[Path, typer.Argument(metavar="CASE", help="replay case (.npz)")],
    as_json: AsJson = False,
) -> None:
    """Compute the one neuron of a replay case again, and say which side is right."""
    with _errors(as_json):
        from pspike_deploy.verify.replay import run_replay

        result = run_replay(case)
        if as_json:
            _json(result.to_dict())
        else:
            typer.echo(
                f"node {result.node}, neuron {result.neuron}: "
                f"the interpreter agrees with {result.agrees_with}"
            )


@app.command(epilog="Example:  pspike train p_spikessm_digits --out .")
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="name of a training recipe")],
    data: Annotated[
        Path | None,
        typer.Option(help="your copy of a data set that is not packaged, folder or .npz"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="folder to write to; default: models/zoo if it exists, else ."),
    ] = None,
    held_out_speakers: Annotated[
        bool,
        typer.Option(
            "--held-out-speakers", help="also train without each speaker, and test on that one"
        ),
    ] = False,
    epochs: Annotated[int | None, typer.Option(help="epochs; default: the recipe's", min=1)] = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="replace an existing checkpoint")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a network of the zoo and write its checkpoint and its card."""
    with _errors(as_json):
        from pspike_deploy.training import train_to_file

        facts = train_to_file(
            recipe,
            out,
            data=data,
            held_out_speakers=held_out_speakers,
            epochs=epochs,
            seed=seed,
            force=force,
            quiet=quiet,
        )
        if as_json:
            _json(facts)
        elif not quiet:
            accuracy = facts["accuracy"]
            spread = ""
            if accuracy["draws"] > 1:
                spread = f" ± {100 * accuracy['std']:.2f} % over {accuracy['draws']} draws"
            mean = f"{100 * accuracy['mean']:.2f}" + ("" if spread else " %")
            typer.echo(f"{facts['file']['name']}: test accuracy {mean}{spread}")


@lava_app.command("setup", epilog="Example:  pspike lava setup")
def lava_setup(
    python: Annotated[str | None, typer.Option(help="Python to use instead of searching")] = None,
    way: Annotated[
        str, typer.Option(help="auto, declared (Python 3.10) or shim (Python 3.11 and newer)")
    ] = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make the environment that runs Lava; does nothing where it exists."""
    with _errors(as_json):
        from pspike_deploy.simulators.lava.environment import setup_lava_environment

        def tell(message: str) -> None:
            if not quiet:
                typer.echo(message, err=True)

        environment = setup_lava_environment(python=python, way=_way(way), progress=tell)
        if as_json:
            _json(environment.to_dict())
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


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what works on this machine."""
    with _errors(as_json):
        from pspike_deploy.doctor import diagnose

        facts = diagnose()
        if as_json:
            _json(facts)
        else:
            for topic, sentence in facts["sentences"].items():
                typer.echo(f"{topic + ':':12} {sentence}")


# --- entry points and shared behaviour --------------------------------------------------------


def main() -> NoReturn:
    """Entry point of ``pspike``."""
    _run(app, "pspike")


def export_main() -> NoReturn:
    """Entry point of ``pspike-export``."""
    single = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    single.command(epilog=EXPORT_EXAMPLE)(export)
    _run(single, "pspike-export")


def _run(program: typer.Typer, name: str) -> NoReturn:
    """Run a program; an interrupt ends it with its own exit status, however often it comes."""
    end_like_interrupt()
    try:
        program(prog_name=name)
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:
            ignore_interrupts()
        raise
    raise SystemExit(0)


@contextlib.contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """Print errors of ours with their fix and turn them into exit statuses."""
    try:
        yield
    except PspikeError as error:
        if as_json:
            _json({"error": error.to_dict()})
        typer.secho(str(error), err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
        raise typer.Exit(error.exit_status) from None
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be closed
            typer.echo("interrupted; nothing was left behind", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        _report_defect(error, as_json)


def _report_defect(error: Exception, as_json: bool) -> NoReturn:
    """Whatever was not foreseen: the traceback, and an exit status that is no verdict."""
    defect = PspikeError(
        "E-INTERNAL",
        "the tool itself failed",
        why=f"{type(error).__name__}: {error}",
        fix="please report this with the traceback above and the input",
    )
    if as_json:
        _json({"error": defect.to_dict()})
    traceback.print_exception(error)
    typer.echo(str(defect), err=True)
    raise typer.Exit(defect.exit_status) from None


def _tell(headline: str, finding: dict[str, Any]) -> None:
    """A finding for people: where, why and how to fix it."""
    typer.echo(headline)
    for part in ("where", "why", "fix"):
        if finding.get(part):
            typer.echo(f"  {part + ':':6} {finding[part]}")


def _json(document: dict[str, Any]) -> None:
    from pspike_deploy.artefacts import to_json

    sys.stdout.write(to_json(document))


def _print(document: dict[str, Any], table: Any, *, as_json: bool, quiet: bool = False) -> None:
    if as_json:
        _json(document)
    elif not quiet:
        from pspike_deploy.report.tables import plain_console

        plain_console().print(table)
