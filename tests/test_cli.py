"""The command line on real input: results, errors, exit statuses, and nothing left behind."""

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pspike_deploy import cli
from pspike_deploy.exporters.lava.bundle.parent_watch import group_members, group_segments
from pspike_deploy.graph.file import read_graph
from pspike_deploy.models.checkpoint import save_checkpoint
from pspike_deploy.pipeline import ExportResult
from tests.test_quantize import STEPS, network

runner = CliRunner()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Checkpoint of a small untrained network; its data have two features and five classes."""
    path = tmp_path / "model.pt"
    save_checkpoint(path, network(21))
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    rng = np.random.default_rng(21)
    path = tmp_path / "samples.npz"
    np.savez(path, x=rng.uniform(-1, 1, (6, STEPS, 2)), y=rng.integers(0, 5, 6))
    return path


def pspike(*arguments: object):
    return runner.invoke(cli.app, [str(a) for a in arguments])


def export(model: Path, out: Path, *more: object):
    return pspike("export", model, "--out", out, "--draws", 2, *more)


def left_behind(folder: Path, *known: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p not in known)


# --- the main job -----------------------------------------------------------------------------


@pytest.mark.lava
def test_an_export_to_lava_writes_every_artefact(
    model: Path, samples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = export(model, out, "--data", samples, "--lava-samples", 2, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["lava"]["bit_exact"]
    assert summary["lava"]["mismatches"] == 0
    assert summary["lava"]["samples"] == 2
    assert summary["lava"]["steps"] == STEPS
    assert summary["lava"]["spikes"] > 100
    assert summary["verification"]["verdict"] == "equivalent"
    assert summary["verification"]["tests"] == ["T0", "T1b", "T1a-interpreter", "T1a-lava"]
    assert summary["accuracy"]["samples"] == 6
    assert summary["accuracy"]["float"] is not None
    assert summary["quantization"]["weight_bits"] == 8
    assert summary["quantization"]["overflows"] == 0
    assert summary["network"]["parameters"] == sum(p.numel() for p in network(21).parameters())
    names = {p.relative_to(out).as_posix() for p in out.rglob("*")}
    assert names >= {
        "manifest.json",
        "float.nir",
        "quantized.nir",
        "quantization.json",
        "verification.json",
        "summary.json",
        "lava/run.py",
        "lava/parameters.npz",
    }
    assert read_graph(out / "float.nir").digest == summary["network"]["digest"]
    assert read_graph(out / "quantized.nir").digest == summary["network"]["integer_digest"]
    manifest = json.loads((out / "manifest.json").read_text())
    flips = {entry["pass"]: entry["spike_flips"] for entry in manifest["passes"]}
    assert flips.pop("quantize") >= 0
    assert not any(flips.values()), "folding flips no spike"
    recordings = out / "recordings"
    same = pspike("compare", recordings / "fixed-point.npz", recordings / "lava.npz")
    assert same.exit_code == 0
    assert "equal in every value" in same.output


def test_an_export_to_nir_needs_no_lava(
    model: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSPIKE_CACHE", str(tmp_path / "empty"))
    monkeypatch.delenv("PSPIKE_LAVA_PYTHON", raising=False)
    out = tmp_path / "out"
    done = export(model, out, "--target", "nir", "--data", samples)
    assert done.exit_code == 0, done.output
    assert "equivalent" in done.output
    assert not (out / "lava").exists()
    again = export(out / "float.nir", tmp_path / "again", "--target", "nir", "--data", samples)
    assert again.exit_code == 0, again.output
    first = json.loads((out / "summary.json").read_text())
    second = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert first["network"]["integer_digest"] == second["network"]["integer_digest"]


EXPORT_BOTH = """
import sys
from pathlib import Path
import numpy as np
from pspike_deploy import api, cli
from pspike_deploy.graph.file import read_graph

model, samples, out = sys.argv[1:]
sys.argv = ["pspike-export", model, "--target", "nir", "--data", samples, "--out", out]
sys.argv += ["--draws", "2", "--quiet"]
try:
    cli.export_main()
except SystemExit as end:
    assert not end.code, end.code
