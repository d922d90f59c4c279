"""Generators of the hardware kind: their numbers, their flaws, and who takes them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.export import export_lava
from pspike_deploy.graph.file import write_graph
from pspike_deploy.graph.nodes import Bernoulli, Input, Output
from pspike_deploy.numerics.generators import described, has_longest_period
from pspike_deploy.numerics.noise import Noise
from pspike_deploy.numerics.noise_text import noise_of
from pspike_deploy.recording import Recording
from pspike_deploy.simulators import fixed_point, interpreter, reference
from pspike_deploy.simulators.lava import backend as lava
from pspike_deploy.verify.compare import compare
from pspike_deploy.verify.divergence import Divergence
from pspike_deploy.verify.replay import replay_case
from tests.graphs import GraphBuilder, small_input, small_integer_graph

SITE, SEED, DRAW = 3, 12, 2


def galois(start: int, width: int, taps: int, shifts: int, draws: int) -> list[int]:
    """Registers after each draw, as lists of bits, lowest first."""
    bits = [start >> i & 1 for i in range(width)]
    mask, found = [taps >> i & 1 for i in range(width)], []
    for _ in range(draws):
        for _ in range(shifts):
            out, bits = bits[0], [*bits[1:], 0]
            bits = [b ^ (m & out) for b, m in zip(bits, mask, strict=True)]
        found.append(sum(b << i for i, b in enumerate(bits)))
    return found


def start_word(sample: int, stream: int) -> int:
    """The documented hash, from NumPy's own Philox, which counts up before its first block."""
    key = np.array([SEED, SITE], np.uint64)
    counter = np.array([0, 2**32, sample, DRAW], np.uint64)
    return int(np.random.Philox(key=key, counter=counter).random_raw(stream + 1)[-1])


def one_stream(noise: Any, draws: int, bits: int = 8) -> np.ndarray:
    return noise.integers(0, [0], draws, 1, bits)[0, :, 0]


@pytest.mark.parametrize(
    ("width", "taps", "shifts", "bits"),
    [(16, 0xB400, 1, 16), (16, 0xB400, 3, 8), (8, 0xB8, 7, 5), (32, 0x80200003, 2, 22)],
)
@pytest.mark.parametrize("sharing", ["neuron", "core", "layer"])
def test_a_register_is_that_of_bits_in_a_list(
    width: int, taps: int, shifts: int, bits: int, sharing: str
) -> None:
    neurons, steps, samples = 7, 5, [6, 0]
    noise = Noise.lfsr(width, taps, shifts, sharing, SEED, core_neurons=3)
    found = noise.integers(SITE, samples, steps, neurons, bits, DRAW)
    group = {"neuron": 1, "core": 3, "layer": neurons}[sharing]
    for row, sample in enumerate(samples):
        for stream, first in enumerate(range(0, neurons, group)):
            members = min(group, neurons - first)
            start = 1 + start_word(sample, stream) % (2**width - 1)
            states = galois(start, width, taps, shifts, steps * members)
            expected = (np.array(states) % 2**bits).reshape(steps, members)
            np.testing.assert_array_equal(found[row, :, first : first + members], expected)


@pytest.mark.parametrize("byte", ["high", "low"])
def test_a_congruence_is_that_of_plain_integers(byte: str) -> None:
    found = Noise.lcg(byte, "layer", SEED).integers(SITE, [4], 6, 3, 11, DRAW)
    state, expected = start_word(4, 0) >> 32, []
    for _ in range(18):
        state = (state * 1664525 + 1013904223) % 2**32
        expected.append(state >> 21 if byte == "high" else state % 2**11)
    assert found.ravel().tolist() == expected


@pytest.mark.parametrize("noise", [Noise.lfsr(seed=1), Noise.lcg("low", "core", 5)], ids=str)
def test_neither_batch_nor_length_matters(noise: Any) -> None:
    whole = noise.integers(0, [4, 9, 2], 9, 5, 8)
    np.testing.assert_array_equal(noise.integers(0, [9, 4], 9, 5, 8), whole[[1, 0]])
    np.testing.assert_array_equal(noise.integers(0, [2], 4, 5, 8)[0], whole[2, :4])
    for other in (noise.integers(1, [4], 9, 5, 8), noise.integers(0, [4], 9, 5, 8, 1)):
        assert (other[0] != whole[0]).any()


def test_uniforms_are_the_integers_of_as_many_bits() -> None:
    for noise in (Noise.lfsr(uniform_bits=8), Noise.lcg("low"), Noise.lcg(uniform_bits=8)):
        u = noise.uniform(0, [0, 1], 6, 3)
        np.testing.assert_array_equal(u * 256, noise.integers(0, [0, 1], 6, 3, 8))
    fine = Noise.lcg().uniform(0, [0], 6, 3)
    np.testing.assert_array_equal(np.floor(fine * 2**12), Noise.lcg().integers(0, [0], 6, 3, 12))


def test_the_period_is_the_longest() -> None:
    states = one_stream(Noise.lfsr(), 65_536, 16)
    assert len(set(states[:-1].tolist())) == 65_535
    assert states[-1] == states[0]
    assert 0 not in states
    assert Noise.lfsr().period == 65_535


