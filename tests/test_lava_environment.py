"""Lava's Python is found in a fixed order, made once, and never used half-made."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pspike_deploy.errors import PspikeError
from pspike_deploy.simulators.lava import cache, environment, installation, interpreters
from pspike_deploy.simulators.lava.cache import LavaEnvironment, bundle_file
from pspike_deploy.simulators.lava.environment import (
    describe_environment,
    find_lava_python,
    setup_lava_environment,
)
from pspike_deploy.simulators.lava.interpreters import Interpreter, find_declared_python

RUNNING = ".".join(map(str, sys.version_info[:3]))


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """An empty cache folder, and no given Python."""
    monkeypatch.delenv(environment.PYTHON_VARIABLE, raising=False)
    monkeypatch.setenv(environment.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "lava"


def program(path: Path, output: str, status: int = 0) -> Path:
    """A program that prints one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{output}'\nexit {status}\n")
    path.chmod(0o755)
    return path


def cached(folder: Path, way: str, version: str, *, complete: bool = True) -> LavaEnvironment:
    """A cached environment whose Python only tells its version."""
    made = folder / f"{way}-py{version}-{cache.requirements_digest()}"
    program(made / "bin" / "python", version.rpartition(".")[0])
    versions = {"python": version, "numpy": "1.26.4", "lava": "0.10.0"}
    found = LavaEnvironment(made / "bin" / "python", way, versions, made)  # type: ignore[arg-type]
    if complete:
        cache.write_marker(found, made)
    return found


# --- the order of discovery -----------------------------------------------------------------------


def test_without_any_environment_the_error_names_the_command_that_makes_one(empty_cache):
    with pytest.raises(PspikeError) as caught:
        find_lava_python()
    assert caught.value.code == "E-LAVA-ENVIRONMENT"
    assert "pspike lava setup" in caught.value.fix
    assert str(empty_cache) in caught.value.why


def test_the_declared_python_is_preferred_and_each_way_can_be_asked_for(empty_cache):
    shim = cached(empty_cache, "shim", RUNNING)
    assert find_lava_python() == shim
    declared = cached(empty_cache, "declared", "3.10.13")
    assert find_lava_python() == declared
    assert find_lava_python("declared") == declared
    assert find_lava_python("shim") == shim


def test_of_two_shim_environments_that_of_the_running_python_is_preferred(empty_cache):
    cached(empty_cache, "shim", "3.11.0" if RUNNING != "3.11.0" else "3.11.1")
    running = cached(empty_cache, "shim", RUNNING)
    assert find_lava_python() == running


def test_a_way_that_was_not_made_is_not_replaced_by_the_other(empty_cache):
    cached(empty_cache, "shim", RUNNING)
    with pytest.raises(PspikeError, match="--way declared"):
        find_lava_python("declared")


def test_a_half_made_environment_is_not_used(empty_cache):
    cached(empty_cache, "declared", "3.10.13", complete=False)
    with pytest.raises(PspikeError, match="E-LAVA-ENVIRONMENT"):
        find_lava_python()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"way": "shim"}', '{"versions": 3}'])
def test_an_environment_with_a_damaged_marker_is_not_used(empty_cache, text):
    made = cached(empty_cache, "declared", "3.10.13")
    assert made.folder is not None
    (made.folder / "complete.json").write_text(text)
    with pytest.raises(PspikeError, match="E-LAVA-ENVIRONMENT"):
        find_lava_python()


def test_an_environment_whose_python_was_removed_or_upgraded_is_not_used(empty_cache):
    removed = cached(empty_cache, "declared", "3.10.13")
    upgraded = cached(empty_cache, "shim", "3.11.7")
    removed.python.unlink()
    removed.python.symlink_to("/nowhere/python3.10")
    program(upgraded.python, "3.12")
    with pytest.raises(PspikeError, match="E-LAVA-ENVIRONMENT"):
        find_lava_python()


def test_an_environment_for_other_requirements_is_not_used(empty_cache, tmp_path, monkeypatch):
    cached(empty_cache, "declared", "3.10.13")
    other = tmp_path / "lava-requirements.txt"
    other.write_text(bundle_file(other.name).read_text().replace("0.10.0", "0.10.1"))
    monkeypatch.setattr(cache, "bundle_file", lambda _name: other)
    assert cache.cached_environments() == []
    commented = bundle_file("lava-requirements.txt").read_text() + "\n# a comment\n"
    other.write_text(commented)
    assert len(cache.cached_environments()) == 1


