"""How a process ends on a signal: each case is a program of its own, which gets one."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from rootdata.shutdown import signals
from rootdata.shutdown.signals import Ending

BOTH = (signal.SIGTERM, signal.SIGINT)
BEGIN = """
import ctypes, os, signal, subprocess, sys, threading, time
from rootdata.shutdown import signals
from rootdata.shutdown.signals import Ending, Stopped
signals.AGAIN_AFTER = 0.2

def ready():
    print("ready", flush=True)

def run_for(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)

def hang():
    # a call that does not return for a signal; it is said when it was made
    main, place = threading.get_ident(), None

    def look():
        nonlocal place
        while place != (place := (frame := sys._current_frames()[main], frame.f_lasti)):
            time.sleep(0.2)
        ready()

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
    threading.Thread(target=look, daemon=True).start()
    signal.sigwait([signal.SIGUSR1])
"""


def start(program, **environment):
    """Start a program, and wait until it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + textwrap.dedent(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


def end(process, signum=None):
    """Send a signal, and return status, what was printed, and the seconds that it took."""
    began = time.monotonic()
    if signum is not None:
        process.send_signal(signum)
    try:
        printed, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, printed + errors, time.monotonic() - began


@pytest.mark.parametrize(("signum", "name"), [(signal.SIGTERM, "Stopped"), (signal.SIGINT, "KeyboardInterrupt")])
def test_the_main_thread_can_clean_up(signum, name):
    program = """
    with Ending():
        try:
            ready()
            run_for(60)
        except BaseException as error:
            print(type(error).__name__)
            raise
    """
    status, printed, _ = end(start(program), signum)
    assert status == {signal.SIGTERM: 143, signal.SIGINT: -signal.SIGINT}[signum]
    assert printed.startswith(f"{name}\n")


def test_what_was_swallowed_is_raised_again():
    program = """
    with Ending() as ending:
        for moment in (ready, None):
            try:
                moment and moment()
                run_for(60)
            except SystemExit:
                print("swallowed", flush=True)
        try:
            run_for(60)
        except SystemExit:
            ending.arrived()
            run_for(0.6)
            print("arrived")
            raise
    """
    status, printed, _ = end(start(program), signal.SIGTERM)
    assert (status, printed) == (143, "swallowed\nswallowed\narrived\n")


def test_what_came_while_an_object_was_cleared_up_is_raised_again_without_a_word():
    program = """
    class Thing:
        def __del__(self):
            ready()
            run_for(60)

    with Ending() as ending:
        thing = Thing()
        del thing
        run_for(60)
    """
    status, printed, seconds = end(start(program), signal.SIGTERM)
    assert (status, printed) == (143, "")
    assert seconds < 10


@pytest.mark.long
@pytest.mark.parametrize(("step", "is_done"), [(1, True), (60, False)])
def test_a_step_may_finish_for_half_of_the_time(step, is_done):
    program = f"""
    with Ending(within=6) as ending:
        ending.is_held = True
        ready()
        run_for({step})
        print("done", ending.signum)
        raise SystemExit(143)
    """
    status, printed, seconds = end(start(program), signal.SIGTERM)
    assert (status, printed) == (143, "done 15\n" if is_done else "")
    assert seconds < 10


OTHER = """
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stderr=subprocess.DEVNULL)
"""


@pytest.mark.long
@pytest.mark.parametrize("signum", BOTH)
def test_a_rank_that_hangs_is_ended_and_tells_the_others_before(signum):
    program = """
    with Ending(within=2, say=lambda signum: print("said", signum, other.wait(), flush=True)) as ending:
        ending.meet([other.pid, os.getpid()])
        hang()
    """
    status, printed, seconds = end(start(OTHER + textwrap.dedent(program)), signum)
    assert status == 128 + signum
    assert printed.splitlines()[-1] == f"said {int(signum)} {-signum}"
    assert seconds < 10


def test_a_process_without_others_is_not_ended_while_it_works():
    program = """
    with Ending(within=0.2) as ending:
        ending.is_held = True
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            ready()
            time.sleep(1)  # a library that does not return
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            run_for(60)
        except SystemExit:
            ending.arrived()
            print("cleaned up")
            raise
    """
    assert end(start(program), signal.SIGTERM)[:2] == (143, "cleaned up\n")


@pytest.mark.long
def test_a_sentence_that_can_not_be_printed_holds_up_nothing():
    program = """
    with Ending(within=1, say=lambda _: time.sleep(60)) as ending:
        ending.meet([other.pid])
        hang()
    """
    status, _, seconds = end(start(OTHER + textwrap.dedent(program)), signal.SIGTERM)
    assert status == 143
    assert seconds < 10


def test_what_a_forked_process_gets_is_its_own():
    program = """
    with Ending() as ending:
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.write(write, b"ready")
            run_for(60)
        os.read(read, 5)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        run_for(0.5)
        print(os.waitstatus_to_exitcode(status), ending.signum)
        ready()
    """
    process = subprocess.run(
        [sys.executable, "-c", BEGIN + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (process.returncode, process.stdout) == (0, "-15 None\nready\n"), process.stderr


@pytest.mark.parametrize(("how", "status"), [("os.kill(other.pid, 15)", 143), ("os.kill(other.pid, 2)", 130)])
def test_a_rank_that_a_signal_ended_early_ends_who_started_it(how, status):
    program = f"""
    class Launcher:
        procs = [other]

    with Ending() as ending:
        ending.expect(Launcher)
        ready()
        {how}
        try:
            run_for(60)
        except (SystemExit, KeyboardInterrupt):
            print(len(Launcher.procs))
            os._exit(128 + ending.signum)
    """
    assert end(start(OTHER + textwrap.dedent(program)))[:2] in [(status, "0\n"), (status, "")]


@pytest.mark.long
@pytest.mark.parametrize("environment", ["TORCHELASTIC_RUN_ID=run", "ROOTDATA_STARTER={}", ""])
def test_a_rank_ends_with_who_started_it(tmp_path, environment):
    rank = tmp_path / "rank.py"
    rank.write_text(
        BEGIN + "with Ending() as ending:\n    ready()\n    try:\n        run_for(3)\n    finally:\n"
        "        open(sys.argv[1], 'w').write(str(ending.signum))\n"
    )
    program = f"""
    name, _, value = {environment!r}.format(os.getpid()).partition("=")
    os.environ |= {{name: value}} if name else {{}}
    rank = subprocess.Popen([sys.executable, {str(rank)!r}, {str(tmp_path / "signum")!r}])
    run_for(60)
    """
    status, _, _ = end(start(program), signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert (tmp_path / "signum").read_text() == ("15" if environment else "None")


def test_the_handler_of_somebody_else_is_called_too():
    program = """
    signal.signal(signal.SIGTERM, lambda *_: print("theirs", flush=True))
    with Ending() as ending:
        ready()
        run_for(60)
    """
    assert end(start(program), signal.SIGTERM)[:2] == (143, "theirs\n")


def test_what_is_ignored_stays_ignored():
    program = """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Ending() as ending:
        ready()
        os.kill(os.getpid(), signal.SIGINT)
        run_for(0.5)
        print(ending.signum)
    """
    assert end(start(program))[:2] == (0, "None\n")


def test_everything_is_given_back():
    def taken():
        return [signal.getsignal(s) for s in BOTH], threading.active_count(), len([*Path("/proc/self/fd").iterdir()])

    before = taken()
    with Ending() as one:
        assert Ending.current() is one
        assert all(signal.getsignal(signum) is one for signum in BOTH)
    assert Ending.current() is None
    assert taken() == before


def test_a_thread_takes_over_nothing():
    found = []
    thread = threading.Thread(target=lambda: (Ending().open(), found.append(Ending.current())))
    thread.start(), thread.join()
    assert found == [None]


def test_a_handler_that_stayed_behind_does_what_was_done_before(capfd):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("theirs"))
    try:
        with Ending() as one:
            pass
        signal.signal(signal.SIGTERM, one)  # as a trainer does that gives back what it found
        signal.raise_signal(signal.SIGTERM)
        assert heard == ["theirs"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_one_that_stayed_behind_is_not_asked_again():
    program = """
    for _ in range(3):
        with Ending() as one:
            pass
        signal.signal(signal.SIGTERM, one)
    with Ending():
        try:
            ready()
            run_for(60)
        except SystemExit:
            print("cleaned up")
            raise
    """
    assert end(start(program), signal.SIGTERM)[:2] == (143, "cleaned up\n")


def test_a_number_of_another_process_is_not_signalled():
    """A rank that is gone may have left its number to a stranger."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    send = signals.sender(process.pid)
    process.wait()
    with pytest.raises(ProcessLookupError):
        send(signal.SIGTERM)
