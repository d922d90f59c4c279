"""``pspike export``, and ``pspike-export`` for short."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pspike_deploy.commands.common import (
    AsJson,
    CoefficientBits,
    Data,
    Device,
    InputBits,
    Labels,
    Model,
    NoiseBits,
    Offline,
    Overflow,
    ProbabilityRounding,
    Quiet,
    ReadingText,
    Seed,
    Settings,
    SSMMargin,
    SSMStates,
    StateBits,
    StepLength,
    WeightBits,
    WeightRounding,
    WeightScale,
    WeightSearch,
    print_result,
    reported_errors,
    ssm_states_of,
)


def export(
    model: Model,
    target: Annotated[str, typer.Option(help="nir, lava, loihi or onnx")] = "lava",
    profile: Annotated[
        str, typer.Option(help="chip of the target loihi: loihi2 or loihi1")
    ] = "loihi2",
    objective: Annotated[
        str,
        typer.Option(
            help="what the mapping to cores minimises: fewest-cores, lowest-load or least-traffic"
        ),
    ] = "fewest-cores",
    out: Annotated[Path | None, typer.Option(help="folder to make; default: MODEL-TARGET")] = None,
    data: Data = None,
    labels: Labels = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="samples that ranges are measured on; default: training split or data"),
    ] = None,
    settings: Settings = None,
    offline: Offline = False,
    require_core: Annotated[
        bool,
        typer.Option("--require-core", help="with nir: exit status 3 where core NIR cannot say it"),
    ] = False,
    bridge: Annotated[
        str | None,
        typer.Option(help="with nir: threshold-as-lif, core NIR for snnTorch and norse, too"),
    ] = None,
    bridge_dt: Annotated[
        float | None, typer.Option(help="step of that reader in seconds; default: 1e-4")
    ] = None,
    affine: Annotated[
        bool, typer.Option("--affine", help="with nir: core NIR without Linear, for sinabs")
    ] = False,
    single_layer: Annotated[
        bool, typer.Option("--single-layer", help="with nir: one core NIR per layer, for norse")
    ] = False,
    reading: ReadingText = None,
    dt: StepLength = None,
    weight_bits: WeightBits = 8,
    state_bits: StateBits = 24,
    coefficient_bits: CoefficientBits = 16,
    input_bits: InputBits = 16,
    noise_bits: NoiseBits = 16,
    overflow: Overflow = "saturate",
    probability_rounding: ProbabilityRounding = "half_up",
    weight_scale: WeightScale = "neuron",
    weight_search: WeightSearch = "auto",
    weight_rounding: WeightRounding = "auto",
    ssm_states: SSMStates = None,
    ssm_margin: SSMMargin = 5e-4,
    draws: Annotated[int, typer.Option(help="repetitions of the accuracy measurement")] = 10,
    lava_samples: Annotated[
        int, typer.Option(help="samples replayed in Lava or ONNX Runtime")
    ] = 20,
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
    with reported_errors(as_json):
        from pspike_deploy.exporters.nir.variants import variant_of
        from pspike_deploy.foreign.reading import reading_of
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
            probability_rounding=probability_rounding,  # type: ignore[arg-type]  # as well
            weight_scale=weight_scale,  # type: ignore[arg-type]
            weight_search=weight_search,  # type: ignore[arg-type]
            weight_rounding=weight_rounding,  # type: ignore[arg-type]
            ssm_states=ssm_states_of(ssm_states),
            ssm_margin=ssm_margin,
        )
        options = ExportOptions(
            model=model,
            target=target,
            profile=profile,
            objective=objective,  # type: ignore[arg-type]  # checked by ExportOptions
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
            require_core=require_core,
            core_variant=variant_of(bridge, bridge_dt, affine=affine, single_layer=single_layer),
            reading=reading_of(reading, dt),
        )
        with StageProgress(quiet=quiet) as progress:
            result = export_network(options, progress)
        print_result(result.summary, export_table(result.summary), as_json=as_json, quiet=quiet)
        if not as_json and not quiet:
            typer.echo(f"artefacts in {result.out}", err=True)
        raise typer.Exit(result.exit_status)
