"""The environment variables for metrics, their socket, watchdog, poller."""

import os
import re

import pytest
from builds import FREE_THREADED

CODE = """
loop = new_loop()
print(loop._read_metrics() is not None)
from fastloop.observe import metrics_socket
print(metrics_socket._server and "socket" or "")
print(loop._fastloop_watchdog and loop._fastloop_watchdog._limit_s)
loop.close()
"""
METRICS, SOCKET = "FASTLOOP_METRICS", "FASTLOOP_METRICS_SOCKET"
WATCHDOG = "FASTLOOP_WATCHDOG"
SECONDS = "the watchdog's limit is a number of seconds from 0.01 on, not"


@pytest.fixture
def tell(fast_script):
    """tell(**variables) says if metrics are on, the socket, the watchdog's
    limit, and the warnings.
    """

    def tell(**variables):
        variables = {METRICS: "", SOCKET: "", WATCHDOG: "", **variables}
        done = fast_script(CODE, quiet=False, **variables)
        on, path, limit = done.stdout.splitlines()
        said = re.findall("RuntimeWarning: (.*)", done.stderr)
        return on == "True", path, limit, said

    return tell


@pytest.mark.parametrize("word", ["", "0", "false", "No", "OFF"])
def test_a_word_for_no_turns_nothing_on(tell, word):
    words = dict.fromkeys((METRICS, SOCKET, WATCHDOG), word)
    assert tell(**words) == (False, "", "None", [])


def test_metrics_are_turned_on(tell):
    assert tell(**{METRICS: "1"}) == (True, "", "None", [])


@pytest.mark.skipif(FREE_THREADED, reason="there is no watchdog without a GIL")
@pytest.mark.parametrize(("value", "limit"), [("0.5", "0.5"), ("1", "1.0")])
def test_the_watchdog_is_turned_on(tell, value, limit):
    assert tell(**{WATCHDOG: value})[1:] == ("", limit, [])


def test_a_socket_is_opened(tell, tmp_path):
    found = tell(**{SOCKET: "1"}, TMPDIR=str(tmp_path))
    assert found == (True, "socket", "None", [])


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        (WATCHDOG, "half", ": could not convert string to float: 'half'"),
        (WATCHDOG, "0.001", f": {SECONDS} 0.001"),
    ],
)
def test_another_word_is_a_warning_and_turns_nothing_on(
    tell, name, value, says
):
    *found, (warning,) = tell(**{name: value})
    assert found == [False, "", "None"]
    assert warning.startswith(name + says)


def test_a_socket_that_fails_is_a_warning(tell, tmp_path):
    """The program did not ask for it, and does without."""
    (tmp_path / f"fastloop-{os.geteuid()}").touch()
    on, made, _, (warning,) = tell(**{SOCKET: "1"}, TMPDIR=str(tmp_path))
    assert on and not made
    assert warning.startswith(f"{SOCKET}: ")


def test_the_poller_may_be_libuvs_and_no_other(fast_script):
    fast_script("""
def files_of_a_loop():
    loop = new_loop()
    loop.run_until_complete(asyncio.sleep(0.001))
    files = os.listdir("/dev/fd")
    loop.close()
    return len(files)

os.environ["FASTLOOP_POLLER"] = ""
ours = files_of_a_loop()
os.environ["FASTLOOP_POLLER"] = "libuv"
assert files_of_a_loop() > ours or sys.platform != "linux"
os.environ["FASTLOOP_POLLER"] = "kqueue"
try:
    new_loop()
except ValueError as exc:
    said = str(exc)
assert said == "FASTLOOP_POLLER is 'kqueue', and may only be 'libuv'"
""")