def test_masks_of_a_shorter_period_are_known() -> None:
    for taps in range(0x80, 0x100):
        state, steps = galois(1, 8, taps, 1, 1)[0], 1
        while state != 1 and steps < 256:
            state, steps = galois(state, 8, taps, 1, 1)[0], steps + 1
        assert has_longest_period(8, taps) == (steps == 255), hex(taps)
    for width, taps in ((2, 3), (16, 0xB400), (24, 0xE10000), (32, 0x80200003)):
        assert has_longest_period(width, taps)
    assert not has_longest_period(16, 0x3400)


def autocorrelation(shifts: int, threshold: int, draws: int = 65_535) -> np.ndarray:
    """Of one whole period of spikes, at every lag."""
    spikes = (one_stream(Noise.lfsr(shifts=shifts), draws) < threshold).astype(float)
    power = np.abs(np.fft.rfft(spikes - spikes.mean())) ** 2
    sums = np.fft.irfft(power, draws)
    return sums / sums[0]


@pytest.mark.parametrize(
    ("shifts", "expected"),
    [(1, (0.33, 0.44, 0.48)), (2, (0.0, 0.17, 0.23)), (8, (0, 0, 0)), (16, (0, 0, 0))],
)
def test_correlations_of_neighbouring_draws(shifts: int, expected: tuple[float, ...]) -> None:
    found = [autocorrelation(shifts, threshold)[1] for threshold in (64, 26, 8)]
    np.testing.assert_allclose(found, expected, atol=0.012)


@pytest.mark.parametrize(
    ("shifts", "lags"),
    [(1, (4054, 4055)), (2, (2027, 30740, 32767)), (16, (4096, 24829, 28925))],
)
def test_echoes(shifts: int, lags: tuple[int, ...]) -> None:
    found = autocorrelation(shifts, 64)
    assert found[list(lags)] == pytest.approx(1 / 3, abs=0.01)
    assert Noise.lfsr(shifts=shifts).echo in (*lags, 1)


def test_seventeen_shifts_are_a_collapse() -> None:
    noise = Noise.lfsr(shifts=17)
    numbers = one_stream(noise, 2 * 3855, 16)
    np.testing.assert_array_equal(numbers[:3855], numbers[3855:])
    assert len(set(numbers.tolist())) == noise.period == 3855
    assert "repeats after 3855 draws" in str(noise.describe()["warning"])


def test_a_shared_register_comes_back_after_few_steps() -> None:
    noise = Noise.lfsr(sharing="layer")
    assert noise.period_in_steps(255) == 257
    numbers = noise.integers(0, [0], 2 * 257, 255, 8)[0]
    np.testing.assert_array_equal(numbers[:257], numbers[257:])
    pair = (numbers < 64).astype(float) - 0.25
    assert (pair[:, 1:] * pair[:, :-1]).mean() / 0.1875 == pytest.approx(1 / 3, abs=0.02)


def test_the_low_byte_of_a_congruence_has_a_short_period() -> None:
    numbers = one_stream(Noise.lcg("low"), 1024)
    np.testing.assert_array_equal(numbers[256:], numbers[:-256])
    assert sorted(numbers[:256].tolist()) == list(range(256))
    assert Noise.lcg("low").describe()["period"] == 256
    high = one_stream(Noise.lcg("high"), 1024)
    assert (high[256:] != high[:-256]).any()


GENERATORS = (
    Noise.lfsr(shifts=3, seed=4),
    Noise.lfsr(24, 0xE10000, sharing="core", seed=4, core_neurons=3),
    Noise.lcg("low", "layer", 1),
)


@pytest.mark.parametrize("noise", GENERATORS, ids=lambda n: str(n.sharing))
def test_fixed_point_and_interpreter_take_the_same_integers(noise: Any) -> None:
    rng = np.random.default_rng(3)
    graph = small_integer_graph(rng, blocks=1, features=2, neurons=4, noise_bits=8)
    x = small_input(rng, 3, 5, 2)
    fast = fixed_point.run(graph, x, noise=noise, samples=[7, 2, 3], draw=1)
    slow = interpreter.run(graph, x, noise=noise, samples=[7, 2, 3], draw=1)
    assert compare(fast, slow).equal
    assert fast.run["noise"] == slow.run["noise"] == noise.describe()
    alone = fixed_point.run(graph, x[1:2], noise=noise, samples=[2], draw=1)
    assert all((alone.values[n] == fast.values[n][1:2]).all() for n in graph.sites)
    assert any((fast.values[n] != 0).any() for n in graph.sites)


def test_the_interpreter_steps_back_and_forth() -> None:
    noise = Noise.lfsr(shifts=5, sharing="core", core_neurons=2)
    expected = noise.integers(1, [4], 6, 5, 16)[0]
    draw = interpreter.uniforms_of(noise, 0, 16)
    for step in (4, 0, 1, 5, 2, 2):
        assert draw(1, 4, step, 5) == expected[step].tolist()


