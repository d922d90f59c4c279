"""A Lava run that hangs, crashes or is interrupted becomes one error and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.exporters.lava.bundle import parent_watch
from pspike_deploy.exporters.lava.bundle.parent_watch import group_members, group_segments
from pspike_deploy.simulators.lava import child
from pspike_deploy.simulators.lava.cache import LavaEnvironment, bundle_file
from pspike_deploy.simulators.lava.child import BundleRun, run_bundle, time_limit

# The watchdog does not care what runs: these bundles need this Python and no Lava.
THIS_PYTHON = LavaEnvironment(Path(sys.executable), "given", {})

# What a bundle begins with: it tells its process id, and how to fork processes that share memory.
PRELUDE = """
import ctypes, json, os, pathlib, signal, sys, time
from multiprocessing import shared_memory
from parent_watch import watch_parent

watch_parent(0.05)
pathlib.Path("pid").write_text(str(os.getpid()))

def share():
    segment = shared_memory.SharedMemory(create=True, size=4096)
    pathlib.Path("segment-" + segment.name).touch()
    return segment

def fork_actor(leave_group=False):
    if os.fork() == 0:
        if leave_group:
            os.setpgid(0, 0)
        segment = share()
        pathlib.Path("actor-%d" % os.getpid()).touch()
        time.sleep(600)

def wait_for_actors(count):
    while len(list(pathlib.Path().glob("actor-*"))) < count:
        time.sleep(0.01)

def finish(content="done"):
    pathlib.Path("result.json").write_text(json.dumps(content))
