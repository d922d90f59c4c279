"""Networks as demands, for tests of mappings: chains of populations with every kind of synapse."""

import numpy as np
from hypothesis import strategies as st

from pspike_deploy.exporters.loihi.demand import (
    Band,
    Connection,
    Demand,
    Dense,
    Pattern,
    PopulationDemand,
    pattern_of,
)


def dense_chain(*sizes: int, modes: int = 0, host_reads: bool = False) -> Demand:
    """Populations one behind the other, the first behind the host, with dense 8-bit synapses."""
    populations = []
    for i, neurons in enumerate(sizes[1:]):
        source = f"p{i - 1}" if i else "host"
        synapses = Connection("w", source, Dense(sizes[i], neurons), 8)
        words = 2 * modes or 1
        last = host_reads and i == len(sizes) - 2
        populations.append(
            PopulationDemand(f"p{i}", neurons, words, modes, modes > 0, (synapses,), last)
        )
    return Demand(tuple(populations), {"host": sizes[0]})


def _pattern(draw: st.DrawFn, sources: int, targets: int) -> Pattern:
    kind = draw(st.sampled_from(["dense", "band", "sparse"]))
    if kind == "dense":
        return Dense(sources, targets)
    if kind == "band":
        return Band(sources, targets, draw(st.integers(0, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return pattern_of(rng.random((targets, sources)) < draw(st.sampled_from([0.02, 0.3, 0.9])))


@st.composite
def demands(draw: st.DrawFn, largest: int = 400) -> Demand:
    """Random networks: chains with skips, loops, complex modes and all kinds of synapses."""
    sizes = draw(st.lists(st.integers(1, largest), min_size=1, max_size=6))
    features = draw(st.integers(1, 50))
    width = {"host": features, **{f"p{i}": n for i, n in enumerate(sizes)}}
    populations = []
    for i, neurons in enumerate(sizes):
        connections = []
        count = draw(st.integers(1, 3))
        for number in range(count):
            source = draw(st.sampled_from(sorted(width)))
            pattern = _pattern(draw, width[source], neurons)
            bits = draw(st.integers(1, 8))
            connections.append(Connection(f"c{number}", source, pattern, bits))
        modes = draw(st.sampled_from([0, 0, 1, 4, 32]))
        words = 2 * modes + draw(st.integers(0, 3))
        populations.append(
            PopulationDemand(
                f"p{i}",
                neurons,
                words,
                modes,
                modes > 0 or draw(st.booleans()),
                tuple(connections),
                draw(st.booleans()),
            )
        )
    return Demand(tuple(populations), {"host": features})