def test_a_given_python_that_does_not_exist_is_one_clear_error(empty_cache, monkeypatch):
    cached(empty_cache, "declared", "3.10.13")
    monkeypatch.setenv(environment.PYTHON_VARIABLE, "/nowhere/python")
    with pytest.raises(PspikeError) as caught:
        find_lava_python()
    assert caught.value.code == "E-LAVA-ENVIRONMENT"
    assert caught.value.where == "/nowhere/python"
    assert environment.PYTHON_VARIABLE in caught.value.fix


def test_a_given_program_that_is_no_python_is_one_clear_error(empty_cache, tmp_path, monkeypatch):
    monkeypatch.setenv(environment.PYTHON_VARIABLE, str(program(tmp_path / "python", "hello")))
    with pytest.raises(PspikeError, match="E-LAVA-ENVIRONMENT"):
        find_lava_python()


def test_a_given_python_without_lava_is_one_clear_error(empty_cache, monkeypatch):
    monkeypatch.setenv(environment.PYTHON_VARIABLE, sys.executable)
    with pytest.raises(PspikeError) as caught:
        find_lava_python()
    assert caught.value.code == "E-LAVA-ENVIRONMENT"
    assert caught.value.where == sys.executable
    assert "Error" in caught.value.why  # the last line of the child's traceback


# --- what an environment has beyond Lava ----------------------------------------------------------


def with_netx(folder: Path, way: str, version: str) -> LavaEnvironment:
    """A cached environment that runs .net files, too."""
    made = folder / f"{way}-py{version}-{cache.requirements_digest(('netx',))}"
    program(made / "bin" / "python", version.rpartition(".")[0])
    versions = {"python": version, "numpy": "1.26.4", "lava": "0.10.0", "netx": "0.6.0"}
    found = LavaEnvironment(made / "bin" / "python", way, versions, made, ("netx",))  # type: ignore[arg-type]
    cache.write_marker(found, made)
    return found


def test_netx_is_another_environment_that_serves_without_it_too(empty_cache):
    assert cache.requirements_digest() != cache.requirements_digest(("netx",))
    plain = cached(empty_cache, "declared", "3.10.13")
    with pytest.raises(PspikeError, match="--with netx"):
        find_lava_python(extras=("netx",))
    both = with_netx(empty_cache, "declared", "3.10.13")
    assert find_lava_python() == plain
    assert find_lava_python(extras=("netx",)) == both
    assert plain.folder is not None
    (plain.folder / "complete.json").unlink()
    assert find_lava_python() == both


def test_an_environment_whose_marker_tells_no_netx_is_not_taken_for_one(empty_cache):
    both = with_netx(empty_cache, "declared", "3.10.13")
    assert both.folder is not None
    cache.write_marker(LavaEnvironment(both.python, "declared", both.versions), both.folder)
    assert cache.cached_environments() == []


def test_a_set_up_with_netx_adds_to_what_there_is(empty_cache, monkeypatch):
    ran = stub_tools(monkeypatch)
    plain = setup_lava_environment(way="shim")
    both = setup_lava_environment(way="shim", extras=("netx",))
    assert both.extras == ("netx",)
    assert both.folder != plain.folder
    assert setup_lava_environment(way="shim", extras=("netx",)) == both
    assert ran == ["venv", "pip"] * 2
    with pytest.raises(PspikeError, match="E-USAGE"):
        setup_lava_environment(extras=("torch",))  # type: ignore[arg-type]


def test_requirements_of_netx_are_pinned_and_hold_no_torch():
    _, netx = cache.requirement_files(("netx",))
    pins = [line for line in netx.read_text().splitlines() if line and line[0] not in "#-"]
    assert pins == ["lava-dl==0.6.0", "h5py==3.16.0"]


# --- interpreters ---------------------------------------------------------------------------------


def fake_python(path: Path, version: tuple[int, int, int], implementation: str = "cpython") -> Path:
    return program(path, json.dumps([implementation, str(path), version]))


@pytest.fixture
def bare_machine(tmp_path, monkeypatch):
    """A machine with no Python to be found."""
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in ("one", "two")))
    return tmp_path