integer = read_graph(Path(out) / "quantized.nir")
api.export(integer, target="lava", out=Path(out) / "lava", x=np.load(samples)["x"][:2])
"""


def test_the_same_export_twice_gives_the_same_bytes(
    model: Path, samples: Path, tmp_path: Path
) -> None:
    """In two programs whose sets and hashes have different orders; no Lava run is needed."""
    exports = []
    for seed in ("1", "2"):
        out = tmp_path / seed
        command = [sys.executable, "-c", EXPORT_BOTH, str(model), str(samples), str(out)]
        subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, check=True)
        files = [path for path in out.rglob("*") if path.is_file()]
        exports.append({path.relative_to(out).as_posix(): path.read_bytes() for path in files})
    assert exports[0].keys() >= {"float.nir", "summary.json", "lava/run.py", "lava/parameters.npz"}
    manifests = [json.loads(export.pop("manifest.json")) for export in exports]
    assert all(manifest.pop("seconds") for manifest in manifests), "the only timings"
    assert json.dumps(manifests[0]) == json.dumps(manifests[1])
    assert exports[0].keys() == exports[1].keys()
    assert [name for name in exports[0] if exports[0][name] != exports[1][name]] == []


def test_a_coarse_network_gets_a_negative_verdict_and_exit_status_1(
    model: Path, samples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--target", "nir", "--weight-bits", 2, "--noise-bits", 2, "--json")
    done = export(model, out, "--data", samples, *options)
    assert done.exit_code == 1, done.output
    verification = json.loads(done.stdout)["verification"]
    assert verification["verdict"] == "different"
    assert "rate margin" in verification["reasons"][0]
    assert (out / "summary.json").exists(), "a negative verdict is a result"


def test_overflows_of_the_evaluation_are_reported_by_node_and_warned_of(
    model: Path, samples: Path, tmp_path: Path
) -> None:
    """Samples three times as large as the calibration leave the register of the input."""
    np.save(tmp_path / "small.npy", np.load(samples)["x"])
    np.save(tmp_path / "large.npy", 3 * np.load(samples)["x"])
    options = ("--calibration", tmp_path / "small.npy", "--draws", 2, "--target", "nir", "--json")
    out = tmp_path / "out"
    summary = json.loads(export(model, out, "--data", tmp_path / "large.npy", *options).stdout)
    nodes = json.loads((out / "quantization.json").read_text())["nodes"]
    counts = {name: row["overflows"]["evaluation"] for name, row in nodes.items()}
    total = sum(n for found in counts.values() for n in found.values())
    assert summary["quantization"]["overflows"] == total > 0
    assert counts["input_quantize"]["output"] > 0
    assert not nodes["input_quantize"]["overflows"]["calibration"]
    assert "input_quantize (output" in summary["verification"]["warnings"][0]


@pytest.mark.parametrize(
    ("verdict", "status"), [("equivalent", 0), ("different", 1), ("inconclusive", 5)]
)
def test_every_verdict_has_its_exit_status(verdict: str, status: int) -> None:
    assert ExportResult(Path(), {"verification": {"verdict": verdict}}).exit_status == status


# --- bad input ----------------------------------------------------------------------------------


class Bomb:
    """Pickles into a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def hostile_checkpoint(path: Path) -> None:
    torch.save({"format": Bomb(path.parent / "exploded")}, path)


def truncated_checkpoint(path: Path) -> None:
    save_checkpoint(path, network(21))
    path.write_bytes(path.read_bytes()[:5000])


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")


def incomplete_checkpoint(path: Path) -> None:
    save_checkpoint(path, network(21))
    content = torch.load(path, weights_only=True)
    del content["state_dict"]["blocks.0.mixer.bias"]
    content["state_dict"]["decoder.weight"] = torch.zeros(3, 3)
    torch.save(content, path)


def non_causal_checkpoint(path: Path) -> None:
    save_checkpoint(path, network(21, two_sided=True))