"""


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[[str], Path]:
    def make(script: str) -> Path:
        bundle = tmp_path / f"bundle{len(list(tmp_path.glob('bundle*')))}"
        bundle.mkdir()
        shutil.copy(bundle_file("parent_watch.py"), bundle)
        (bundle / "run.py").write_text(PRELUDE + textwrap.dedent(script))
        return bundle

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def run(
    bundle: Path, folder: Path | None = None, limit: float = 60, **options: Any
) -> BundleRun[Any]:
    return run_bundle(
        bundle,
        arguments=options.pop("arguments", []),
        result="result.json",
        environment=options.pop("environment", THIS_PYTHON),
        time_limit_s=limit,
        read=options.pop("read", read_json),
        run_folder=folder,
        **options,
    )


def failure(bundle: Path, folder: Path, limit: float = 60, **options: Any) -> PspikeError:
    with pytest.raises(PspikeError) as caught:
        run(bundle, folder, limit, **options)
    return caught.value


def nothing_is_left(folder: Path) -> bool:
    names = [path.name.removeprefix("segment-") for path in folder.glob("segment-*")]
    pids = [int(path.name.removeprefix("actor-")) for path in folder.glob("actor-*")]
    group = int((folder / "pid").read_text())
    living = set(group_members(group)) | {pid for pid in pids if is_alive(pid)}
    segments = [name for name in names if (Path("/dev/shm") / name).exists()]
    return not living and not segments


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


# --- a run that goes well -------------------------------------------------------------------------


def test_a_good_run_returns_what_the_reader_made_of_the_result(make_bundle, folder):
    bundle = make_bundle("print('working'); finish([int(a) for a in sys.argv[1:]])")
    done = run(bundle, folder, arguments=["4", "2"])
    assert done.content == [4, 2]
    assert done.stdout == "working"
    assert 0 < done.seconds < 30


def test_processes_that_outlive_a_good_run_are_ended(make_bundle, folder):
    bundle = make_bundle(
        """
        for _ in range(3):
            fork_actor()
        wait_for_actors(3)
        finish()
        os._exit(0)
        """
    )
    assert run(bundle, folder).content == "done"
    assert len(list(folder.glob("segment-*"))) == 3
    assert nothing_is_left(folder)


def test_a_temporary_run_folder_is_removed(make_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_folder = run(make_bundle("finish(os.getcwd())")).content
    assert Path(run_folder).parent == tmp_path
    assert not Path(run_folder).exists()


def test_the_child_is_isolated_and_writes_nothing_into_the_bundle(
    make_bundle, folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VIRTUAL_ENV", "PSPIKE_RUN_FOLDER")
    bundle = make_bundle(
        f"""
        variables = [os.environ.get(name) for name in {names}]
        finish([sys.path, sys.stdin.read(), variables, os.getpgrp() == os.getpid()])
        """
    )
    before = sorted(bundle.rglob("*"))
    path, stdin, variables, leads_group = run(bundle, folder).content
    assert path[0] == str(bundle)
    assert str(tmp_path) not in path
    assert stdin == ""
    assert variables == ["1", "1", None, str(folder)]
    assert leads_group
    assert sorted(bundle.rglob("*")) == before


def test_progress_tells_each_step_reached(make_bundle, folder):
    bundle = make_bundle(
        """
        for step in (10, 20):
            pathlib.Path("progress.txt").write_text(f"{step} 30")
            time.sleep(0.8)
        finish()
        """
    )
    steps: list[int] = []
    run(bundle, folder, progress=steps.append)
    assert steps == [10, 20]


def test_an_exception_of_the_progress_callback_ends_the_run(make_bundle, folder):
    def fail(_step: int) -> None:
        raise ZeroDivisionError

    bundle = make_bundle(
        """
        fork_actor(); wait_for_actors(1)
        pathlib.Path("progress.txt").write_text("1")
        time.sleep(600)
        """
    )
    with pytest.raises(ZeroDivisionError):
        run(bundle, folder, progress=fail)
    assert nothing_is_left(folder)


# --- crashes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "what", "why"),
    [
        ("print('last words'); sys.exit(1)", "exit status 1", "last words"),
        ("raise ValueError('wrong shape')", "exit status 1", "ValueError: wrong shape"),
        ("fork_actor(); wait_for_actors(1); os._exit(7)", "exit status 7", "no step"),
        ("fork_actor(); wait_for_actors(1); ctypes.string_at(0)", "SIGSEGV", "run.py"),
        ("fork_actor(); wait_for_actors(1); os.kill(os.getpid(), 9)", "SIGKILL", "no step"),
        ("fork_actor(True); wait_for_actors(1); os._exit(3)", "exit status 3", ""),
        ("share(); os._exit(3)", "exit status 3", ""),
    ],
)
def test_a_crash_is_an_error_with_the_last_lines_and_nothing_is_left(
    make_bundle, folder, script, what, why
):
    error = failure(make_bundle(script), folder)
    assert error.code == "E-LAVA-CRASH"
    assert what in error.what
    assert why in error.why
    assert nothing_is_left(folder)


def test_a_traceback_file_ends_a_run_that_hangs(make_bundle, folder):
    bundle = make_bundle(
        """
        fork_actor(); wait_for_actors(1)
        pathlib.Path("progress.txt").write_text("17 400")
        pathlib.Path("traceback.txt").write_text("ZeroDivisionError: in run_spk")
        time.sleep(600)
        """
    )
    start = time.monotonic()
    error = failure(bundle, folder, limit=300)
    assert time.monotonic() - start < 60
    assert error.code == "E-LAVA-CRASH"
    assert "raised an exception" in error.what
    assert "step 17 of 400 was reached" in error.why
    assert "ZeroDivisionError: in run_spk" in error.why
    assert nothing_is_left(folder)


def test_a_traceback_file_is_an_error_even_if_the_run_ends_with_status_0(make_bundle, folder):
    bundle = make_bundle("pathlib.Path('traceback.txt').write_text('IndexError'); finish()")
    assert failure(bundle, folder).code == "E-LAVA-CRASH"


def test_endless_output_ends_the_run_before_it_fills_the_disk(make_bundle, folder, monkeypatch):
    monkeypatch.setattr(child, "OUTPUT_LIMIT", 2**20)
    bundle = make_bundle("fork_actor()\nwhile True: print('x' * 1000); time.sleep(1e-5)")
    error = failure(bundle, folder, limit=300)
    assert error.code == "E-LAVA-CRASH"
    assert "1 MiB of output" in error.what
    assert len(error.why) < 100_000
    assert nothing_is_left(folder)


def test_control_characters_of_a_run_do_not_reach_the_terminal(make_bundle, folder):
    error = failure(make_bundle(r"print('\x1b[31mred\x00'); sys.exit(1)"), folder)
    assert "red" in error.why
    assert "\x1b" not in error.why


# --- hangs ----------------------------------------------------------------------------------------


def test_a_hang_ends_at_the_time_limit_and_the_error_says_how_far_it_came(make_bundle, folder):
    bundle = make_bundle(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for _ in range(3):
            fork_actor()
        wait_for_actors(3)
        pathlib.Path("progress.txt").write_text("120 400\\n")
        print("waiting for a spike", flush=True)
        time.sleep(600)
        """
    )
    error = failure(bundle, folder, limit=4)
    assert error.code == "E-LAVA-TIMEOUT"
    assert "step 120 of 400 was reached" in error.why
    assert "limit is 4.0 s" in error.why
    assert "waiting for a spike" in error.why
    assert child.TIME_LIMIT_VARIABLE in error.fix
    assert len(list(folder.glob("segment-*"))) == 3
    assert nothing_is_left(folder)


