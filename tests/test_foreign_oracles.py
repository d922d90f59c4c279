"""NIR files and runs of other programs: every one is reproduced by the reading that names its rule.

The files are those of the conformance data (github.com/neuromorphs/NIR and NIRTorch, and ours).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.foreign.convert import ForeignGraph, foreign_graph
from pspike_deploy.foreign.reading import reading_of
from pspike_deploy.graph.neurons import TwoStateNeuron
from pspike_deploy.graph.tree import read_tree
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import reference
from tests.two_state_double import node_states

FloatArray = npt.NDArray[np.float64]

ORACLES = Path(os.environ.get("PSPIKE_SHARED", "") or "absent") / "oracles" / "nir"
pytestmark = pytest.mark.skipif(
    not ORACLES.is_dir(), reason="PSPIKE_SHARED does not name the oracles"
)


def read(name: str, reading: str, dt: float | None = None) -> ForeignGraph:
    return foreign_graph(read_tree(ORACLES / f"{name}.nir"), reading_of(reading, dt), name)


def run(found: ForeignGraph, x: Any) -> Recording:
    data = np.asarray(x, np.float64)[None]
    return reference.run(found.graph, data, noise=Noise.philox(0))


def case(name: str) -> Any:
    return np.load(ORACLES / f"{name}_case.npz")


# --- one neuron ----------------------------------------------------------------------------------


def trace(name: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Input, voltage and spike of 1000 steps; the input is scaled in some files."""
    columns = np.loadtxt(ORACLES / "lif" / f"lif_{name}.csv", delimiter=",").T
    return (columns[0] != 0).astype(np.float64), columns[1], columns[2] != 0