BAD_MODELS = {
    "missing": (lambda path: None, "E-INPUT-MISSING", 2),
    "empty": (lambda path: path.write_bytes(b""), "E-CHECKPOINT-FORMAT", 2),
    "text": (lambda path: path.write_text("hello"), "E-CHECKPOINT-FORMAT", 2),
    "bare pickle": (
        lambda path: path.write_bytes(pickle.dumps(Bomb(path.parent / "exploded"))),
        "E-CHECKPOINT",
        2,
    ),
    "other zip": (other_zip, "E-CHECKPOINT-FORMAT", 2),
    "truncated": (truncated_checkpoint, "E-CHECKPOINT-FORMAT", 2),
    "hostile": (hostile_checkpoint, "E-CHECKPOINT-UNSAFE", 2),
    "incomplete": (incomplete_checkpoint, "E-CHECKPOINT-TENSORS", 2),
    "two-sided": (non_causal_checkpoint, "E-TARGET-NONCAUSAL", 3),
}


@pytest.mark.parametrize("kind", BAD_MODELS, ids=str)
def test_bad_checkpoints_get_one_clear_error(kind: str, samples: Path, tmp_path: Path) -> None:
    make, code, status = BAD_MODELS[kind]
    path = tmp_path / "bad.pt"
    make(path)
    done = export(path, tmp_path / "out", "--target", "nir", "--data", samples)
    assert done.exit_code == status, done.output
    assert done.stderr.splitlines()[-1].lstrip().startswith(("fix", "why", "where"))
    assert code in done.stderr
    assert left_behind(tmp_path, path, samples) == []


