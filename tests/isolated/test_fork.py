"""After a fork: the child's loops, new or the parent's, are its own."""

import itertools
import sysconfig
from pathlib import Path

import pytest
from isolated_scripts import FORKED, SERVED

BEFORE = (
    FORKED
    + SERVED
    + """
def c_child():
    '''Fork as C code does: no handler of Python's runs.  True: the child.'''
    import ctypes
    sys.stdout.flush()
    pid = ctypes.PyDLL(None).fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return not pid

async def connections(count):
    '''Transports that a server has accepted, and plain sockets.'''
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    before = len(made)
    fars = [socket.create_connection(address) for _ in range(count)]
    for far in fars:
        far.settimeout(10)
    await until(lambda: len(made) == before + count)
    server.close()
    return [one.transport for one in made[before:]], fars
"""
)
#: It is a warning to fork with threads.
FLAGS = ("-W", "ignore::DeprecationWarning")


PROGRAMS = {
    "a_wake_up_on_its_way_at_the_fork": """
loop = new_loop()
sys.setswitchinterval(60)  # the thread keeps the GIL while it spins
timer_ns = 20_000_000

def in_thread():
    began.wait()
    while time.monotonic_ns() < began_ns + 2 * timer_ns:
        pass  # the timer ends the loop's poll, which then waits for the GIL
    loop.call_soon_threadsafe(fork)

def fork():
    pid = os.fork()
    if pid:
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        loop.stop()
        return
    signal.alarm(10)  # the wake-up comes while the child's loop waits
    threading.Timer(0.1, loop.call_soon_threadsafe, (os._exit, 0)).start()

began, statuses = threading.Event(), []
thread = threading.Thread(target=in_thread)
thread.start()
began_ns = time.monotonic_ns()
loop.call_later(timer_ns / 1e9, int)
loop.call_soon(began.set)
loop.run_forever()
thread.join()
loop.close()
assert statuses == [0]
""",
    # A child has a copy of it, sends what it writes itself, and ends its
    # transports.
    "what_a_callback_holds_at_a_fork_is_sent_once": """
async def main():
    (transport,), (far,) = await connections(1)
    transport.write(b"head ")
    transport.write(b"body ")
    assert child(lambda: transport.writelines([b"1", b"2 "])) == 0
    codes = []
    forks = threading.Thread(
        target=lambda: codes.append(child(transport.abort))
    )
    transport.write(b"more ")
    forks.start()
    forks.join()
    assert codes == [0]
    transport.write(b"end")
    got = b""
    while len(got) < 21:  # it leaves while this goes on
        got += far.recv(1000)
    assert got == b"head body 12 more end", got
    transport.close()
    return far

loop = new_loop()
far = loop.run_until_complete(main())
loop.run_until_complete(asyncio.sleep(0))
loop.close()
assert far.recv(1000) == b""
far.close()
""",
    # A flush of many connections is made without the GIL.
    "a_child_that_leaves_the_run_sends_nothing_of_its_parents": """
async def main():
    served, fars = await connections(20)

    def step():
        for transport in served:
            transport.write(b"x")
        time.sleep(0.0003)
        if c_child():
            raise SystemExit

    for _ in range(10):
        loop.call_soon(step)
        await asyncio.sleep(0)
    for transport in served:
        transport.close()
    await asyncio.sleep(0)
    for far in fars:
        with far:
            assert far.recv(99) == b"x" * 10
            assert far.recv(99) == b""

loop = new_loop()
try:
    loop.run_until_complete(main())
except SystemExit:
    os._exit(0)
loop.close()
""",
    # The thread that sends it is no reason to warn, and the child gets one of
    # its own.
    "what_a_callback_kept_for_long_is_sent_once": """
import contextlib, warnings
warnings.simplefilter("always", DeprecationWarning)  # os.fork() raises none

async def in_child():
    (transport,), (far,) = await connections(1)
    transport.write(b"kept")
    assert far.recv(9) == b"kept"
    transport.abort()
    far.close()

def run():
    asyncio._set_running_loop(None)
    with contextlib.closing(new_loop()) as own:
        own.run_until_complete(in_child())

async def main():
    (transport,), (far,) = await connections(1)
    for number in range(12):
        await asyncio.sleep(0)
        transport.write(b"kept")
        if number % 3:
            assert far.recv(9) == b"kept"
        if number % 2:
            assert child(run) == 0
        elif c_child():
            os._exit(child(run))
        transport.write(b"more")
        size = 4 if number % 3 else 8
        got = b""
        while len(got) < size:
            got += far.recv(9)
        assert got == b"keptmore"[-size:], got
    transport.close()
    await asyncio.sleep(0)
    assert far.recv(9) == b""
    far.close()

with contextlib.closing(new_loop()) as loop:
    loop.run_until_complete(main())
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_after_a_fork(script, name):
    script(PROGRAMS[name])


#: asyncio's child shares the epoll set; from 3.12 on no handler runs there.
FASTLOOP_PROGRAMS = {
    "a_parents_loop_works_in_the_child": """
loop = new_loop()
near, far = socket.socketpair()
loop.run_until_complete(asyncio.sleep(0.0001))

def run():
    async def main():
        seen = loop.create_future()
        loop.add_reader(near, lambda: seen.set_result(near.recv(9)))
        loop.add_signal_handler(signal.SIGUSR1, far.send, b"signal")
        loop.call_later(0.0003, os.kill, os.getpid(), signal.SIGUSR1)
        assert await seen == b"signal"
        loop.remove_reader(near)
        assert await asyncio.to_thread(pow, 2, 5) == 32
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()

for _ in range(2):
    assert child(run) == 0
    watch = loop.create_future()
    loop.add_reader(near, lambda: watch.set_result(near.recv(9)))
    far.send(b"x")
    assert loop.run_until_complete(watch) == b"x"
    assert loop.run_until_complete(asyncio.sleep(0.0003, 5)) == 5
    loop.remove_reader(near)
loop.close()
""",
    # The child has the event of the parent's pipe in its queue.
    "a_signal_before_the_fork_is_the_parents": """
loop = new_loop()
seen, codes = [], []
loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)

