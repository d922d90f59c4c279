"""Faulty devices: each does what its description says, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.graph.graph import Graph
from pspike_deploy.graph.nodes import Bernoulli, DiagonalSSM, Input, Linear, Output
from pspike_deploy.graph.semantics import NodeQuantization
from pspike_deploy.numerics.fixed_point import Format
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, interpreter, layerwise
from pspike_deploy.simulators.devices import Device, FixedPointDevice
from pspike_deploy.simulators.faults import FAULTS, plant
from pspike_deploy.simulators.faulty_device import FaultyDevice
from pspike_deploy.verify.compare import compare
from tests.graphs import single_node_graph, small_input, small_integer_graph
from tests.two_state import neurons

Array = npt.NDArray[Any]

#: So few that a noise integer often equals a code, and more than a byte.
NOISE_BITS = 9
ONE = 2**NOISE_BITS
SAMPLES, STEPS, NEURONS, SEED = 6, 40, 12, 7
NOISE = Noise.philox(SEED)

#: Second sampling node, the state in front of it, and synapses behind it.
SITE, STATE, SYNAPSES = "block0_sampler_out", "block0_ssm", "block0_mixer"
FIRST_SITE = "block0_sampler_in"

OF_SAMPLERS = tuple(n for n, fault in FAULTS.items() if "sampling node" in fault.needs)
#: Faults of this network: all but the one that needs a threshold.
PLANTABLE = tuple(n for n in FAULTS if n != "threshold-at-equal")
#: Faults whose codes are faulty, too.
OF_CODES = ("floor-rounding",)


def network(seed: int = 3, **change: Any) -> Graph:
    size: dict[str, Any] = {"neurons": NEURONS, "blocks": 2, "noise_bits": NOISE_BITS}
    return small_integer_graph(np.random.default_rng(seed), **{**size, **change})


GRAPH = network()
X = small_input(np.random.default_rng(4), SAMPLES, STEPS)
CORRECT = FixedPointDevice(GRAPH).run(X, noise=NOISE)


def faulty(name: str, **options: Any) -> Recording:
    return plant(name, GRAPH, x=X).device.run(X, noise=NOISE, **options)


def same(a: Recording, b: Recording) -> bool:
    return (
        all(np.array_equal(a.values[n], b.values[n]) for n in {*a.values, *b.values})
        and all(np.array_equal(a.probabilities[n], b.probabilities[n]) for n in a.probabilities)
        and np.array_equal(a.outputs, b.outputs)
    )


# --- What all have in common --------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANTABLE)
def test_the_faulty_node_differs_and_nothing_else(name: str) -> None:
    node = plant(name, GRAPH, x=X).node
    found = faulty(name, replay={node: CORRECT.values[node]})
    differs = {n for n, v in found.values.items() if not np.array_equal(v, CORRECT.values[n])}
    codes = {n for n, q in found.probabilities.items() if (q != CORRECT.probabilities[n]).any()}
    assert differs <= {node}
    assert codes == ({node} if name in OF_CODES else set())
    assert differs or codes, "the fault shows on these data"
    assert np.array_equal(found.outputs, CORRECT.outputs)
    assert found.values[node].dtype == CORRECT.values[node].dtype


@pytest.mark.parametrize("name", PLANTABLE)
def test_what_follows_comes_from_the_faulty_values(name: str) -> None:
    node = plant(name, GRAPH, x=X).node
    found = faulty(name)
    expected = fixed_point.run(GRAPH, X, noise=NOISE, replay={node: found.values[node]})
    for other in GRAPH.order[2:-1]:
        if other != node:
            assert np.array_equal(found.values[other], expected.values[other]), other
    assert np.array_equal(found.outputs, expected.outputs)


@pytest.mark.parametrize("name", PLANTABLE)
def test_runs_repeat_and_do_not_depend_on_chunks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = faulty(name)
    assert same(once, faulty(name))
    monkeypatch.setattr(layerwise, "CHUNK_BYTES", STEPS * NEURONS * 8 * 2)
    device = plant(name, GRAPH, x=X).device
    assert same(once, device.run(X, noise=NOISE))
    if name != "state-not-reset":  # where the sample before matters, whole runs are the unit
        rows = slice(2, 5)
        part = device.run(X[rows], noise=NOISE, samples=np.arange(SAMPLES)[rows])
        assert all(np.array_equal(v, once.values[n][rows]) for n, v in part.values.items())


@pytest.mark.parametrize("name", PLANTABLE)
def test_under_teacher_forcing_the_fault_shows_at_its_own_site_alone(name: str) -> None:
    """Spikes of another draw are replayed, into the right device and the faulty one."""
    replay = FixedPointDevice(GRAPH).run(X, noise=NOISE, draw=2).spikes
    right = FixedPointDevice(GRAPH).run(X, noise=NOISE, draw=1, replay=replay)
    planted, found = plant(name, GRAPH, x=X), faulty(name, draw=1, replay=replay)
    assert not np.array_equal(found.values[planted.node], faulty(name, draw=1).values[planted.node])
    for site in GRAPH.sites:
        if site != planted.site:
            assert np.array_equal(found.values[site], right.values[site])
            assert np.array_equal(found.probabilities[site], right.probabilities[site])
    if planted.node in GRAPH.sites and name not in OF_CODES:
        assert np.array_equal(found.probabilities[SITE], right.probabilities[SITE])
    if name not in OF_CODES:
        assert (found.values[planted.node] != right.values[planted.node]).any()


@pytest.mark.parametrize("name", PLANTABLE)
def test_a_recording_says_what_it_is_and_can_be_kept(name: str, tmp_path: Path) -> None:
    planted = plant(name, GRAPH, x=X)
    device: Device = planted.device
    found = device.run(X, noise=NOISE, record=[SITE])
    assert set(found.values) == set(found.probabilities) == {SITE}
    assert found.run["graph"] == GRAPH.digest == device.graph.digest
    assert found.run["backend"] == device.backend == "faulty"
    assert found.run["fault"] == {"name": name, "node": planted.node}
    found.save(tmp_path / "found.npz")
    assert same(found, Recording.load(tmp_path / "found.npz"))


@pytest.mark.parametrize("name", PLANTABLE)
def test_an_integer_replay_names_the_faulty_node_first(name: str) -> None:
    node = plant(name, GRAPH, x=X).node
    divergence = compare(CORRECT, faulty(name)).first_divergence
    assert divergence is not None
    assert divergence.node == node
    if name in ("state-not-reset", "same-noise-every-trial"):
        assert divergence.sample > 0, "nothing came before sample 0"


# --- Samplers: the spikes once more, one at a time ----------------------------------------------

CODES = CORRECT.probabilities[SITE]
U = NOISE.integers(GRAPH.sites[SITE], np.arange(SAMPLES), STEPS, NEURONS, NOISE_BITS)
RIGHT = CORRECT.values[SITE]


def one_by_one(rule: Callable[[int, int], bool]) -> Array:
    """Spikes from a rule of (U, Q)."""
    draws = zip(U.flat, CODES.flat, strict=True)
    return np.array([rule(int(u), int(q)) for u, q in draws]).reshape(CODES.shape)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("biased-sampler", lambda u, q: u < q + 5),
        ("at-most-compare", lambda u, q: not u > q),
        ("inverted-compare", lambda u, q: ONE - 1 - u < q),
        ("certain-stored-as-never", lambda u, q: q != ONE and u < q),
    ],
)
def test_a_faulty_comparator_follows_its_rule(name: str, rule: Callable[[int, int], bool]) -> None:
    assert np.array_equal(faulty(name).values[SITE], one_by_one(rule))
    assert np.array_equal(RIGHT, one_by_one(lambda u, q: u < q))


def test_late_spikes_are_those_of_the_step_before() -> None:
    found = faulty("delayed-output").values[SITE]
    assert not found[:, 0].any()
    assert all(np.array_equal(found[:, t], RIGHT[:, t - 1]) for t in range(1, STEPS))


def test_a_refractory_neuron_never_spikes_twice_in_a_row() -> None:
    found = faulty("refractory-step").values[SITE].astype(int)
    for b, i in np.ndindex(SAMPLES, NEURONS):
        before = 0
        for t in range(STEPS):
            assert found[b, t, i] == (RIGHT[b, t, i] and not before)
            before = found[b, t, i]


def test_two_neurons_of_similar_rates_are_exchanged() -> None:
    planted, found = plant("swapped-neurons", GRAPH, x=X), faulty("swapped-neurons").values[SITE]
    i, j = (int(n) for n in re.findall(r"neurons (\d+) and (\d+)", planted.description)[0])
    order = np.arange(NEURONS)
    order[[i, j]] = j, i
    assert i != j
    assert np.array_equal(found, RIGHT[:, :, order])
    rates = CODES.mean(axis=(0, 1)) / ONE
    usual = np.sort(rates[(rates > 0.05) & (rates < 0.5)])
    assert abs(rates[i] - rates[j]) < max(0.1, np.diff(usual).min() * 1.5)


def test_a_stuck_neuron_is_one_that_spiked() -> None:
    planted, found = plant("stuck-neuron", GRAPH, x=X), faulty("stuck-neuron").values[SITE]
    neuron = int(re.findall(r"neuron (\d+)\)", planted.description)[0])
    assert RIGHT[:, :, neuron].any()
    assert not found[:, :, neuron].any()
    assert np.array_equal(np.delete(found, neuron, 2), np.delete(RIGHT, neuron, 2))


def test_a_full_bus_loses_the_last_spikes() -> None:
    planted = plant("dropped-under-load", GRAPH, x=X)
    found = faulty("dropped-under-load").values[SITE]
    most = int(re.findall(r"above (\d+) spikes", planted.description)[0])
    for b, t in np.ndindex(SAMPLES, STEPS):
        kept = np.flatnonzero(RIGHT[b, t])[:most]
        assert np.array_equal(np.flatnonzero(found[b, t]), kept)


# --- Samplers: other numbers --------------------------------------------------------------------


def stream_start(site: int, sample: int, stream: int) -> int:
    """The hash of ``docs/semantics.md``, section 4, from NumPy's own generator."""
    key = np.array([SEED, site], np.uint64)
    counter = np.array([0, 2**32, sample, 0], np.uint64)
    return int(np.random.Philox(key=key, counter=counter).random_raw(stream + 1)[stream])