def test_every_wrong_tensor_is_named(samples: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    incomplete_checkpoint(path)
    done = export(path, tmp_path / "out", "--target", "nir", "--data", samples)
    assert "blocks.0.mixer.bias" in done.stderr
    assert "decoder.weight" in done.stderr


BAD_DATA = {
    "shape": (np.zeros((2, 8, 3)), "E-DATA-SHAPE"),
    "nan": (np.full((2, 8, 2), np.nan), "E-DATA-VALUES"),
    "empty": (np.zeros((0, 8, 2)), "E-DATA-EMPTY"),
}


@pytest.mark.parametrize("kind", BAD_DATA, ids=str)
def test_bad_data_get_one_clear_error(kind: str, model: Path, tmp_path: Path) -> None:
    array, code = BAD_DATA[kind]
    path = tmp_path / "bad.npy"
    np.save(path, array)
    done = export(model, tmp_path / "out", "--target", "nir", "--data", path)
    assert done.exit_code == 2
    assert code in done.stderr
    assert left_behind(tmp_path, path, model) == []


def test_a_model_without_data_asks_for_them(model: Path, tmp_path: Path) -> None:
    done = export(model, tmp_path / "out", "--target", "nir")
    assert done.exit_code == 2
    assert "--data" in done.stderr


def test_without_an_environment_the_command_that_makes_one_is_named(
    model: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSPIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PSPIKE_LAVA_PYTHON", raising=False)
    done = export(model, tmp_path / "out", "--data", samples)
    assert done.exit_code == 4
    assert "E-LAVA-ENVIRONMENT" in done.stderr
    assert "pspike lava setup" in done.stderr
    assert left_behind(tmp_path, model, samples, tmp_path / "cache") == []


def test_an_existing_out_is_refused_and_untouched(
    model: Path, samples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    for more in ((), ("--force",)):
        done = export(model, out, "--target", "nir", "--data", samples, *more)
        assert done.exit_code == 2
        assert "E-OUT-EXISTS" in done.stderr
    assert left_behind(out) == ["thesis.tex"]


def test_an_unwritable_out_is_an_error(model: Path, samples: Path, tmp_path: Path) -> None:
    done = export(model, model / "out", "--target", "nir", "--data", samples)
    assert done.exit_code == 2
    assert "E-OUT-UNWRITABLE" in done.stderr


FULL_DISK = """
import resource, signal, sys
from pspike_deploy import cli
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.argv = ["pspike-export", *sys.argv[1:]]
cli.export_main()
"""


def test_a_full_disk_is_an_error_and_leaves_nothing(
    model: Path, samples: Path, tmp_path: Path
) -> None:
    """A limit on file sizes stands in for a disk that is full: writes fail in the same places."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", FULL_DISK, model, "--target", "nir", "--draws", "1"]
    command += ["--data", samples, "--out", out]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2, done.stderr
    assert "E-OUT-DISK-FULL" in done.stderr
    assert left_behind(tmp_path, model, samples, tmp_path / "numba") == []


def test_unknown_targets_widths_and_devices_are_usage_errors(
    model: Path, samples: Path, tmp_path: Path
) -> None:
    for option, value in (("--target", "tpu"), ("--weight-bits", 9), ("--device", "abacus")):
        done = export(model, tmp_path / "out", "--target", "nir", "--data", samples, option, value)
        assert done.exit_code == 2
        assert str(value) in done.stderr


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
    ids=["Ctrl-C", "kill", "closed terminal"],
)
def test_an_interrupt_half_way_leaves_nothing(
    number: signal.Signals, model: Path, samples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out"
    command = [sys.executable, "-m", "pspike_deploy", "export", model, "--target", "nir"]
    command += ["--data", samples, "--out", out, "--draws", "100000"]
    child = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True)
    try:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("• Measuring"):
                break
        assert (tmp_path / "deep").exists(), "it is at work"
        time.sleep(0.2)
        child.send_signal(number)
        assert child.wait(30) == 130
        assert "interrupted" in child.stderr.read()
    finally:
        child.kill()
        child.wait()
    assert left_behind(tmp_path, model, samples) == []


def test_an_ignored_signal_stays_ignored() -> None:
    """As under nohup."""
    code = (
        "import os, signal, sys\nfrom pspike_deploy.signals import end_like_interrupt\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nend_like_interrupt()\n"
        "os.kill(os.getpid(), signal.SIGHUP)\nprint('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n")


@pytest.mark.lava
def test_a_second_kill_in_the_clean_up_of_a_lava_run_leaves_nothing(
    model: Path, tmp_path: Path
) -> None:
    samples = tmp_path / "many.npy"
    np.save(samples, np.random.default_rng(3).uniform(-1, 1, (400, STEPS, 2)))
    command = [sys.executable, "-m", "pspike_deploy", "export", model, "--data", samples]
    command += ["--out", tmp_path / "out", "--draws", "1", "--lava-samples", "400"]
    program = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True)
    group, segments = 0, set[str]()
    try:
        assert program.stderr is not None
        for line in program.stderr:
            if line.startswith("• Running the bundle"):
                break
        deadline = time.monotonic() + 60
        while not segments and time.monotonic() < deadline:
            time.sleep(0.05)
            children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text()
            group = int((children.split() or ["0"])[-1])
            segments = group_segments(group) if group else set()
        assert segments, "Lava is at work"
        for _ in range(3):
            program.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        assert program.wait(60) == 130
        assert "interrupted" in program.stderr.read()
    finally:
        program.kill()
        program.wait()
    assert group_members(group) == []
    assert not [name for name in segments if (Path("/dev/shm") / name).exists()]
    assert left_behind(tmp_path, model, samples) == []


# --- the other commands ---------------------------------------------------------------------------


def test_inspect_lists_nodes_and_digest(model: Path) -> None:
    done = pspike("inspect", model)
    assert done.exit_code == 0
    assert "DiagonalSSM" in done.output
    plain = json.loads(pspike("inspect", model, "--json").stdout)
    assert plain["sampling_sites"] == 4
    assert plain["digest"] in done.output
    assert plain["states"] == 2 * 12 * 8 + 12, "modes of two layers and one running sum"


def test_check_says_why_a_network_cannot_stream(model: Path, tmp_path: Path) -> None:
    assert pspike("check", model).exit_code == 0
    path = tmp_path / "two_sided.pt"
    non_causal_checkpoint(path)
    done = pspike("check", path)
    assert done.exit_code == 3
    assert "two_sided=False" in done.output
    findings = json.loads(pspike("check", path, "--json").stdout)["findings"]
    assert findings[0]["code"] == "E-TARGET-NONCAUSAL"


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x89HDF\r\n\x1a\n" + b"\0" * 200], ids=str)
def test_check_never_raises(content: bytes, tmp_path: Path) -> None:
    for name in ("file.nir", "file.pt"):
        path = tmp_path / name
        path.write_bytes(content)
        assert pspike("check", path).exit_code == 3
        assert pspike("check", path, "--target", "nonsense").exit_code == 3


def test_simulate_and_compare_find_the_first_divergence(
    model: Path, samples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert export(model, out, "--target", "nir", "--data", samples).exit_code == 0
    fast, slow, other = (tmp_path / f"{name}.npz" for name in ("fast", "slow", "other"))
    common = ("simulate", out / "quantized.nir", "--data", samples, "--samples", 2)
    assert pspike(*common, "--out", fast).exit_code == 0
    assert pspike(*common, "--out", slow, "--backend", "interpreter").exit_code == 0
    assert pspike(*common, "--out", other, "--seed", 1).exit_code == 0
    assert pspike("compare", fast, slow).exit_code == 0
    done = pspike("compare", fast, other)
    assert done.exit_code == 1
    assert "first divergence: sample 0, step 0, node l01_c_sample" in done.output
    plain = json.loads(pspike("compare", fast, other, "--json").stdout)
    assert plain["first_divergence"]["node"] == "l01_c_sample"
    again = pspike(*common, "--out", fast)
    assert again.exit_code == 2
    assert "E-OUT-EXISTS" in again.stderr


def test_compare_refuses_what_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    done = pspike("compare", tmp_path / "a.npz", tmp_path / "a.npz")
    assert done.exit_code == 2
    assert "E-RECORDING-FILE" in done.stderr


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    done = pspike("train", "nonsense")
    assert done.exit_code == 2
    assert "p_spikessm_digits" in done.stderr


def test_train_writes_checkpoint_and_card_and_keeps_what_exists(tmp_path: Path) -> None:
    command = ("train", "p_spikessm_digits", "--out", tmp_path, "--epochs", 1, "--quiet")
    assert pspike(*command).exit_code == 0
    names = left_behind(tmp_path)
    assert names == [f"p_spikessm_digits.{suffix}" for suffix in ("json", "md", "pt")]
    again = pspike(*command)
    assert again.exit_code == 2
    assert "E-OUT-EXISTS" in again.stderr


def test_doctor_says_what_works() -> None:
    done = pspike("doctor")
    assert done.exit_code == 0
    assert "Lava" in done.output
    assert "numpy" in json.loads(pspike("doctor", "--json").stdout)["versions"]


def test_errors_are_json_where_json_is_asked_for(tmp_path: Path) -> None:
    done = pspike("inspect", tmp_path / "absent.pt", "--json")
    assert json.loads(done.stdout)["error"]["code"] == "E-INPUT-MISSING"


@pytest.mark.parametrize(
    "command", ["export", "inspect", "check", "simulate", "compare", "train", "lava setup"]
)
def test_every_help_shows_an_example(command: str) -> None:
    done = pspike(*command.split(), "--help")
    assert done.exit_code == 0
    assert "Example:" in done.output


def test_a_defect_is_no_verdict(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("pspike_deploy.inspection.describe", broken)
    done = pspike("inspect", model, "--json")
    assert done.exit_code == 4
    assert json.loads(done.stdout)["error"]["code"] == "E-INTERNAL"
    assert "ZeroDivisionError" in done.stderr


def test_calibration_samples_of_the_user_s_own_decide_the_ranges(
    model: Path, samples: Path, tmp_path: Path
) -> None:
    wide = tmp_path / "wide.npy"
    np.save(wide, 4 * np.load(samples)["x"])
    options = ("--target", "nir", "--data", samples, "--json")
    narrow = json.loads(export(model, tmp_path / "a", *options).stdout)
    given = json.loads(export(model, tmp_path / "b", *options, "--calibration", wide).stdout)
    assert narrow["network"]["integer_digest"] != given["network"]["integer_digest"]
    assert "wide.npy" in given["calibration"]
    assert "evaluated data" in narrow["calibration"]


def test_the_help_needs_little_time() -> None:
    """Processor time, which other programs do not change; the best of three."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    program = Path(sys.executable).with_name("pspike-export")
    times = []
    for _ in range(3):
        before = spent()
        subprocess.run([program, "--help"], capture_output=True, check=True)
        times.append(spent() - before)
    assert min(times) < 0.5