def voltage(found: ForeignGraph, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Membrane behind the reset and spikes of the one neuron, by the equations of its node."""
    gain = found.graph.nodes["1_gain"]
    node = found.graph.nodes["1"]
    assert isinstance(node, TwoStateNeuron)
    zero = np.zeros(1)
    drive = gain.a * x[:, None] + gain.b  # type: ignore[attr-defined]
    states = list(node_states(node, drive, (zero, zero, zero)))
    u, s = (np.array([state[k][0] for state in states]) for k in (0, 2))
    return u - node.reset_by[0] * s, s


@pytest.mark.parametrize(
    ("name", "reading", "scale", "largest"),
    [
        ("norse", "as-norse", 1.0, 2.6e-8),
        ("snntorch", "as-snntorch", 25.0, 1e-6),
        ("lava_cpu_float", "as-lava", 1.0, 3.9e-8),
        ("sinabs", "as-sinabs-trace", 1.0, 1.5e-8),
    ],
)
def test_the_voltages_of_a_neuron_are_those_that_were_recorded(
    name: str, reading: str, scale: float, largest: float
) -> None:
    x, expected, spikes = trace(name)
    found = read("lif/lif_norse", reading, 1e-4)
    late = found.latency.get("1", 0)
    u, s = voltage(found, x)
    length = len(x) - late
    assert np.abs(scale * u[:length] - expected[late:]).max() < largest
    np.testing.assert_array_equal(s[:length], spikes[late:])
    assert spikes.sum() == 4
    np.testing.assert_array_equal(run(found, x[:, None]).values["1"][0, :, 0], s)


def test_other_readings_give_other_voltages() -> None:
    x, expected, _ = trace("norse")
    for reading in ("as-sinabs-trace", "as-norse,integrator=exp", "as-norse,reset=subtract"):
        u, _ = voltage(read("lif/lif_norse", reading, 1e-4), x)
        assert np.abs(u - expected).max() > 1e-3


@pytest.mark.parametrize("reading", ["as-nengo", "as-event-driven"])
def test_solutions_with_spikes_inside_a_step_are_refused(reading: str) -> None:
    with pytest.raises(PspikeError, match="inside a step") as caught:
        read("lif/lif_norse", reading, 1e-4)
    assert caught.value.code == "E-TARGET-UNSUPPORTED"


def test_the_exact_solutions_are_what_the_presets_say() -> None:
    x, expected, spikes = trace("nengo")
    tau, theta, dt = 0.0024999999441206455, 0.10000000149011612, 1e-4
    v, ref, found = 0.0, 0.0, []
    for now in x:
        ref -= dt
        delta = min(max(dt - ref, 0.0), dt)
        v -= (now / theta - v) * np.expm1(-delta / tau)
        fired = v > 1
        if fired:
            ref = dt + tau * np.log1p(-(v - 1) / (now / theta - 1))
            v = 0.0
        found.append((v, fired))
    np.testing.assert_allclose([f[0] for f in found], expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal([f[1] for f in found], spikes)

    x, expected, spikes = trace("exact")
    v, found = 0.0, []
    for now in x:
        left, fired = dt, False
        while now > theta:
            crossing = -tau * np.log((theta - now) / (v - now))
            if not crossing < left:
                break
            v, left, fired = 0.0, left - crossing, True
        v = now + (v - now) * np.exp(-left / tau)
        found.append((v, fired))
    assert np.abs(np.array([f[0] for f in found]) - expected).max() < 1e-8
    np.testing.assert_array_equal([f[1] for f in found], spikes)


def test_a_file_whose_output_has_another_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(PspikeError, match=r"\[1\] -> output \[1 1 1\]"):
        read("lif/lif_rockpool", "as-norse", 1e-4)


# --- recurrent networks --------------------------------------------------------------------------

NETWORKS = {
    "braille_noDelay_bias_zero": ("braille_bias_zero", "lif1.lif"),
    "braille_bias_zero_nested_repaired": ("braille_bias_zero", "lif1.lif1"),
    "braille_nirtorch_tests": ("braille_nirtorch_tests", "lif1.lif"),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("reading", "rule"),
    [
        ("as-norse", "no_bias_at_t0"),
        ("as-norse,tie=ge", "no_bias_at_t0"),
        ("as-norse,back_edge_init=zero_before_weight", "bias_at_t0"),
    ],
)
def test_recurrent_networks_give_every_recorded_spike(name: str, reading: str, rule: str) -> None:
    stored, hidden = NETWORKS[name]
    recorded = case(f"braille/{stored}")
    found = run(read(f"braille/{name}", reading, 1e-4), recorded["u"])
    np.testing.assert_array_equal(found.values["lif2"][0], recorded[f"z2_{rule}"])
    np.testing.assert_array_equal(found.values[hidden][0], recorded[f"z1_{rule}"])
    assert found.values["lif2"].size == 1792
    assert found.values["lif2"].any()


def test_the_first_value_of_a_loop_matters() -> None:
    recorded = case("braille/braille_bias_zero")
    runs = [
        run(read("braille/braille_noDelay_bias_zero", reading, 1e-4), recorded["u"])
        for reading in ("as-norse", "as-norse,back_edge_init=zero_before_weight")
    ]
    assert np.sum(runs[0].values["lif2"] != runs[1].values["lif2"]) == 296


# --- state-space models in core NIR --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reading", "dt"),
    [
        ("e5_linear", "as-nirtorch", None),
        ("e5_affine", "as-nirtorch", None),
        ("e1_parallel_d", "as-nirtorch", None),
        ("e3_explicit_delay", "time_unit=s", 1e-3),
    ],
)
def test_loops_of_synapses_are_state_space_models(
    name: str, reading: str, dt: float | None
) -> None:
    recorded = case("ssm/e5")
    found = read(f"ssm/{name}", reading, dt)
    (last,) = found.graph.sources("output")
    y = run(found, recorded["u"]).values[last][0]
    assert np.abs(y - recorded["y"]).max() < 1e-5  # the files hold float32
    assert np.abs(recorded["y"]).max() > 10


@pytest.mark.parametrize(
    ("name", "stored", "entry", "spikes", "node", "reading", "dt"),
    [
        ("stoch_layer_threshold", "stoch_layer", "packed_input", "z", "spike", "as-nirtorch", None),
        ("stoch_layer_lifbridge", "stoch_layer", "packed_input", "z", "spike", "as-norse", 1e-4),
        *(
            ("stoch_two_layers_threshold", "stoch_two_layers", "packed_input", f"z{i}",
             f"l{i}_g_spike", "as-nirtorch", None)
            for i in (1, 2)
        ),
        ("e6_soft_reset_adaptive", "e6_soft_reset_adaptive", "x", "z1", "l0_e_spike",
         "as-nirtorch", None),
        ("gelu_link", "gelu_link", "packed_input", "z", "t_merge", "as-nirtorch", None),
        ("bernoulli_tie", "bernoulli_tie", "packed_input", "z", "spike", "as-nirtorch", None),
    ],
)  # fmt: skip
def test_spikes_of_lowered_networks_are_those_that_were_recorded(
    name: str, stored: str, entry: str, spikes: str, node: str, reading: str, dt: float | None
) -> None:
    recorded = case(f"ssm/{stored}")
    found = run(read(f"ssm/{name}", reading, dt), recorded[entry])
    np.testing.assert_array_equal(found.values[node][0], recorded[spikes])
    assert recorded[spikes].any()
    assert not recorded[spikes].all()


# --- negative files ------------------------------------------------------------------------------


def test_no_damaged_file_gets_past_the_audit() -> None:
    from tests.test_audit import EXPECTED

    for path in sorted((ORACLES / "negative").glob("*.nir")):
        errors = [e for e in EXPECTED.get(path.stem, ()) if e[0] == "error"]
        if not errors:
            continue
        with pytest.raises(PspikeError) as caught:
            foreign_graph(read_tree(path), reading_of("as-norse", 1e-4), path.name)
        assert caught.value.code == "E-GRAPH-AUDIT"
        for _, where, text in errors:
            assert where in caught.value.why
            assert text in caught.value.why


def test_readable_oddities_run() -> None:
    x = np.ones((4, 2))
    for name in ("scalar_params", "name_collision", "unreachable_node", "version_99"):
        tree = read_tree(ORACLES / "negative" / f"{name}.nir")
        width = int(np.prod(tree["node"]["nodes"]["input"]["shape"]))
        found = foreign_graph(tree, reading_of("as-norse", 1e-4), name)
        data = np.resize(x, (1, 4, width))
        assert len(reference.run(found.graph, data, noise=Noise.philox(0)).values) >= 1
