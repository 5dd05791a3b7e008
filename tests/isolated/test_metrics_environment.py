"""The environment variables that turn metrics on and open a socket."""

import re

import pytest

CODE = """
loop = new_loop()
print(loop._read_metrics() is not None)
from fastloop.observe import metrics_socket
print(*metrics_socket._servers)
loop.close()
"""
SOCKET = "FASTLOOP_METRICS_SOCKET"


@pytest.fixture
def tell(fast_script):
    """tell(**variables) says if metrics are on, the socket, and warnings."""

    def tell(**variables):
        variables = {"FASTLOOP_METRICS": "", SOCKET: "", **variables}
        done = fast_script(CODE, quiet=False, **variables)
        on, path = done.stdout.splitlines()
        said = re.findall("RuntimeWarning: (.*)", done.stderr)
        return on == "True", path, said

    return tell


def test_metrics_are_turned_on(tell):
    assert tell(FASTLOOP_METRICS="1") == (True, "", [])


@pytest.mark.parametrize("word", ["", "0", "false", "No", "OFF"])
@pytest.mark.parametrize("name", ["FASTLOOP_METRICS", SOCKET])
def test_a_word_for_no_turns_nothing_on(tell, name, word):
    assert tell(**{name: word}) == (False, "", [])


def test_a_name_without_a_folder_is_a_warning_and_opens_nothing(tell):
    *found, (warning,) = tell(**{SOCKET: "x.sock"})
    assert found == [False, ""]
    assert warning.startswith(f"{SOCKET}=x.sock: ")


def test_a_path_is_a_sockets(tell, tmp_path):
    on, path, said = tell(**{SOCKET: f"{tmp_path}/{{pid}}.sock"})
    assert on and said == []
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}/\d+\.sock", path)


def test_a_socket_that_fails_is_a_warning(tell, tmp_path):
    """The program did not ask for it, and does without."""
    path = f"{tmp_path}/none/x.sock"
    on, made, (warning,) = tell(**{SOCKET: path})
    assert on and not made
    assert warning.startswith(f"{SOCKET}={path}: ")
