"""``HANDOVER.md``: what to do with an export on a machine with Loihi, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pspike_deploy.exporters.lava.files import sha256_of
from pspike_deploy.exporters.loihi.export import LAYERS, MAPPING, NETWORK, LoihiExport
from pspike_deploy.exporters.loihi.mapping.result import EVIDENCE
from pspike_deploy.exporters.loihi.neuron_programs import ARRAYS, DOCUMENT
from pspike_deploy.targets.profile import Profile

#: Test vectors and everything else that must arrive as it left, by path in the export's folder.
_VECTORS: Final = (
    *("quantized.nir", "lava/manifest.json", "lava/parameters.npz"),
    *("lava/inputs.npz", "lava/expected.npz"),
    *(f"loihi/{name}" for name in (DOCUMENT, ARRAYS, MAPPING, NETWORK, LAYERS)),
)
_NOT_VERIFIED: Final = (
    "No chip was used. Nothing here was run, timed or measured on silicon.",
    "Equality in Lava means Lava's CPU models of the processes in this bundle, no more; users "
    "report cases in which Lava's fixed-point LIF differs from the chip.",
    "How a chip draws random numbers is unpublished. Spikes can be equal under the injected noise "
    "of the bundle only; with the chip's own generator compare distributions.",
    "What intermediate results of microcode hold, and what an overflow does on silicon, is "
    "unpublished. The widths that are needed stand in the programs.",
    "Length limits of microcode are unpublished; operations per neuron are listed below.",
)


def handover(
    made: LoihiExport,
    folder: Path,
    summary: Mapping[str, Any],
    model: str,
    profile: Profile,
) -> str:
    """The text.

    Args:
        made: what was written toward Loihi.
        folder: of the export; files that it holds are listed with their digests.
        summary: content of ``summary.json``.
        model: name of the network.
        profile: of the chip.
    """
    parts = [
        f"# Hand-over: {model} on {profile.title}",
        "",
        "Generated for this network and this export.",
        "",
        *_steps(made),
        *_verified(summary),
        *_section("What was not verified", [f"- {line}" for line in _NOT_VERIFIED]),
        *_section("Room on the chip", list(_room(made, profile))),
        *_section("Neuron programs", list(_programs(made))),
        *_section("Layers in NetX", list(_layers(made, summary))),
        *_section("Files", list(_files(folder))),
        *_section("Versions", _versions(profile)),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _steps(made: LoihiExport) -> list[str]:
    steps = [
        "Copy the whole folder, and compare the digests at the end of this page.",
        "In the environment with lava-loihi, run `python lava/run.py --out results --check`: "
        "Lava's simulation must end with `EQUAL` there, too.",
        f"Write microcode for the neurons in `{DOCUMENT}`: states, parameters, widths and the "
        "ordered integer operations of one step. `lava/pspike_processes/neurons.py` is the same as "
        "running code.",
        "Put the models into `lava/chip_models.py` (`lava/hardware.py` says how), and place the "
        f"groups on cores as in `{MAPPING}`, or as Intel's partitioner does.",
        "Run `python lava/run.py --out results --target loihi2 --check` with the injected noise of "
        "the bundle. `expected.npz` holds every value of every node at every step.",
        "With the chip's own noise, record spikes, and compare them with `pspike verify`: it takes "
        "recordings made elsewhere.",
    ]
    if made.part is not None:
        steps.insert(
            2, f"Load `{NETWORK}` with `lava.lib.dl.netx`: those layers need no microcode."
        )
    return _section("What to do", [f"{i}. {step}" for i, step in enumerate(steps, 1)])


def _verified(summary: Mapping[str, Any]) -> list[str]:
    verification, lava = summary["verification"], summary["lava"]
    tests = ", ".join(verification["tests"])
    lines = [f"- Verdict: **{verification['verdict']}** ({tests}); `verification.json` has it all."]
    accuracy = summary["accuracy"]
    known = [kind for kind in ("float", "integer") if accuracy[kind] is not None]
    shares = [f"{kind} {accuracy[kind]:.2%}" for kind in known]
    if shares:
        count = f"{accuracy['samples']:,} samples, {accuracy['draws']} draws of the noise"
        lines.append(f"- Accuracy: {', '.join(shares)} ({count}).")
    if lava is None:
        lines.append("- The Lava bundle was **not run**: there was no Lava environment.")
    else:
        lines.append(
            f"- The Lava bundle ran in Lava's CPU simulator: {lava['mismatches']} of all integers "
            f"differ, over {lava['samples']} samples of {lava['steps']} steps."
        )
    return _section("What was verified, and how", lines)


def _room(made: LoihiExport, profile: Profile) -> Iterator[str]:
    mapping = made.mapping
    where = mapping.system or "no public system has as many chips"
    yield f"{len(mapping.cores)} core(s) on {mapping.chips} chip(s): {where}."
    yield f"{EVIDENCE[0].upper()}{EVIDENCE[1:]}."
    yield f"No mapping takes fewer than {mapping.lower_bound} core(s). Found by: {mapping.method}."
    yield ""
    yield "| core | chip | groups | neurons | fullest resource | synaptic operations per step |"
    yield "|---|---|---|---|---|---|"
    for core in mapping.cores:
        groups = ", ".join(f"`{s.population}` {s.start}–{s.stop - 1}" for s in core.slices)
        share = f"{core.bottleneck.replace('_', ' ')} {core.utilisation[core.bottleneck]:.0%}"
        yield (
            f"| {core.index} | {core.chip} | {groups} | {core.neurons} | {share} | "
            f"{core.load.synaptic_operations:,.0f} |"
        )
    yield ""
    yield f"Activity is {mapping.activity}. Assumed:"
    yield ""
    yield from (f"- {sentence}" for sentence in mapping.assumptions)


def _programs(made: LoihiExport) -> Iterator[str]:
    yield "| group | neurons | state words | products per step | draws per step | nodes |"
    yield "|---|---|---|---|---|---|"
    for program in made.document["programs"]:
        counted = [node.get("operations_per_neuron", {}) for node in program["nodes"]]
        products = sum(operations.get("multiply", 0) for operations in counted)
        draws = sum(
            "word" not in fact for node in program["nodes"] for fact in node.get("noise", ())
        )
        names = ", ".join(f"`{node['node']}`" for node in program["nodes"])
        yield (
            f"| `{program['group']}` | {program['neurons']} | {program['state_words']} | "
            f"{products} | {draws} | {names} |"
        )
    for program in made.document["programs"]:
        for node in program["nodes"]:
            if "missing" in node:
                yield f"\n`{node['node']}`: {node['missing']}."
    yield f"\nOn the host: {', '.join(f'`{n}`' for n in made.document['host']) or 'nothing'}."


def _layers(made: LoihiExport, summary: Mapping[str, Any]) -> Iterator[str]:
    facts = summary["loihi"]["netx"]
    if made.part is not None:
        names = ", ".join(f"`{name}`" for name in made.part.nodes.values())
        yield f"`{NETWORK}` holds {names}, driven by `{made.part.source}`."
        if facts["spikes_differ"] is None:
            yield f"Not run: {facts['why_not_run']}."
        else:
            yield (
                f"Run in NetX on {facts['samples']} samples: {facts['spikes_differ']} spikes "
                "differ from the integer simulator."
            )
        yield ""
    if made.listed:
        yield "NetX does not express these exactly, and nothing is approximated:"
        yield ""
        yield from (f"- `{one.node}`: {one.why}" for one in made.listed)


def _files(folder: Path) -> Iterator[str]:
    yield "| file | SHA-256 |"
    yield "|---|---|"
    for name in _VECTORS:
        if (folder / name).is_file():
            yield f"| `{name}` | `{sha256_of(folder / name)}` |"


def _versions(profile: Profile) -> list[str]:
    return [
        "lava-nc 0.10.0 (`lava/lava-requirements.txt`), lava-dl 0.6.0 for `.net` files, and the "
        f"lava-loihi that matches lava-nc 0.10.0. Chip: {profile.title}."
    ]