def test_a_healthy_run_beside_a_hanging_one_is_not_disturbed(make_bundle, folder, tmp_path):
    healthy = make_bundle(
        """
        segment = share()
        pathlib.Path("ready").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.05)
        other = shared_memory.SharedMemory(segment.name)   # still there
        finish(other.size >= 4096)
        other.close(); segment.close(); segment.unlink()
        """
    )
    beside = tmp_path / "beside"
    beside.mkdir()
    outcome: list[BundleRun[Any]] = []
    thread = threading.Thread(target=lambda: outcome.append(run(healthy, beside)))
    thread.start()
    while not (beside / "ready").exists():
        time.sleep(0.05)
    hanging = make_bundle("fork_actor(); wait_for_actors(1); time.sleep(600)")
    assert failure(hanging, folder, limit=2).code == "E-LAVA-TIMEOUT"
    (beside / "go").touch()
    thread.join(60)
    assert outcome[0].content is True


# --- results --------------------------------------------------------------------------------------


def read_npz(path: Path) -> Any:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.mark.parametrize(
    ("script", "read"),
    [
        ("pass", read_json),
        ("pathlib.Path('result.json').mkdir()", read_json),
        ("pathlib.Path('result.json').write_bytes(b'')", read_npz),
        ("pathlib.Path('result.json').write_bytes(b'{\"spikes\": [1, 0')", read_json),
        ("pathlib.Path('result.json').write_bytes(bytes(range(256)))", read_npz),
        ("pathlib.Path('result.json').write_bytes(b'PK' + bytes(200))", read_npz),
        ("finish(['a list'])", lambda path: read_json(path)["spikes"]),
    ],
    ids=["none", "folder", "empty", "truncated", "garbage", "damaged-archive", "wrong-content"],
)
def test_a_result_that_is_not_valid_is_an_error(make_bundle, folder, script, read):
    error = failure(make_bundle(script), folder, read=read)
    assert error.code == "E-LAVA-RESULT"
    assert "result.json" in error.why


def test_the_reader_may_raise_its_own_error(make_bundle, folder):
    def read(_path: Path) -> None:
        raise PspikeError("E-LAVA-RESULT", "the run stopped at step 3 of 8")

    assert failure(make_bundle("finish()"), folder, read=read).what.endswith("step 3 of 8")


def test_the_result_of_an_earlier_run_in_the_folder_is_not_taken(make_bundle, folder):
    (folder / "result.json").write_text('"old"')
    (folder / "traceback.txt").write_text("old")
    error = failure(make_bundle("pass"), folder)
    assert error.code == "E-LAVA-RESULT"
    assert "old" not in error.why


# --- bad calls ------------------------------------------------------------------------------------


def test_a_folder_without_run_script_is_no_bundle(folder):
    assert failure(folder, folder).code == "E-INPUT-MISSING"


def test_a_python_that_has_gone_is_named(make_bundle, folder, tmp_path):
    gone = LavaEnvironment(tmp_path / "gone" / "python", "shim", {})
    error = failure(make_bundle("finish()"), folder, environment=gone)
    assert error.code == "E-LAVA-ENVIRONMENT"
    assert "pspike lava setup" in error.fix