def test_a_stand_in_that_fails_does_not_hide_a_python_that_works(bare_machine):
    program(bare_machine / "one" / "python3.10", "python3.10: command not found", status=127)
    works = fake_python(bare_machine / "two" / "python3.10", (3, 10, 4))
    assert find_declared_python() == Interpreter(works, (3, 10, 4))


def test_only_a_cpython_of_the_declared_version_is_taken(bare_machine):
    fake_python(bare_machine / "one" / "python3.10", (3, 10, 4), "pypy")
    fake_python(bare_machine / "one" / "python3", (3, 12, 0))
    assert find_declared_python() is None
    plain = fake_python(bare_machine / "two" / "python", (3, 10, 1))
    assert find_declared_python() == Interpreter(plain, (3, 10, 1))


def test_the_newest_of_pyenvs_versions_is_taken(bare_machine):
    for micro in (2, 13, 9):
        folder = bare_machine / "pyenv" / "versions" / f"3.10.{micro}" / "bin"
        fake_python(folder / "python3.10", (3, 10, micro))
    found = find_declared_python()
    assert found is not None
    assert found.version_text == "3.10.13"


def test_uv_is_asked_where_it_exists(bare_machine):
    managed = fake_python(bare_machine / "managed" / "python3.10", (3, 10, 20))
    program(bare_machine / "one" / "uv", str(managed))
    assert find_declared_python() == Interpreter(managed, (3, 10, 20))


