"""``.net`` files: what is written can be read; what NetX would do otherwise is refused or told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.loihi.netx.arithmetic import (
    changed_weights,
    effective_weights,
    resonator_coefficients,
)
from pspike_deploy.exporters.loihi.netx.network import (
    Convolution,
    Dense,
    Input,
    Network,
    ResonateAndFire,
    SigmaDelta,
    integers,
    latencies,
    strict_threshold,
)
from pspike_deploy.exporters.loihi.netx.read import read_network
from pspike_deploy.exporters.loihi.netx.rules import RULES, violations
from pspike_deploy.exporters.loihi.netx.violation import Bounds
from pspike_deploy.exporters.loihi.netx.write import encode_network, write_network
from tests.netx_networks import (
    convolution_network,
    cuba,
    cuba_network,
    even,
    resonator_network,
    sigma_delta_network,
)

BOUNDS = Bounds(largest_input=20, messages={1: 9999, 2: 9999})
MAKERS = [cuba_network, sigma_delta_network, resonator_network, convolution_network]
RNG = np.random.default_rng(0)


def plain(value: Any) -> Any:
    """A network as nested plain data, for comparison."""
    if isinstance(value, np.ndarray):
        return (value.shape, value.tolist())
    if isinstance(value, tuple):
        return tuple(plain(part) for part in value)
    if hasattr(value, "__dataclass_fields__"):
        return type(value).__name__, {k: plain(v) for k, v in vars(value).items()}
    return value


def dense_network(weight: Any, neuron: Any = None, **more: Any) -> Network:
    """An input and one dense layer."""
    weight = integers(weight)
    return Network((Input((weight.shape[1],)), Dense(weight, neuron or cuba(), **more)))


# --- writing and reading --------------------------------------------------------------------------


@pytest.mark.parametrize("make", MAKERS)
def test_a_network_that_was_written_is_read_again(make: Callable[..., Network], tmp_path: Path):
    network = make(np.random.default_rng(1))
    write_network(tmp_path / "a.net", network, BOUNDS)
    file = read_network(tmp_path / "a.net")
    assert plain(file.network) == plain(network)
    assert not file.having("fails", "changed", "ignored")
    assert file.having("note") == list(file.findings)


def test_equal_networks_give_equal_bytes(tmp_path: Path):
    for path in (tmp_path / "a.net", tmp_path / "b.net"):
        write_network(path, cuba_network(np.random.default_rng(1)))
    assert (tmp_path / "a.net").read_bytes() == (tmp_path / "b.net").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.net", "b.net"]


def test_a_file_has_the_layout_that_netx_reads(tmp_path: Path):
    write_network(tmp_path / "a.net", cuba_network(np.random.default_rng(1)))
    with h5py.File(tmp_path / "a.net") as file:
        assert sorted(file["layer"]) == ["0", "1", "2", "3", "4"]
        kinds = [file[f"layer/{i}/type"][0].decode() for i in range(5)]
        assert kinds == ["input", "dense", "dense_rec", "dense", "dense"]
        assert "neuron" not in file["layer/0"]
        first = file["layer/1"]
        assert first["weight"].dtype == np.float32
        assert (first["inFeatures"][()], first["outFeatures"][()]) == (5, 7)
        assert first["neuron/type"][()] == b"CUBA"
        assert first["neuron/iDecay"].dtype.kind == "i"
        assert not file.attrs


def test_layers_are_numbers_not_words(tmp_path: Path):
    layers = [Dense(even(RNG, (2, 2)), cuba(threshold=n + 1)) for n in range(12)]
    network = Network((Input((2,)), *layers))
    write_network(tmp_path / "a.net", network)
    read = read_network(tmp_path / "a.net").network
    thresholds = [int(layer.neuron.threshold) for layer in read.layers[1:]]  # type: ignore[union-attr]
    assert thresholds == list(range(1, 13))
    assert latencies(read) == list(range(13))


def test_a_threshold_of_at_least_becomes_one_of_more_than():
    potentials = 64 * np.arange(-3, 9)
    assert np.array_equal(potentials >= 64 * 5, potentials > 64 * strict_threshold(5))


# --- the rules ------------------------------------------------------------------------------------

GOOD = even(np.random.default_rng(2), (3, 4))
RESONATOR = ResonateAndFire(integers(1408), integers(3754), integers(60))

BROKEN = {
    "the_first_layer_alone_is_an_input": Network((Dense(GOOD, cuba()),)),
    "an_input_has_no_neuron_but_sigma_delta": Network((Input((4,), cuba()), Dense(GOOD, cuba()))),
    "shapes_follow_each_other": Network((Input((5,)), Dense(GOOD, cuba()))),
    "flatten_stands_between_convolution_and_dense": Network(
        (Input((1, 2, 2)), Convolution(even(RNG, (1, 1, 1, 2)), cuba()), Dense(GOOD[:, :2], cuba()))
    ),
    "neurons_are_cuba_sdnn_or_rf": Network((Input((4,)), Dense(GOOD, None))),
    "resonators_have_complex_weights_and_nothing_else": dense_network(GOOD, RESONATOR),
    "recurrence_is_of_cuba_without_delays": dense_network(
        GOOD, recurrent_weight=even(RNG, (3, 3)), delay=integers(2)
    ),
    "a_sigma_output_has_no_bias": dense_network(
        GOOD, SigmaDelta(integers(0), sigma_output=True), bias=integers([0, 1, 2])
    ),
    "weights_are_even_or_of_one_sign": dense_network([[3, -5]]),
    "weights_are_not_all_zero": dense_network([[0, 0]]),
    "weights_reach_lava_unchanged": dense_network([[300, 2, 4]]),
    "parameters_are_in_range": dense_network(GOOD, cuba(voltage=4097)),
    "resonators_keep_their_coefficients": dense_network(
        GOOD,
        replace(RESONATOR, sine_decay=integers(2450), cosine_decay=integers(-3000)),
        imaginary_weight=GOOD,
    ),
    "currents_stay_in_24_bits": dense_network(np.full((1, 600), 254), cuba(current=1)),
    "messages_stay_in_16_bits": dense_network(GOOD, SigmaDelta(integers(1))),
}


def test_every_rule_is_broken_by_a_network_and_kept_by_the_good_ones():
    assert set(BROKEN) == {rule.__name__ for rule in RULES}
    for make in MAKERS:
        assert violations(make(np.random.default_rng(4)), BOUNDS) == []


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_refused_by_its_name(rule: str, tmp_path: Path):
    assert rule in {violation.rule for violation in violations(BROKEN[rule])}
    with pytest.raises(PspikeError, match=rule) as caught:
        write_network(tmp_path / "a.net", BROKEN[rule])
    assert caught.value.code == "E-TARGET-UNSUPPORTED"
    assert caught.value.fix
    assert not list(tmp_path.iterdir())


def test_all_refusals_come_at_once():
    network = Network(
        (
            Input((2,)),
            Dense(integers([[3, -5], [1, 1]]), cuba(voltage=-1), delay=integers(63)),
            Dense(integers([[0, 0]]), cuba(threshold=0)),
        )
    )
    found = [(violation.layer, violation.rule) for violation in violations(network)]
    assert found == [
        (1, "weights_are_even_or_of_one_sign"),
        (2, "weights_are_not_all_zero"),
        (1, "parameters_are_in_range"),
        (1, "parameters_are_in_range"),
        (2, "parameters_are_in_range"),
    ]


@pytest.mark.parametrize(
    ("weight", "fine"),
    [
        ([[-256, 254]], True),
        ([[0, 255, 13]], True),
        ([[-255, -13]], True),
        ([[-256, 256]], False),
        ([[-1, 3]], False),
        ([[0, 256]], False),
        ([[-256, -2]], False),
    ],
)
def test_the_ranges_of_weights(weight: list[list[int]], fine: bool):
    rules = {violation.rule for violation in violations(dense_network(weight))}
    assert ("weights_are_even_or_of_one_sign" not in rules) == fine


@pytest.mark.parametrize(
    ("weight", "becomes"),
    [
        ([300, 2, 4], [0, 0, 0]),
        ([-128, -64], [-64, -64]),  # the largest magnitude is a power of two
        ([-1, -1], [0, 0]),
        ([0, -1], [0, -0.5]),
        ([0, -201, -3], [0, 0, 0]),
        ([-100, -36], [-100, -36]),
        ([5, 3, 0], [5, 3, 0]),
        ([-256, 254], [-256, 254]),
    ],
)
def test_weights_that_netx_changes_are_told(weight: list[int], becomes: list[float]):
    ((kept, shift),) = effective_weights(integers([weight]))
    assert (kept[0] / 2**shift).tolist() == becomes
    changes = dict(changed_weights(integers([weight])))
    assert changes == {w: b for w, b in zip(weight, becomes, strict=True) if w != b}


@given(
    arrays.arrays(np.int64, (2, 3), elements=st.integers(-128, 127).map(lambda n: 2 * n)).filter(
        lambda w: w.min() < 0 < w.max()
    )
)
def test_even_weights_of_both_signs_always_reach_lava(weight: Any):
    assert changed_weights(weight) == []


def test_parts_of_a_recurrent_layer_are_fitted_together():
    weight, recurrent = integers([[-256, -2]]), integers([[4]])
    # The part by itself is of one sign for Lava, which then holds -255 at most.
    assert changed_weights(weight, recurrent)[0] == (-256, -255.0)
    assert changed_weights(integers([[-256, 2]]), recurrent) == []


def test_known_inputs_bound_currents_and_messages():
    wide = dense_network(np.full((1, 600), 254), cuba(current=4096))
    assert {v.rule for v in violations(wide)} == {"currents_stay_in_24_bits"}
    assert violations(wide, Bounds(currents={1: 2**23 - 1})) == []
    graded = sigma_delta_network(np.random.default_rng(1))
    assert {v.layer for v in violations(graded)} == {0, 1, 2}
    assert {v.layer for v in violations(graded, Bounds(largest_input=20))} == {2}
    assert {v.layer for v in violations(graded, Bounds(largest_input=256))} == {0, 1, 2}
    assert violations(graded, Bounds(largest_input=20, messages={2: 2**15 - 1})) == []


def test_many_coefficients_of_resonators_change_by_one_and_none_by_more():
    rng = np.random.default_rng(0)
    changed = 0
    for s, c in rng.integers(200, 2800, (500, 2)):
        found = resonator_coefficients(ResonateAndFire(integers(s), integers(c), integers(1)))
        assert max(abs(found[0] - s), abs(found[1] - c)) <= 1
        changed += found != (s, c)
    assert changed > 100


# --- reading what others wrote --------------------------------------------------------------------


def tampered(tmp_path: Path, change: Callable[[Any], None], network: Network | None = None) -> Path:
    """A file as h5py users make them: a good one, changed."""
    path = tmp_path / "a.net"
    path.write_bytes(encode_network(network or dense_network(GOOD)))
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def put(name: str, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        if name in file:
            del file[name]
        file[name] = value

    return change


def names(path: Path, *effects: str) -> set[str]:
    file = read_network(path)
    return {f.name for f in (file.having(*effects) if effects else file.findings)}


def test_truncated_floats_are_told_and_truncated(tmp_path: Path):
    path = tampered(
        tmp_path,
        put("layer/1/weight", np.float32([[2.9, -4.9], [8, -6]])),
        dense_network(GOOD[:2, :2]),
    )
    assert "truncated_floats" in names(path, "changed")
    layer = read_network(path).network.layers[1]
    assert isinstance(layer, Dense)
    assert layer.weight.tolist() == [[2, -4], [8, -6]]


@pytest.mark.parametrize(
    ("key", "value", "finding", "effect"),
    [
        (
            "layer/1/weight",
            np.float32([[300, 2, 4, 0]] * 3),
            "weights_reach_lava_unchanged",
            "changed",
        ),
        ("layer/1/neuron/refDelay", 3, "ignored_parameter", "ignored"),
        ("layer/1/neuron/gradedSpike", True, "ignored_parameter", "ignored"),
        ("layer/1/neuron/messageBits", 8, "message_bits", "fails"),
        ("layer/1/neuron/colour", 8, "unknown_key", "ignored"),
        ("layer/1/colour", "red", "unknown_key", "ignored"),
        ("colour", 3, "unknown_key", "ignored"),
        ("layer/1/delay", np.float32(70), "parameters_are_in_range", "changed"),
        ("layer/0/weight", np.float32(36), "input_transform", "ignored"),
        ("layer/1/weight", np.zeros((3, 4)), "weights_are_not_all_zero", "fails"),
        ("layer/1/bias", np.float32([1, 2, 3]), "bias_acts_before_the_input", "note"),
    ],
)
def test_what_netx_ignores_or_does_otherwise_is_a_finding(
    tmp_path: Path, key: str, value: Any, finding: str, effect: str
):
    assert finding in names(tampered(tmp_path, put(key, value)), effect)


def test_harmless_keys_of_slayer_are_no_findings(tmp_path: Path):
    def change(file: Any) -> None:
        neuron = file["layer/1/neuron"]
        neuron["refDelay"], neuron["gradedSpike"], neuron["theta"] = 1, False, 3840
        file["simulation/Ts"], file["simulation/tSample"] = 1, 16

    assert names(tampered(tmp_path, change)) == {"fires_strictly_above"}


def test_an_absent_neuron_never_fires_and_is_told(tmp_path: Path):
    def change(file: Any) -> None:
        del file["layer/1/neuron"]

    path = tampered(tmp_path, change)
    assert "neurons_are_cuba_sdnn_or_rf" in names(path, "note")
    layer = read_network(path).network.layers[1]
    assert isinstance(layer, Dense)
    assert layer.neuron is None


@pytest.mark.parametrize("kind", [b"ADRF_PHASE", b"ADRF_IZHIKEVICH", b"RF", b"MYRFTYPE"])
def test_an_adaptive_resonator_read_as_a_plain_one_is_told(tmp_path: Path, kind: bytes):
    network = dense_network(GOOD, RESONATOR, imaginary_weight=GOOD)
    path = tampered(tmp_path, put("layer/1/neuron/type", kind), network)
    assert "read_as_resonator" in names(path, "changed")
    neuron = getattr(read_network(path).network.layers[1], "neuron", None)
    assert isinstance(neuron, ResonateAndFire)
    assert neuron.phase == (b"PHASE" in kind)


def test_an_input_layer_with_other_neurons_is_told(tmp_path: Path):
    network = Network((Input((4,), cuba()), Dense(GOOD, cuba())))
    path = tmp_path / "a.net"
    path.write_bytes(encode_network(network))
    assert "an_input_has_no_neuron_but_sigma_delta" in names(path, "fails")


def test_layers_that_netx_cannot_load_are_named_all_at_once(tmp_path: Path):
    def change(file: Any) -> None:
        for index, kind in ((2, b"average"), (3, b"pool")):
            file[f"layer/{index}/type"] = np.array([kind], "S10")
            file[f"layer/{index}/shape"] = [3]
        del file["layer/1/neuron/type"]
        file["layer/1/neuron/type"] = b"ALIF"

    with pytest.raises(PspikeError) as caught:
        read_network(tampered(tmp_path, change))
    assert caught.value.code == "E-TARGET-UNSUPPORTED"
    for word in ("average", "pool", "ALIF"):
        assert word in caught.value.why


def test_everything_that_is_no_network_is_named_at_once(tmp_path: Path):
    def change(file: Any) -> None:
        put("layer/1/type", b"quantum")(file)
        put("layer/0/shape", np.array([-4]))(file)
        file["layer/2/type"] = b"dense"

    with pytest.raises(PspikeError) as caught:
        read_network(tampered(tmp_path, change))
    assert caught.value.code == "E-NET-FILE"
    for word in ("quantum", "layer 0: shape", "layer 2: shape", "weight is missing"):
        assert word in caught.value.why


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("layer/1/neuron/iDecay", 4096.0, "hold integers|integers"),
        ("layer/1/neuron/vThMant", "many", "integers"),
        ("layer/1/weight", np.float32([[np.nan] * 4] * 3), "no numbers"),
        ("layer/1/weight", np.float32([[1e12] * 4] * 3), "no numbers"),
        ("layer/1/weight", np.zeros((2, 4)), "shape"),
        ("layer/1/shape", np.array([2**40]), "shape"),
        ("layer/1/type", 7, "no text"),
        ("layer/1/delay", np.zeros((7, 7), int), "delay"),
        ("layer/x", 1, "not named"),
        ("layer/3/type", b"flatten", "not named"),
    ],
)
def test_values_that_make_no_network_are_refused(tmp_path: Path, key: str, value: Any, word: str):
    with pytest.raises(PspikeError) as caught:
        read_network(tampered(tmp_path, put(key, value)))
    assert caught.value.code == "E-NET-FILE"
    assert any(part in caught.value.why for part in word.split("|"))


def test_a_stated_shape_takes_no_memory(tmp_path: Path):
    def change(file: Any) -> None:
        put("layer/1/shape", np.array([2**20] * 3))(file)
        put("layer/1/bias", np.float32([1]))(file)

    with pytest.raises(PspikeError, match="shape"):
        read_network(tampered(tmp_path, change))


def test_files_that_lead_elsewhere_or_are_none_are_refused(tmp_path: Path):
    def link(file: Any) -> None:
        del file["layer/1/weight"]
        file["layer/1/weight"] = h5py.ExternalLink("/etc/passwd", "/weight")

    with pytest.raises(PspikeError, match="links") as caught:
        read_network(tampered(tmp_path, link))
    assert caught.value.code == "E-NET-FILE"
    (tmp_path / "b.net").write_bytes(b"not HDF5 at all")
    with pytest.raises(PspikeError, match="E-NET-FILE"):
        read_network(tmp_path / "b.net")
    with pytest.raises(PspikeError, match="E-INPUT-MISSING"):
        read_network(tmp_path / "c.net")


def test_a_damaged_file_is_one_error(tmp_path: Path):
    whole = encode_network(cuba_network(np.random.default_rng(1)))
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole[: rng.integers(100, len(whole) + 1)])
        for place in rng.integers(8, len(damaged), 5):
            damaged[place] = rng.integers(256)
        (tmp_path / "a.net").write_bytes(bytes(damaged))
        try:
            read_network(tmp_path / "a.net")
        except PspikeError as error:
            assert error.code in ("E-NET-FILE", "E-TARGET-UNSUPPORTED")  # noqa: PT017


def test_the_format_needs_neither_torch_nor_lava():
    code = (
        "import sys, pspike_deploy.exporters.loihi.netx.read as r, "
        "pspike_deploy.exporters.loihi.netx.write as w; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "lava", "numba", "scipy"} & set(done.stdout.split())
