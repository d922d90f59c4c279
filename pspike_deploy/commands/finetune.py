"""``pspike finetune``: quantisation-aware fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pspike_deploy.commands.common import (
    AsJson,
    CoefficientBits,
    InputBits,
    Model,
    NoiseBits,
    Overflow,
    Quiet,
    Seed,
    Settings,
    StateBits,
    WeightBits,
    WeightScale,
    WeightSearch,
    print_json,
    reported_errors,
)


def finetune(
    model: Model,
    out: Annotated[
        Path | None, typer.Option(help="float graph to write; default: MODEL-finetuned.nir")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="training samples (sample, step, feature), .npy or .npz, or your copy of the data "
            "set that the model names; default: that set, where it is packaged"
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="one class per training sample, .npy or .npz")
    ] = None,
    settings: Settings = None,
    weight_bits: WeightBits = 4,
    state_bits: StateBits = 24,
    coefficient_bits: CoefficientBits = 16,
    input_bits: InputBits = 16,
    noise_bits: NoiseBits = 16,
    overflow: Overflow = "saturate",
    weight_scale: WeightScale = "neuron",
    weight_search: WeightSearch = "auto",
    steps: Annotated[int, typer.Option(help="steps of the optimiser", min=1)] = 400,
    batch_size: Annotated[int, typer.Option(help="samples per step", min=1)] = 32,
    learning_rate: Annotated[
        float, typer.Option(help="of AdamW at the start, relative to the size of each tensor")
    ] = 2e-3,
    draws: Annotated[int, typer.Option(help="repetitions of the accuracy measurement", min=1)] = 3,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="replace an existing file")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a network on as the integers that will run (quantisation-aware fine-tuning).

    An interrupted training goes on where it was when the command is given again. Export the result
    with the same widths.
    """
    with reported_errors(as_json, interrupted="the same command goes on where it was"):
        from pspike_deploy.finetuning import FinetuneOptions, finetune_to_file
        from pspike_deploy.quantize.config import QuantConfig
        from pspike_deploy.quantize.finetune import FinetuneSettings

        options = FinetuneOptions(
            model=model,
            out=out or Path(f"{model.stem}-finetuned.nir"),
            data=data,
            labels=labels,
            config=QuantConfig(
                weight_bits=weight_bits,
                state_bits=state_bits,
                coefficient_bits=coefficient_bits,
                input_bits=input_bits,
                noise_bits=noise_bits,
                overflow=overflow,  # type: ignore[arg-type]  # checked by QuantConfig
                weight_scale=weight_scale,  # type: ignore[arg-type]
                weight_search=weight_search,  # type: ignore[arg-type]
            ),
            settings=FinetuneSettings(steps, batch_size, learning_rate, seed),
            draws=draws,
            model_settings=settings,
            force=force,
        )
        document = finetune_to_file(options, quiet=quiet)
        if as_json:
            print_json(document)
        elif not quiet:
            typer.echo(_sentence(document))


def _sentence(document: dict[str, Any]) -> str:
    accuracy = document["accuracy"]
    float_, before, after = (
        f"{100 * sum(accuracy[key]) / len(accuracy[key]):.2f} %"
        for key in ("float", "integer_before", "integer_after")
    )
    return (
        f"{document['graph']}: integer accuracy {after} after fine-tuning, {before} before; "
        f"float {float_} ({accuracy['samples']} samples, {accuracy['draws']} draws)"
    )