def test_the_time_limit_grows_with_steps_and_processes_and_can_be_replaced(monkeypatch):
    monkeypatch.delenv(child.TIME_LIMIT_VARIABLE, raising=False)
    assert time_limit(steps=1000, processes=10) == pytest.approx(30 + 5 * 1000 * 10 * 0.3e-3)
    monkeypatch.setenv(child.TIME_LIMIT_VARIABLE, "900")
    assert time_limit(steps=1, processes=1) == 900
    for bad in ("soon", "-1", "nan", "inf"):
        monkeypatch.setenv(child.TIME_LIMIT_VARIABLE, bad)
        with pytest.raises(PspikeError, match="E-USAGE"):
            time_limit(steps=1, processes=1)


# --- interruption of the program itself -----------------------------------------------------------

PROGRAM = """
import json, sys
from pathlib import Path
from pspike_deploy.simulators.lava.cache import LavaEnvironment
from pspike_deploy.simulators.lava.child import run_bundle

run_bundle(
    Path(sys.argv[1]), arguments=[], result="result.json",
    environment=LavaEnvironment(Path(sys.executable), "given", {}), time_limit_s=300,
    read=lambda path: None, run_folder=Path(sys.argv[2]) if len(sys.argv) > 2 else None,
)
"""

HANGING = """
for _ in range(2):
    fork_actor()
wait_for_actors(2)
pathlib.Path("ready").touch()
time.sleep(600)
"""


def start_program(bundle: Path, *more: Path, **variables: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, bundle, *more],
        env=os.environ | variables,
        stderr=subprocess.DEVNULL,
    )


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_the_program_ends_the_whole_run(make_bundle, folder, number):
    program = start_program(make_bundle(HANGING), folder)
    try:
        assert wait_until((folder / "ready").exists)
        os.kill(program.pid, number)
        assert program.wait(30) == -number
        # After SIGKILL it is the run itself that notices, a moment later.
        assert wait_until(lambda: nothing_is_left(folder), 10 if number == signal.SIGKILL else 0)
    finally:
        program.kill()
        program.wait()


def test_an_interrupted_program_removes_its_temporary_run_folder(make_bundle, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    program = start_program(make_bundle(HANGING), TMPDIR=str(temporary))
    try:
        assert wait_until(lambda: list(temporary.glob("*/ready")))
        os.kill(program.pid, signal.SIGTERM)
        os.kill(program.pid, signal.SIGINT)  # impatience does not disturb the clean-up
        assert program.wait(30) in (-signal.SIGTERM, -signal.SIGINT)
        assert list(temporary.iterdir()) == []
    finally:
        program.kill()
        program.wait()


# The same as a command does it: with the handler of the command line, into an artefact folder.
COMMAND_LINE = """
import pathlib, sys
from pspike_deploy import artefacts, signals

signals.end_like_interrupt()
try:
    with artefacts.artefact_folder(pathlib.Path(sys.argv[2]).with_name("deep") / "out"):
        PROGRAM
except KeyboardInterrupt:
    raise SystemExit(130)
"""


@pytest.mark.parametrize("numbers", ["SIGTERM SIGTERM", "SIGHUP SIGHUP", "SIGTERM SIGINT SIGHUP"])
def test_a_second_signal_to_a_command_does_not_disturb_its_clean_up(make_bundle, folder, numbers):
    code = COMMAND_LINE.replace("PROGRAM", textwrap.indent(PROGRAM, " " * 8).strip())
    bundle = make_bundle(HANGING)
    program = subprocess.Popen([sys.executable, "-c", code, bundle, folder])
    try:
        assert wait_until((folder / "ready").exists)
        assert folder.with_name("deep").exists()
        for name in numbers.split():
            program.send_signal(signal.Signals[name])
            time.sleep(0.03)  # within the clean-up
        assert program.wait(30) == 130
        assert nothing_is_left(folder)
        assert sorted(p.name for p in folder.parent.iterdir()) == [bundle.name, folder.name]
    finally:
        program.kill()
        program.wait()


def test_signal_handlers_are_as_before_after_a_run(make_bundle, folder):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    run(make_bundle("finish()"), folder)
    assert [signal.getsignal(number) for number in numbers] == before


# --- reading /proc, and the parent watch ----------------------------------------------------------


def test_a_process_whose_name_holds_blanks_and_parentheses_is_found():
    rename = "open('/proc/self/comm', 'w').write('a) R (1 2')"
    script = f"import time; {rename}; print(flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", script], start_new_session=True, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert group_members(process.pid) == [process.pid]
        assert group_segments(process.pid) == set()
    finally:
        process.kill()
        process.communicate()
    assert group_members(process.pid) == []