def register_draws(site: int, shape: tuple[int, ...], shifts: int, group: int) -> Array:
    """Low bits of 16-bit Galois registers that ``group`` neurons share, from the definition."""
    found = np.empty(shape, np.int64)
    for b in range(shape[0]):
        for first in range(0, shape[2], group):
            state = 1 + stream_start(site, b, first // group) % (2**16 - 1)
            for t in range(shape[1]):
                for i in range(first, min(first + group, shape[2])):
                    for _ in range(shifts):
                        state = (state >> 1) ^ (0xB400 if state & 1 else 0)
                    found[b, t, i] = state % ONE
    return found


@pytest.mark.parametrize(
    ("name", "shifts", "group"),
    [("lfsr-per-neuron", 1, 1), ("lfsr-per-core", 1, 64), ("lfsr-per-core-16", 16, 64)],
)
def test_a_shift_register_draws_in_the_order_of_its_neurons(
    name: str, shifts: int, group: int
) -> None:
    graph = network(neurons=70, blocks=1)
    device, x = plant(name, graph).device, X[:2, :9]
    found = device.run(x, noise=NOISE)
    codes = found.probabilities[SITE]
    u = register_draws(graph.sites[SITE], codes.shape, shifts, group)
    assert np.array_equal(found.values[SITE], u < codes)


def test_a_low_byte_has_zeros_behind_it_and_a_short_period() -> None:
    states = []
    for b in range(SAMPLES):
        state = stream_start(GRAPH.sites[SITE], b, 0) >> 32
        for _ in range(STEPS * NEURONS):
            state = (1664525 * state + 1013904223) % 2**32
            states.append(state % 256 * 2)
    u = np.array(states).reshape(CODES.shape)
    assert np.array_equal(faulty("lcg-low-byte").values[SITE], u < CODES)
    assert np.array_equal(u[0].ravel()[:200], u[0].ravel()[256:456])


def test_a_generator_of_its_own_is_seeded_like_the_noise() -> None:
    device = plant("lfsr-per-neuron", GRAPH).device
    a, b = (device.run(X, noise=Noise.philox(s)).values[SITE] for s in (1, 2))
    assert (a != b).any()


BROADCAST: dict[str, Array] = {
    "one-number-per-step": U[:, :, :1],
    "one-number-per-sequence": U[:, :1],
    "same-noise-every-trial": U[:1],
}


@pytest.mark.parametrize("name", BROADCAST)
def test_one_number_serves_for_many_draws(name: str) -> None:
    u = np.broadcast_to(BROADCAST[name], U.shape)
    assert np.array_equal(faulty(name).values[SITE], u < CODES)


@pytest.mark.parametrize(("name", "delay"), [("shared-noise", 0), ("previous-noise-reused", 1)])
def test_numbers_of_the_sampling_node_before_are_used_again(name: str, delay: int) -> None:
    theirs = NOISE.integers(GRAPH.sites[FIRST_SITE], np.arange(SAMPLES), STEPS, NEURONS, NOISE_BITS)
    found = faulty(name).values[SITE]
    assert np.array_equal(found[:, delay:], theirs[:, : STEPS - delay] < CODES[:, delay:])
    assert np.array_equal(found[:, :delay], RIGHT[:, :delay])


def test_injected_noise_is_misused_alike() -> None:
    shape = SAMPLES, STEPS, NEURONS
    uniforms = {site: NOISE.uniform(site, range(SAMPLES), *shape[1:]) for site in range(4)}
    for name in BROADCAST:
        device = plant(name, GRAPH, x=X).device
        injected = device.run(X, noise=Noise.injected(uniforms))
        assert same(injected, faulty(name)), name


# --- States, parameters, scores -------------------------------------------------------------------


def interpreted(graph: Graph, node: str) -> Recording:
    """The first two samples in the interpreter, which shares no arithmetic with the devices."""
    assert node in graph.nodes
    return interpreter.run(graph, X[:2], noise=NOISE)


def test_floored_codes_are_whole_parts() -> None:
    node = GRAPH.nodes[SITE]
    assert isinstance(node, Bernoulli)
    form = GRAPH.semantics.quantization[SITE].tensors["a"]
    (source,) = GRAPH.sources(SITE)
    point = np.asarray(form.fraction_bits) + int(GRAPH.output_format(source).fractions())
    accumulators = node.a * CORRECT.values[source] + node.b
    codes = np.clip(accumulators // 2 ** (point - NOISE_BITS), 0, ONE)
    found = faulty("floor-rounding")
    assert np.array_equal(found.probabilities[SITE], codes)
    assert np.array_equal(found.values[SITE], codes > U)
    assert set(np.unique(CODES - codes)) == {0, 1}


def test_decays_are_one_unit_smaller() -> None:
    node = GRAPH.nodes[STATE]
    assert isinstance(node, DiagonalSSM)
    decays = np.array(node.a_bar, np.int64)
    for at in np.ndindex(decays.shape[:2]):
        decays[(*at, 0)] += -1 if decays[(*at, 0)] > 0 else 1
    changed = GRAPH.with_nodes({STATE: replace(node, a_bar=decays)})
    expected = interpreted(changed, STATE).values[STATE]
    assert np.array_equal(faulty("decay-off-by-one").values[STATE][:2], expected)


def test_the_largest_synapse_is_gone() -> None:
    node = GRAPH.nodes[SYNAPSES]
    assert isinstance(node, Linear)
    description = plant("dropped-synapse", GRAPH).description
    sender, receiver = (int(n) for n in re.findall(r"from (\d+) to (\d+)", description)[0])
    weight = node.weight.copy()
    assert abs(weight[receiver, sender]) == np.abs(weight).max()
    weight[receiver, sender] = 0
    changed = GRAPH.with_nodes({SYNAPSES: replace(node, weight=weight)})
    expected = interpreted(changed, SYNAPSES)
    found = faulty("dropped-synapse")
    assert all(np.array_equal(v[:2], expected.values[n]) for n, v in found.values.items())


def narrowed(bits: int) -> Graph:
    formats = dict(GRAPH.semantics.quantization)
    tensors = {
        **formats[STATE].tensors,
        "state": Format(bits, formats[STATE].tensors["state"].fraction_bits),
    }
    formats[STATE] = replace(formats[STATE], tensors=tensors)
    semantics = replace(GRAPH.semantics, overflow="saturate", quantization=formats)
    return replace(GRAPH, semantics=semantics)


def test_narrow_states_saturate_often_and_in_silence() -> None:
    description = plant("saturating-state", GRAPH, x=X).description
    bits = int(re.findall(r"(\d+) bits in the place of 24", description)[0])
    expected = interpreted(narrowed(bits), STATE).values[STATE]
    found = faulty("saturating-state")
    assert np.array_equal(found.values[STATE][:2], expected)
    assert found.run["overflows"] == 0, "the device does not tell"
    updates = SAMPLES * STEPS * GRAPH.nodes[STATE].state_words
    shares = [
        fixed_point.run(narrowed(b), X, noise=NOISE).run["overflows_by_node"][STATE]["state"]
        / updates
        for b in (bits, bits + 1)
    ]
    assert shares[0] > 0.1 > shares[1] * 0.5


def test_states_live_on_in_the_next_sample() -> None:
    node, formats = GRAPH.nodes[STATE], GRAPH.semantics.quantization[STATE]
    alone = single_node_graph(node, formats, input_format=Format(2, 0))
    spikes = CORRECT.values[FIRST_SITE][:3].reshape(1, 3 * STEPS, NEURONS)
    chained = interpreter.run(alone, spikes.astype(float), noise=NOISE).values["node"]
    found = faulty("state-not-reset").values[STATE]
    assert np.array_equal(found[:3].reshape(1, 3 * STEPS, NEURONS), chained)


def test_scores_go_to_the_next_class() -> None:
    found = faulty("permuted-scores")
    for klass in range(3):
        assert np.array_equal(found.outputs[:, (klass + 1) % 3], CORRECT.outputs[:, klass])


def at_threshold() -> Graph:
    """A neuron without memory and threshold 4, fed with integers."""
    vectors = {
        name: np.zeros(1, np.int64)
        for name in ("a_uu", "a_uw", "a_wu", "a_ww", "f_u", "f_w", "reset_by")
    }
    node = neurons(np.random.default_rng(0), 1, **vectors)
    names = ("r_decay", "k_u", "k_w", "r_jump")
    node = replace(node, threshold=np.array([4]), **dict.fromkeys(names, np.zeros(1, np.int64)))
    formats = {name: Format(16, 0) for name in (*vectors, *names, "threshold", "state")}
    quantization = NodeQuantization(Format(2, 0), formats, "toward_zero")
    return single_node_graph(node, quantization, input_format=Format(8, 0))


def test_a_membrane_at_its_threshold_fires() -> None:
    graph, x = at_threshold(), np.array([3.0, 4.0, 5.0]).reshape(1, 3, 1)
    planted = plant("threshold-at-equal", graph)
    assert planted.node == planted.site == "node"
    assert FixedPointDevice(graph).run(x, noise=NOISE).values["node"].ravel().tolist() == [0, 0, 1]
    found = planted.device.run(x, noise=NOISE)
    assert found.values["node"].ravel().tolist() == [0, 1, 1]


def test_probabilities_rounded_by_noise_can_be_sampled_wrongly_too() -> None:
    formats = {
        name: replace(form, rounding="stochastic") if name in GRAPH.sites else form
        for name, form in GRAPH.semantics.quantization.items()
    }
    graph = replace(GRAPH, semantics=replace(GRAPH.semantics, quantization=formats))
    right = FixedPointDevice(graph).run(X, noise=NOISE)
    found = plant("refractory-step", graph, SITE, x=X).device.run(X, noise=NOISE)
    assert np.array_equal(found.probabilities[SITE], right.probabilities[SITE])
    first = np.argmax(right.values[SITE], axis=1)
    assert np.array_equal(np.argmax(found.values[SITE], axis=1), first), "the first ones stay"
    assert (found.values[SITE] <= right.values[SITE]).all()
    for name in ("floor-rounding", "lfsr-per-neuron"):
        with pytest.raises(PspikeError, match="cannot have the fault"):
            plant(name, graph)


# --- Names, places, refusals --------------------------------------------------------------------


def test_every_fault_has_a_name_a_sentence_and_tests() -> None:
    for name, fault in FAULTS.items():
        assert name == fault.name
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert not fault.description.endswith(".")
        assert fault.caught_by
        assert all(re.fullmatch(r"T\d[a-f]?", test) for test in fault.caught_by)


@pytest.mark.parametrize("name", OF_SAMPLERS)
def test_a_sampler_is_faulty_where_the_second_one_is(name: str) -> None:
    planted = plant(name, GRAPH, x=X)
    assert planted.node == planted.site == SITE
    assert SITE in planted.description
    assert plant(name, GRAPH, "block1_sampler_in", x=X).site == "block1_sampler_in"


@pytest.mark.parametrize(
    ("name", "node", "site"),
    [
        ("state-not-reset", STATE, SITE),
        ("dropped-synapse", SYNAPSES, "block1_sampler_in"),
        ("permuted-scores", "readout_gain", ""),
    ],
)
def test_other_faults_lie_in_front_of_a_later_sampler(name: str, node: str, site: str) -> None:
    planted = plant(name, GRAPH)
    assert (planted.node, planted.site) == (node, site)


def test_a_network_with_one_sampler_has_its_faults_there() -> None:
    assert plant("at-most-compare", GRAPH.without(SITE), FIRST_SITE).node == FIRST_SITE


@pytest.mark.parametrize(
    ("name", "node", "message"),
    [
        ("late-output", None, "no fault 'late-output'.*\n.*\n.*did you mean delayed-output"),
        ("threshold-at-equal", None, "needs a neuron with a threshold"),
        ("stuck-neuron", STATE, f"needs a sampling node.*\n.*{SITE}"),
        ("stuck-neuron", "nowhere", "no node 'nowhere'"),
        ("shared-noise", FIRST_SITE, "behind another one"),
    ],
)
def test_what_cannot_be_planted_is_refused(name: str, node: str | None, message: str) -> None:
    with pytest.raises(PspikeError, match=message) as refusal:
        plant(name, GRAPH, node)
    assert refusal.value.code == "E-USAGE"
    assert refusal.value.fix


def test_float_graphs_are_refused() -> None:
    graph = Graph({"in": Input((2,)), "out": Output((2,))}, (("in", "out"),))
    with pytest.raises(PspikeError, match="integer graphs"):
        plant("stuck-neuron", graph)


@pytest.mark.parametrize("name", ["stuck-neuron", "swapped-neurons", "dropped-under-load"])
def test_a_silent_layer_cannot_lose_spikes(name: str) -> None:
    node = GRAPH.nodes[SITE]
    assert isinstance(node, Bernoulli)
    silent = replace(node, a=np.zeros_like(node.a), b=np.zeros_like(node.b))
    with pytest.raises(PspikeError, match="never spikes") as refusal:
        plant(name, GRAPH.with_nodes({SITE: silent}), SITE, x=X)
    assert refusal.value.where == SITE


def test_faults_are_fitted_to_random_inputs_where_there_are_none() -> None:
    a, b = (plant("stuck-neuron", GRAPH) for _ in range(2))
    assert a.description == b.description
    assert isinstance(a.device, FaultyDevice)
