"""After a fork: the child's loops, new or the parent's, are its own."""

import sys
import sysconfig

import pytest

BEFORE = """
def child(run):
    '''Run a function in a forked child; return its exit status.'''
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 70
    try:
        status = run() or 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(status)

def c_child():
    '''Fork as C code does: no handler of Python's runs.  True: the child.'''
    import ctypes
    sys.stdout.flush()
    pid = ctypes.PyDLL(None).fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return not pid
"""
#: It is a warning to fork with threads.
FLAGS = ("-W", "ignore::DeprecationWarning")


PROGRAMS = {
    "a_new_loop_works_in_the_child": """
new_loop().close()
loop = new_loop()
loop.run_until_complete(asyncio.sleep(0.001))

def run():
    own = new_loop()
    left, right = socket.socketpair()
    own.add_reader(left, own.stop)
    right.send(b"x")
    own.run_forever()
    own.remove_reader(left)
    assert own.run_until_complete(asyncio.sleep(0.001, 5)) == 5
    own.close()

for _ in range(3):
    assert child(run) == 0
assert loop.run_until_complete(asyncio.sleep(0.001, 5)) == 5
loop.close()
assert child(run) == 0
""",
    # libuv notes a wake-up that is on its way; the child must forget it.
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
    "fork_inside_a_running_loop": """
async def main():
    def run():
        asyncio._set_running_loop(None)
        own = new_loop()
        value = own.run_until_complete(asyncio.sleep(0.001, 3))
        own.close()
        return 0 if value == 3 else 1

    assert child(run) == 0
    await asyncio.sleep(0.001)
    left, right = socket.socketpair()
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.add_reader(left, future.set_result, "seen")
    assert child(lambda: 0) == 0
    right.send(b"x")
    assert await future == "seen"
    loop.remove_reader(left)
    left.close()
    right.close()

loop = new_loop()
loop.run_until_complete(main())
loop.close()
""",
    "numbers_of_readers_that_were_closed_near_the_limit": """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
pipes = [os.pipe() for _ in range(12)]
loop = new_loop()
loop.run_until_complete(asyncio.sleep(0.001))
for end in sum(pipes, ()):
    loop.add_reader(end, int)
for end in sum(pipes, ()):
    os.close(end)
assert child(lambda: loop.run_until_complete(asyncio.sleep(0.001))) == 0
loop.close()
""",
    # A child has a copy of it, sends what it writes itself, and ends its
    # transports.
    "what_a_callback_holds_at_a_fork_is_sent_once": """
class Serves(asyncio.Protocol):
    def connection_made(self, transport):
        served.append(transport)

served = []

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Serves, "127.0.0.1", 0)
    far = socket.create_connection(server.sockets[0].getsockname())
    while not served:
        await asyncio.sleep(0)
    transport, = served
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
    transport.close()
    server.close()
    return far

loop = new_loop()
far = loop.run_until_complete(main())
loop.run_until_complete(asyncio.sleep(0))
loop.close()
got = b""
while part := far.recv(1000):
    got += part
assert got == b"head body 12 more end", got
far.close()
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
    # Another part of the loop notices the fork before the next iteration.
    "ctrl_c_ends_the_run_of_a_child_that_changed_handlers": """
def fork():
    pid = os.fork()
    if pid:
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        loop.stop()
        return
    loop.add_signal_handler(signal.SIGUSR2, int)
    loop.remove_signal_handler(signal.SIGUSR2)
    # The run goes on in this process, and waits.
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    signal.alarm(20)  # ends a child that waits for ever

loop = new_loop()
codes = []
loop.call_soon(fork)
try:
    loop.run_forever()
except KeyboardInterrupt:
    os._exit(5)
assert codes == [5], codes
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


ADD_HANDLER = "asyncio.get_running_loop().add_signal_handler(1, int)"
LEAVE = """
async def main():
    async def sleep():
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(0.001)
            cleaned.append("task")

    async def generate():
        try:
            yield
        finally:
            cleaned.append("generator")

    generator = generate()
    await anext(generator)
    task = asyncio.create_task(sleep())
    await asyncio.to_thread(int)
    {signals}
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        {leave}
    print("left by", os.waitpid(pid, 0)[1] >> 8)
    await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    await generator.aclose()

cleaned = []
try:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
finally:
    print(sorted(cleaned))
"""


#: From 3.14 on asyncio forgets in the child which loop runs, so a task that
#: forked cannot end there, on no loop.
task_can_end_in_child = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="a task that forked cannot end"
)


@task_can_end_in_child
@pytest.mark.parametrize(
    ("leave", "signals", "status", "says"),
    [
        ("sys.exit(3)", "", 3, ""),
        ("sys.exit(3)", ADD_HANDLER, 3, ""),
        (
            "raise ZeroDivisionError('child')",
            "",
            1,
            "ZeroDivisionError: child",
        ),
    ],
)
def test_a_child_leaves_the_parents_run(
    fast_script, leave, signals, status, says
):
    """Its tasks are cancelled and its generators closed on the way.

    asyncio's child takes the self-pipe out of the epoll set that both have:
    the parent does not hear of its threads any more.
    """
    done = fast_script(
        LEAVE.format(leave=leave, signals=signals), quiet=not says
    )
    cleaned = "['generator', 'task']\n"
    assert done.stdout == f"{cleaned}left by {status}\n{cleaned}"
    assert done.stderr.rstrip().endswith(says)
    assert "During handling" not in done.stderr


@pytest.mark.skipif(
    sys.version_info < (3, 14), reason="threads wait for a handle from 3.14 on"
)
def test_threads_wait_for_handles_also_in_the_child(script):
    """The parent's thread that waited at the fork is not there any more."""
    done = script("""
loop = new_loop()
left = [4]
child = []

def start(body):
    entered, asking, asked = (threading.Event() for _ in range(3))
    handles = []
    def ask():
        entered.wait()
        asking.set()
        handles[0].cancelled()
        asked.set()
    def callback():
        entered.set()
        asking.wait()
        assert not asked.wait(0.05)
        body()
    threading.Thread(target=ask, daemon=True).start()
    handles.append(loop.call_soon_threadsafe(callback))

def again():
    left[0] -= 1
    if left[0]:
        start(again)
    else:
        loop.stop()

def fork():
    child.append(os.fork())
    if child[0]:
        loop.stop()
    else:
        start(again)

start(fork)
loop.run_forever()
if not child[0]:
    os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child[0], 0)[1]))
loop.close()
""")
    assert done.stdout == "3\n"
