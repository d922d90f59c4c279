"""What the commands share: their options, how they print, and how errors end them."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from pspike_deploy.errors import EXIT_INTERRUPTED, PspikeError

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="checkpoint (.pt, .pth, .ckpt), graph (.nir) or network of lava-dl (.net)",
    ),
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
ReadingText = Annotated[
    str | None,
    typer.Option(
        "--reading",
        metavar="PRESET,NAME=VALUE",
        help="how to read a NIR file of another framework: as-norse, as-snntorch, … or decisions",
    ),
]
StepLength = Annotated[
    float | None,
    typer.Option("--dt", help="seconds per step, for a NIR file of another framework"),
]
Device = Annotated[str, typer.Option(help="where the reference runs: auto, cpu or cuda")]
WeightBits = Annotated[int, typer.Option(help="bits of a synaptic weight, 2-8")]
WeightScale = Annotated[
    str, typer.Option(help="what shares a scale of weights: neuron, layer or power-of-two")
]
WeightSearch = Annotated[
    str, typer.Option(help="clipping range of weights: auto, max, mse or percentile")
]
WeightRounding = Annotated[str, typer.Option(help="of weights: auto, nearest or adaptive")]
SSMStates = Annotated[
    str | None,
    typer.Option(
        help="real states per neuron that diagonal SSMs are reduced to, or auto; default: all"
    ),
]
SSMMargin = Annotated[
    float, typer.Option(help="mean shift of spike probabilities that --ssm-states auto allows")
]
StateBits = Annotated[int, typer.Option(help="bits of a state, 8-24")]
CoefficientBits = Annotated[int, typer.Option(help="bits of decays, read-outs and gains, 4-16")]
InputBits = Annotated[int, typer.Option(help="bits of an input integer, 2-16")]
NoiseBits = Annotated[int, typer.Option(help="random bits per draw, 1-22")]
ProbabilityRounding = Annotated[
    str, typer.Option(help="of spike probabilities to the noise bits: half_up or stochastic")
]
Overflow = Annotated[str, typer.Option(help="error, saturate or wrap")]


def ssm_states_of(text: str | None) -> Any:
    """Number of ``--ssm-states`` where it is one; whether it is possible, QuantConfig says."""
    return int(text) if text is not None and text.isdecimal() else text


@contextlib.contextmanager
def reported_errors(as_json: bool, interrupted: str = "nothing was left behind") -> Iterator[None]:
    """Print errors of ours with their fix and turn them into exit statuses.

    ``interrupted``: what is left after an interrupt.
    """
    try:
        yield
    except PspikeError as error:
        if as_json:
            print_json({"error": error.to_dict()})
        typer.secho(str(error), err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
        raise typer.Exit(error.exit_status) from None
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be closed
            typer.echo(f"interrupted; {interrupted}", err=True)
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
        print_json({"error": defect.to_dict()})
    traceback.print_exception(error)
    typer.echo(str(defect), err=True)
    raise typer.Exit(defect.exit_status) from None


def tell(headline: str, finding: dict[str, Any]) -> None:
    """A finding for people: where, why and how to fix it."""
    typer.echo(headline)
    for part in ("where", "why", "fix"):
        if finding.get(part):
            typer.echo(f"  {part + ':':6} {finding[part]}")


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document."""
    from pspike_deploy.artefacts import to_json

    sys.stdout.write(to_json(document))


def print_result(
    document: dict[str, Any], table: Any, *, as_json: bool, quiet: bool = False
) -> None:
    """Print a result as JSON or as a table."""
    if as_json:
        print_json(document)
    elif not quiet:
        from pspike_deploy.report.tables import plain_console

        plain_console().print(table)