def send():
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.call_soon(fork)

def fork():
    pid = os.fork()
    if pid:
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        loop.call_later(0.005, loop.stop)
    else:
        loop.call_later(0.005, lambda: os._exit(len(seen)))

loop.call_soon(send)
loop.run_forever()
assert (seen, codes) == ([1], [0]), (seen, codes)
loop.close()
""",
    # What the parent learned of a socket is no knowledge of the child's.
    "a_child_waits_for_its_parents_sockets": """
loop = new_loop()
with socket.create_server(("127.0.0.1", 0)) as listener:
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
near.setblocking(False)

async def exchange():
    for message in (b"one", b"two"):
        task = loop.create_task(loop.sock_recv(near, 9))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        far.send(message)
        assert await task == message

def run():
    loop.run_until_complete(exchange())
    loop.close()

for _ in range(3):
    loop.run_until_complete(exchange())
    assert child(run) == 0
    far.send(b"early")
    assert loop.run_until_complete(loop.sock_recv(near, 9)) == b"early"
    far.send(b"childs")
    assert child(lambda: loop.run_until_complete(
        loop.sock_recv(near, 9)) != b"childs") == 0
loop.run_until_complete(exchange())
near.close()
far.close()
loop.close()
""",
    "a_child_of_c_code_leaves_its_parents_watches_alone": """
loop = new_loop()
near, far = socket.socketpair()
seen = []
loop.add_reader(near, lambda: seen.append(near.recv(9)))
loop.run_until_complete(asyncio.sleep(0))
if c_child():
    loop.remove_reader(near)
    os._exit(0)
far.send(b"x")
loop.run_until_complete(asyncio.sleep(0.001))
assert seen == [b"x"], seen
loop.remove_reader(near)
loop.close()
near.close()
far.close()
""",
    "a_childs_signal_is_not_its_parents": """
seen = []
loop = new_loop()
loop.add_signal_handler(signal.SIGUSR1, seen.append, "signal")

def kill():
    os.kill(os.getpid(), signal.SIGUSR1)

async def main():
    await asyncio.sleep(0)
    assert child(kill) == 0
    await asyncio.sleep(0.01)

loop.run_until_complete(main())
assert child(kill) == 0
loop.run_until_complete(asyncio.sleep(0.01))
assert seen == []
loop.call_soon(kill)
loop.run_until_complete(asyncio.sleep(0.01))
assert seen == ["signal"]
loop.close()
""",
    "a_child_waits_for_no_work_of_its_parent": """
started, gate = threading.Event(), threading.Event()
def job():
    started.set()
    gate.wait()
loop = new_loop()
jobs = [loop.run_in_executor(None, job) for _ in range(40)]
started.wait()
pid = os.fork()
if not pid:
    sys.exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
gate.set()
loop.run_until_complete(asyncio.gather(*jobs))
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
""",
    # asyncio takes the wake-up fd from a child from 3.12 on.
    "a_daemon_gets_the_signals_whose_handlers_it_added_before": """
