"""How much later than a graph a program is whose spikes arrive one step after they were sent."""

from __future__ import annotations

from pspike_deploy.foreign.equations import FIRING
from pspike_deploy.foreign.flat import FlatNetwork, Refusal
from pspike_deploy.foreign.loops import Loop
from pspike_deploy.foreign.reading import Reading


def reader_latency(
    network: FlatNetwork, inner: list[tuple[str, str]], loops: list[Loop], reading: Reading
) -> tuple[dict[str, int], list[Refusal]]:
    """Steps by spiking node, one for each population on the way; and nodes where ways differ.

    A graph delivers in the same step. That is the same network, later, as long as all ways to a
    node pass equally many populations.
    """
    if reading.choices.get("arrival") != "next_step":
        return {}, []
    depth: dict[str, int] = {}
    refusals: list[Refusal] = []
    entries = {loop.entry for loop in loops}
    within = {(a, b) for a, b in inner if b in entries}
    waiting = list(network.nodes)
    while waiting:
        late = []
        for name in waiting:
            sources = [s for s in network.sources(name) if (s, name) not in within]
            if any(s not in depth for s in sources):
                late.append(name)
                continue
            found = {depth[s] for s in sources}
            if len(found) > 1:
                why = f"spikes of {min(found)} to {max(found)} populations before meet, each late"
                refusals.append(
                    Refusal(network.nodes[name].view.path, why, "decide for arrival=same_step")
                )
            depth[name] = max(found, default=0) + (network.nodes[name].type in FIRING)
        if len(late) == len(waiting):
            break
        waiting = late
    firing = {n: d for n, d in depth.items() if network.nodes[n].type in FIRING}
    return firing, refusals