def test_nobody_is_watched_when_a_person_starts_the_run(monkeypatch):
    monkeypatch.delenv(parent_watch.PARENT_VARIABLE, raising=False)
    assert not parent_watch.watch_parent()
    monkeypatch.setenv(parent_watch.PARENT_VARIABLE, str(os.getppid()))
    monkeypatch.setattr(os, "getpgrp", lambda: os.getpid() + 1)  # the shell's group
    assert not parent_watch.watch_parent()


# --- Lava itself ----------------------------------------------------------------------------------

LAVA_RUN = """
import lava_compat
import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.dense.process import Dense
from lava.proc.io.source import RingBuffer
from lava.proc.lif.process import LIF

source = RingBuffer(data=np.ones((1, 4), dtype=int))
dense = Dense(weights=np.array([[4]]))
neuron = LIF(shape=(1,), vth=10, {options})
source.s_out.connect(dense.s_in)
dense.a_out.connect(neuron.a_in)
{before}
neuron.run(condition=RunSteps(num_steps=4), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
for number, segment in enumerate(sorted(parent_watch.group_segments(os.getpid()))):
    pathlib.Path("segment-" + segment).touch()
{after}
"""


@pytest.fixture(params=["declared", "shim"])
def lava_python(request):
    from pspike_deploy.simulators.lava.environment import find_lava_python

    return find_lava_python(request.param)


@pytest.fixture
def make_lava_bundle(make_bundle):
    def make(**parts: str) -> Path:
        bundle = make_bundle("import parent_watch\n" + LAVA_RUN.format(**parts))
        shutil.copy(bundle_file("lava_compat.py"), bundle)
        return bundle

    return make


@pytest.mark.lava
def test_actors_that_lava_left_behind_are_ended(make_lava_bundle, folder, lava_python):
    bundle = make_lava_bundle(options="du=4095", before="finish()", after="os._exit(0)")
    assert run(bundle, folder, environment=lava_python).content == "done"
    assert len(list(folder.glob("segment-*"))) > 5
    assert nothing_is_left(folder)


@pytest.mark.lava
def test_a_lava_run_that_never_exits_is_ended(make_lava_bundle, folder, lava_python):
    # Without stop() the actors, which are no daemons, keep the interpreter for ever.
    bundle = make_lava_bundle(options="du=4095", before="finish()", after="")
    error = failure(bundle, folder, limit=8, environment=lava_python)
    assert error.code == "E-LAVA-TIMEOUT"
    assert len(list(folder.glob("segment-*"))) > 5
    assert nothing_is_left(folder)


@pytest.mark.lava
def test_an_exception_inside_an_actor_ends_the_run(make_lava_bundle, folder, lava_python):
    # A decay that is no integer cannot be cast in the actor. Lava either says so or hangs.
    remember = """
import threading
def remember():
    while True:
        for segment in parent_watch.group_segments(os.getpid()):
            pathlib.Path("segment-" + segment).touch()
        time.sleep(0.02)
threading.Thread(target=remember, daemon=True).start()
"""
    bundle = make_lava_bundle(options="du=0.5", before=remember, after="")
    error = failure(bundle, folder, limit=8, environment=lava_python)
    assert error.code in ("E-LAVA-TIMEOUT", "E-LAVA-CRASH")
    assert len(list(folder.glob("segment-*"))) > 5
    assert nothing_is_left(folder)