seen = []
loop = new_loop()
loop.add_signal_handler(signal.SIGUSR1, lambda: (seen.append(1), loop.stop()))
loop.run_until_complete(asyncio.sleep(0.001))

def run():
    loop.call_later(0.01, os.kill, os.getpid(), signal.SIGUSR1)
    loop.run_forever()
    assert loop.remove_signal_handler(signal.SIGUSR1)
    loop.close()
    return not seen

assert child(run) == 0
assert seen == []
loop.close()
""",
    "a_child_waits_whatever_is_in_its_parents_pipe": """
loop = new_loop()
loop.add_signal_handler(signal.SIGUSR1, print)
loop.remove_signal_handler(signal.SIGUSR1)
near, far = os.pipe()
pid = os.fork()
if not pid:
    os.read(near, 1)
    loop.run_until_complete(asyncio.sleep(0.2))
    os._exit(time.process_time() > 0.15)
loop.add_signal_handler(signal.SIGUSR1, print)
signal.raise_signal(signal.SIGUSR1)
os.write(far, b"x")
assert os.waitpid(pid, 0)[1] == 0
loop.close()
""",
}


if sysconfig.get_config_var("Py_GIL_DISABLED"):
    # A thread of the parent may be about to get a lock that a child needs.
    FASTLOOP_PROGRAMS["a_child_uses_a_loop_that_other_threads_used"] = """
loop = new_loop()
pairs = [socket.socketpair() for _ in range(5)]
over = False

def change(near, far):
    while not over:
        loop.add_reader(near, int)
        loop.remove_reader(near)

def run():
    signal.alarm(100)  # ends a child that waits for ever
    loop.add_reader(pairs[0][0], int)
    loop.remove_reader(pairs[0][0])
    loop.close()

threads = [threading.Thread(target=change, args=pair) for pair in pairs[1:]]
for thread in threads:
    thread.start()
try:
    for _ in range(150):
        assert child(run) == 0
finally:
    over = True
"""


@pytest.mark.parametrize("name", FASTLOOP_PROGRAMS)
def test_after_a_fork_on_fastloop(fast_script, name):
    fast_script(FASTLOOP_PROGRAMS[name])


#: A StreamWriter that is collected closes its transport, on asyncio as well:
#: over TLS that sends an end, unless the loop is closed.
ENDS = {
    "leaves": "os._exit(3)",
    "exits": "sys.exit(3)",
    "collects": "del loop, joined; gc.collect(); sys.exit(3)",
    "closes": "loop.close(); assert loop.is_closed(); sys.exit(3)",
    "closes, collects": "loop.close(); del joined; gc.collect(); sys.exit(3)",
}


@pytest.mark.parametrize(
    ("end", "secure"),
    sorted({*itertools.product(ENDS, [False, True])} - {("collects", True)}),
)
def test_a_child_leaves_its_parents_connections(fast_script, end, secure):
    """The parent's loop, its sockets and its executor's idle threads: nothing
    that the child does with them is seen on the wire.
    """
    certs = Path(__file__).parent.parent / "certs"
    fast_script(
        f"""
import ssl, warnings

CERTS, SECURE = {str(certs)!r}, {secure}
server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server_tls.load_cert_chain(CERTS + "/localhost.pem", CERTS + "/localhost.key")
client_tls = ssl.create_default_context(cafile=CERTS + "/ca.pem")
"""
        + """
async def connect():
    sides = []
    server = await asyncio.start_server(
        lambda *pair: sides.append(pair),
        "127.0.0.1",
        0,
        ssl=server_tls if SECURE else None,
    )
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(),
        ssl=client_tls if SECURE else None,
        server_hostname="localhost" if SECURE else None,
    )
    server.close()
    await exchange(reader, writer, sides)
    await asyncio.to_thread(int)
    return reader, writer, sides

async def exchange(reader, writer, sides):
    writer.write(b"hello" * 10_000)
    while not sides:
        await asyncio.sleep(0)
    far_reader, far_writer = sides[0]
    far_writer.write(await far_reader.readexactly(50_000))
    assert await reader.readexactly(50_000) == b"hello" * 10_000

async def finish(reader, writer, sides):
    await exchange(reader, writer, sides)
    writer.close()
    assert await sides[0][0].read() == b""
    sides[0][1].close()
    await writer.wait_closed()
    await connect()

loop = new_loop()
joined = list(loop.run_until_complete(connect()))
pid = os.fork()
if not pid:
    warnings.simplefilter("ignore")
"""
        + f"    {ENDS[end]}"
        + """
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
loop.run_until_complete(finish(*joined))
loop.call_soon_threadsafe(loop.stop)
loop.run_forever()
os._exit(0)
"""
    )