def test_a_replay_case_holds_the_numbers_of_its_neuron() -> None:
    noise = GENERATORS[1]
    rng = np.random.default_rng(3)
    graph = small_integer_graph(rng, blocks=1, features=2, neurons=4, noise_bits=8)
    run = fixed_point.run(graph, small_input(rng, 1, 5, 2), noise=noise)
    name, site = next(iter(graph.noise_sites.items()))
    value = int(run.values[name][0, 4, 2])
    at = Divergence(0, 4, name, 2, "spike", value, 1 - value, 0, 0.5, 0.5, ("a", "b"))
    stored = replay_case(graph, run, at)["arrays"]["uniforms"]
    drawn = noise.integers(site, [0], 5, graph.nodes[name].output_shape[0], 8)[0, :, 2]
    assert stored.tolist() == (drawn << 45).tolist()


def test_the_reference_takes_the_uniforms() -> None:
    build = GraphBuilder()
    build.add("entry", Input((4,)))
    build.add("sample", Bernoulli(np.ones(4), np.zeros(4), site=0))
    build.add("exit", Output((4,)))
    noise, p = Noise.lfsr(sharing="layer"), np.full((2, 50, 4), 0.3)
    run = reference.run(build.graph(noise_bits=53), p, noise=noise, device="cpu")
    np.testing.assert_array_equal(run.values["sample"], noise.uniform(0, [0, 1], 50, 4) < p)
    assert run.run["noise"]["kind"] == "lfsr"


def test_narrow_registers_are_refused_where_the_compare_is_wider() -> None:
    rng = np.random.default_rng(3)
    graph = small_integer_graph(rng, blocks=1, features=2, neurons=4, noise_bits=12)
    noise = Noise.lfsr(8, 0xB8)
    for simulator in (fixed_point, interpreter):
        with pytest.raises(PspikeError, match="8 bits cannot make 12") as caught:
            simulator.run(graph, small_input(rng, 1, 2, 2), noise=noise)
        assert caught.value.code == "E-NOISE"
        assert "--noise-bits" in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"width": 33},
        {"width": True},
        {"taps": 0xB401},
        {"taps": 0x3400},
        {"taps": "0xB400"},
        {"shifts": 0},
        {"sharing": "chip"},
        {"seed": -1},
        {"core_neurons": 0},
        {"uniform_bits": 17},
    ],
    ids=str,
)
def test_parameters_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PspikeError, match="E-USAGE"):
        Noise.lfsr(**options)


@pytest.mark.parametrize("noise", [*GENERATORS, Noise.lfsr(uniform_bits=8)], ids=str)
def test_a_description_makes_the_same_noise(noise: Any) -> None:
    again = described(noise.describe())
    assert again is not None
    assert again.describe() == noise.describe()
    np.testing.assert_array_equal(again.uniform(0, [1], 3, 4), noise.uniform(0, [1], 3, 4))
    assert described(Noise.philox(1).describe()) is None


def test_text_names_noise() -> None:
    text = "lfsr:width=16, taps=0xB400,shifts=1,sharing=core,core_neurons=0x20,uniform_bits=8"
    assert noise_of(text, 7) == Noise.lfsr(sharing="core", seed=7, core_neurons=32, uniform_bits=8)
    assert noise_of("lcg:byte=low", 7) == Noise.lcg("low", seed=7)
    assert noise_of("philox", 7) == Noise.philox(7)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lsfr",
        "lfsr:",
        "lfsr:width",
        "lfsr:width=x",
        "lfsr:byte=low",
        "lfsr:shifts=1,shifts=2",
        "lcg:byte=middle",
        "philox:width=16",
        "lfsr:taps=0xB401",
    ],
)
def test_text_that_names_no_noise_is_refused(text: str) -> None:
    with pytest.raises(PspikeError, match="E-USAGE") as caught:
        noise_of(text)
    assert caught.value.fix


def test_lava_refuses_what_it_cannot_draw(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    graph = small_integer_graph(rng, blocks=1, features=2, neurons=4)
    x, noise = small_input(rng, 1, 2, 2), Noise.lfsr()
    for call in (
        lambda: export_lava(graph, tmp_path / "bundle", x=x, noise=noise),
        lambda: lava.run(graph, x, noise=noise),
    ):
        with pytest.raises(PspikeError, match="cannot take the noise 'lfsr'"):
            call()
    assert not (tmp_path / "bundle").exists()


def test_the_command_line_takes_generators(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    graph = small_integer_graph(rng, blocks=1, features=2, neurons=4)
    files = [tmp_path / name for name in ("graph.nir", "x.npy", "run.npz")]
    write_graph(graph, files[0])
    np.save(files[1], small_input(rng, 2, 4, 2))
    common = ["simulate", str(files[0]), "--data", str(files[1]), "--out", str(files[2])]
    wrong = CliRunner().invoke(cli.app, [*common, "--noise", "dice"])
    assert wrong.exit_code == 2
    assert "there is no generator 'dice'" in wrong.output
    done = CliRunner().invoke(cli.app, [*common, "--noise", "lfsr:shifts=2", "--seed", "3"])
    assert done.exit_code == 0, done.output
    assert Recording.load(files[2]).run["noise"] == Noise.lfsr(shifts=2, seed=3).describe()