def test_variables_that_lead_another_python_astray_are_dropped(monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    variables = interpreters.clean_environment()
    assert not {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"} & set(variables)
    assert variables["HTTPS_PROXY"] == "http://proxy"


# --- set-up ---------------------------------------------------------------------------------------


def stub_tools(monkeypatch: pytest.MonkeyPatch, *, spikes: Any = None) -> list[str]:
    """Replace venv, pip and the test network; returns the names of the tools that ran."""
    ran: list[str] = []

    def run_tool(command: list[Any], name: str, _lock: int, _error: Any) -> None:
        ran.append(name)
        if name == "venv":
            program(Path(command[-1]) / "bin" / "python", RUNNING.rpartition(".")[0])

    versions = {"python": RUNNING, "numpy": "2.3.5", "lava": "0.10.0"}
    found = {"versions": versions, "spikes": spikes or installation._SMOKE_SPIKES}
    monkeypatch.setattr(installation, "run_tool", run_tool)
    monkeypatch.setattr(installation, "smoke_test", lambda _environment, _what: found)
    return ran


def test_a_set_up_makes_an_environment_once(empty_cache, monkeypatch):
    ran = stub_tools(monkeypatch)
    said: list[str] = []
    first = setup_lava_environment(way="shim", progress=said.append)
    assert first == setup_lava_environment(way="shim") == setup_lava_environment() == first
    assert first == find_lava_python()
    assert ran == ["venv", "pip"]
    assert len(said) == 4


def test_a_half_made_environment_is_made_again(empty_cache, monkeypatch):
    half = cached(empty_cache, "shim", RUNNING, complete=False)
    assert half.folder is not None
    (half.folder / "rubbish").touch()
    ran = stub_tools(monkeypatch)
    assert setup_lava_environment(way="shim").folder == half.folder
    assert ran == ["venv", "pip"]
    assert not (half.folder / "rubbish").exists()


@pytest.mark.parametrize("exception", [KeyboardInterrupt, OSError])
def test_an_interrupted_set_up_leaves_no_environment(empty_cache, monkeypatch, exception):
    stub_tools(monkeypatch)

    def fail(_environment: object, _what: str) -> None:
        raise exception

    monkeypatch.setattr(installation, "smoke_test", fail)
    with pytest.raises((KeyboardInterrupt, PspikeError)):
        setup_lava_environment(way="shim")
    assert [path.suffix for path in empty_cache.iterdir()] == [".lock"]


def test_an_environment_that_computes_something_else_is_refused(empty_cache, monkeypatch):
    stub_tools(monkeypatch, spikes=[[0] * 8] * 2)
    with pytest.raises(PspikeError, match="E-LAVA-SETUP") as caught:
        setup_lava_environment(way="shim")
    assert "computes something else" in caught.value.what
    assert cache.cached_environments() == []


def test_auto_falls_back_to_the_shim_where_the_declared_python_fails(empty_cache, monkeypatch):
    stub_tools(monkeypatch)
    install = installation._install

    def fail_on_declared(interpreter: Interpreter, *rest: Any) -> LavaEnvironment:
        if interpreter.version[:2] == (3, 10):
            raise PspikeError("E-LAVA-SETUP", "pip failed")
        return install(interpreter, *rest)

    old = Interpreter(Path("/old/python3.10"), (3, 10, 4))
    monkeypatch.setattr(installation, "find_declared_python", lambda: old)
    monkeypatch.setattr(installation, "_install", fail_on_declared)
    said: list[str] = []
    assert setup_lava_environment(progress=said.append).way == "shim"
    assert "pip failed" in said[0]
    with pytest.raises(PspikeError, match="pip failed"):
        setup_lava_environment(way="declared")


def test_declared_without_a_python_3_10_says_where_it_looked(empty_cache, monkeypatch):
    monkeypatch.setattr(installation, "find_declared_python", lambda: None)
    with pytest.raises(PspikeError) as caught:
        setup_lava_environment(way="declared")
    assert caught.value.code == "E-LAVA-SETUP"
    assert "pyenv" in caught.value.why
    assert "--way shim" in caught.value.fix


def test_a_chosen_python_must_run_and_fit_the_way(empty_cache, tmp_path):
    broken = program(tmp_path / "python3.10", "no", status=1)
    ancient = fake_python(tmp_path / "python3.9", (3, 9, 18))
    for python, way in ((broken, "auto"), (ancient, "auto"), (sys.executable, "declared")):
        with pytest.raises(PspikeError, match="E-LAVA-SETUP"):
            setup_lava_environment(str(python), way)  # type: ignore[arg-type]
    with pytest.raises(PspikeError, match="E-USAGE"):
        setup_lava_environment(way="conda")  # type: ignore[arg-type]


def test_a_cache_that_cannot_be_written_is_one_clear_error(empty_cache, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(environment.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(PspikeError, match="E-LAVA-SETUP") as caught:
        setup_lava_environment(way="shim")
    assert environment.CACHE_VARIABLE in caught.value.fix


def test_a_disk_that_is_full_at_the_end_leaves_no_environment(empty_cache, monkeypatch):
    def install(_interpreter, folder, _extras, _lock, _progress):
        folder.mkdir(parents=True)
        cache.write_marker(LavaEnvironment(folder / "bin" / "python", "shim", {}, folder), folder)

    def full(*_paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(installation, "_install", install)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(PspikeError, match="E-LAVA-SETUP") as caught:
        setup_lava_environment(way="shim")
    assert "the disk is full" in caught.value.why
    assert [path.suffix for path in empty_cache.iterdir()] == [".lock"]


def test_a_marker_appears_whole_and_alone(tmp_path):
    made = LavaEnvironment(tmp_path / "bin" / "python", "shim", {"python": RUNNING}, tmp_path)
    cache.write_marker(made, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["complete.json"]


def test_a_failing_tool_is_an_error_with_its_last_lines(tmp_path):
    script = "for n in range(99): print('line', n)\nraise SystemExit('ERROR: No matching release')"
    with (tmp_path / "lock").open("w") as lock, pytest.raises(PspikeError) as caught:
        installation.run_tool(
            [sys.executable, "-c", script], "pip", lock.fileno(), installation._setup_error
        )
    assert caught.value.code == "E-LAVA-SETUP"
    assert "ERROR: No matching release" in caught.value.why
    assert "line 98" in caught.value.why
    assert "line 9\n" not in caught.value.why


# --- several set-ups at once ----------------------------------------------------------------------

# A set-up with stubs for the tools, in a program of its own. Its installer takes a while, notes
# that it ended, and is a real child that inherits the lock.
STUB_SETUP = """
import sys, time
from pathlib import Path
from pspike_deploy.simulators.lava import installation
from pspike_deploy.simulators.lava.cache import LavaEnvironment, write_marker

log, seconds = sys.argv[1:]

def install(interpreter, folder, extras, lock, progress):
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    note = f"import time; open({log!r}, 'a').write('begin '); time.sleep({seconds}); "
    note += f"open({log!r}, 'a').write('end ')"
    installation.run_tool([sys.executable, "-c", note], "pip", lock, installation._setup_error)
    versions = {"python": interpreter.version_text, "numpy": "2.3.5", "lava": "0.10.0"}
    made = LavaEnvironment(folder / "bin" / "python", "shim", versions, folder)
    write_marker(made, folder)
    return made

installation._install = install
print(installation.setup_lava_environment(way="shim").folder)
"""


def start_setup(log: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STUB_SETUP, str(log), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_of_concurrent_set_ups_one_installs_and_the_others_wait(empty_cache, tmp_path):
    log = tmp_path / "log"
    setups = [start_setup(log, 1) for _ in range(3)]
    folders = {setup.communicate(timeout=60)[0] for setup in setups}
    assert [setup.returncode for setup in setups] == [0, 0, 0]
    assert len(folders) == 1
    assert log.read_text() == "begin end "


def test_a_set_up_after_a_killed_one_waits_for_its_installer(empty_cache, tmp_path):
    log = tmp_path / "log"
    killed = start_setup(log, 3)
    wait_for(log, "begin")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    again = start_setup(log, 0)
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert log.read_text() == "begin end begin end "


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_set_up_ends_its_installer_and_removes_the_rest(
    empty_cache, tmp_path, number
):
    log = tmp_path / "log"
    interrupted = start_setup(log, 60)
    wait_for(log, "begin")
    interrupted.send_signal(number)
    interrupted.communicate(timeout=30)
    assert interrupted.returncode == -number
    assert [path.suffix for path in empty_cache.iterdir()] == [".lock"]


# --- what is pinned, what is told -----------------------------------------------------------------


def test_every_requirement_is_pinned_and_lava_once():
    lines = bundle_file("lava-requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith(("#", "-"))]
    assert all("==" in pin for pin in pins)
    assert [pin for pin in pins if pin.startswith("lava-nc")] == ["lava-nc==0.10.0"]
    numpy = [pin.split()[0] for pin in pins if pin.startswith("numpy")]
    assert numpy == ["numpy==1.26.4", "numpy==2.3.5"]


def test_the_description_explains_a_missing_environment(empty_cache):
    description = describe_environment()
    assert description["environment"] is None
    assert description["error"]["code"] == "E-LAVA-ENVIRONMENT"
    assert description["cached"] == []
    cached(empty_cache, "declared", "3.10.13")
    description = json.loads(json.dumps(describe_environment()))
    assert description["environment"]["way"] == "declared"
    assert description["error"] is None


@pytest.mark.parametrize(
    ("system", "supported", "word"),
    [("linux", "yes", "runs"), ("darwin", "unknown", "hang"), ("win32", "no", "not run")],
)
def test_the_platform_is_told(empty_cache, monkeypatch, system, supported, word):
    monkeypatch.setattr(sys, "platform", system)
    description = describe_environment()
    assert description["supported"] == supported
    assert word in description["note"]


def test_windows_is_refused(empty_cache, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(PspikeError, match="does not run on Windows"):
        setup_lava_environment()


def test_the_toolchain_imports_neither_lava_nor_torch():
    code = "import sys, pspike_deploy.simulators.lava.environment; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"lava", "torch", "numba", "matplotlib"} & set(modules)


# --- the real environments ------------------------------------------------------------------------


@pytest.mark.lava
@pytest.mark.parametrize("way", ["declared", "shim"])
def test_lava_runs_a_network_in_the_environment_of_each_way(way):
    found = find_lava_python(way)
    assert found.way == way
    assert (found.versions["python"] < "3.11") == (way == "declared")
    smoke = cache.smoke_test(found, "network")
    assert smoke["spikes"] == installation._SMOKE_SPIKES
    assert smoke["versions"] == found.versions


def processor_time() -> float:
    """Processor time of this program and its children, in seconds; other programs do not count."""
    return sum(os.times()[:4])


@pytest.mark.lava
@pytest.mark.parametrize("way", ["declared", "shim"])
def test_a_set_up_that_has_nothing_to_do_is_quick(way):
    find_lava_python(way)  # else this test would install it
    start = processor_time()
    setup_lava_environment(way=way)
    assert processor_time() - start < 2  # 0.05 s; an installation takes much more


@pytest.mark.lava
def test_a_given_lava_python_comes_first(monkeypatch):
    shim = find_lava_python("shim")
    monkeypatch.setenv(environment.PYTHON_VARIABLE, str(shim.python))
    given = find_lava_python()
    assert (given.way, given.python) == ("given", shim.python)
    assert given.versions.items() <= shim.versions.items()
    assert find_lava_python("declared").way == "declared"
