"""The command line: ``pspike`` and its short form ``pspike-export``.

Nothing heavy is imported before a command needs it. Progress goes to stderr; stdout carries the
result, with ``--json`` exactly one JSON document.
"""

from __future__ import annotations

from typing import Final, NoReturn

import typer

from pspike_deploy.commands.card import card
from pspike_deploy.commands.conformance import conformance
from pspike_deploy.commands.energy import energy
from pspike_deploy.commands.export import export
from pspike_deploy.commands.finetune import finetune
from pspike_deploy.commands.look import check, inspect
from pspike_deploy.commands.report import report
from pspike_deploy.commands.run import compare, replay, simulate
from pspike_deploy.commands.setup import doctor, lava_setup
from pspike_deploy.commands.sweep import sweep
from pspike_deploy.commands.train import train
from pspike_deploy.commands.verify import verify
from pspike_deploy.errors import EXIT_INTERRUPTED
from pspike_deploy.signals import end_like_interrupt, ignore_interrupts

EXPORT_EXAMPLE: Final = (
    "Example:  pspike-export models/zoo/p_spikessm_digits.pt --target lava --out build/digits"
)

#: Commands in the order of ``pspike --help``, each with what stands below its own help.
COMMANDS: Final = (
    (export, EXPORT_EXAMPLE),
    (inspect, "Example:  pspike inspect models/zoo/p_spikessm_digits.pt"),
    (
        check,
        "\b\n"
        "Example:  pspike check network.nir --target lava\n"
        "          pspike check model.pt --target loihi\n"
        "          pspike check quantized.nir --target loihi --profile loihi1 --chips 2 --json",
    ),
    (
        simulate,
        "Example:  pspike simulate build/digits/quantized.nir --data x.npy --out run.npz",
    ),
    (
        compare,
        "\b\n"
        "Example:  pspike compare model.pt quantized.nir\n"
        "          pspike compare quantized.nir interpreter:quantized.nir\n"
        "          pspike compare build/digits build/digits/lava --replay case.npz\n"
        "          pspike compare model.pt@load model.pt@quantize --data x.npy\n"
        "          pspike compare quantized.nir chip.npz",
    ),
    (verify, "Example:  pspike verify models/zoo/p_spikessm_digits.pt"),
    (
        energy,
        "\b\n"
        "Example:  pspike energy models/zoo/p_spikessm_digits.pt\n"
        "          pspike energy build/digits --gpu H100 --measure --batch 64\n"
        "          pspike energy quantized.nir --data x.npz --profile loihi1 --out build/energy",
    ),
    (replay, "Example:  pspike replay case.npz"),
    (report, "Example:  pspike report build/digits --out digits.html"),
    (train, "Example:  pspike train p_spikessm_digits --out ."),
    (card, "Example:  pspike card p_spikessm_digits.pt --finetuned p_spikessm_digits-w4.nir"),
    (
        finetune,
        "Example:  pspike finetune models/zoo/p_spikessm_digits.pt --weight-bits 4 --out tuned.nir",
    ),
    (
        sweep,
        "Example:  pspike sweep models/zoo/p_spikessm_digits.pt --weight-bits 8,4,2 --state-bits "
        "24,16 --out build/sweep",
    ),
    (
        conformance,
        "\b\n"
        "Example:  pspike conformance\n"
        "          pspike conformance --reader norse --reader snntorch --out rows.json",
    ),
    (doctor, None),
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
lava_app.command("setup", epilog="Example:  pspike lava setup")(lava_setup)
for _command, _example in COMMANDS:
    app.command(epilog=_example)(_command)


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
