"""The interpreter ends with loops, work, threads and handlers around."""

import pytest
from isolated_scripts import SERVED

#: What is left open, also by a subinterpreter.
OPEN = {
    "an_open_loop": """
loop = sys.loop = new_loop()
left, right = socket.socketpair()
loop.add_reader(left, print, right)
loop.add_writer(left, print)
loop.call_soon(print)
loop.call_later(10, print)
loop.call_soon_threadsafe(print)
handle = loop.call_later(0, print)
loop.me = loop
""",
    "an_open_server_and_connection": """
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    transport, _ = await loop.create_connection(asyncio.Protocol, *address)
    transport.write(b"x")
    sys.kept = server, transport, loop
    await asyncio.sleep(0)

loop = new_loop()
loop.run_until_complete(main())
""",
    "queued_jobs": """
def job(number):
    time.sleep(0.001)
    counted.append(number)
    if len(counted) == 100:
        os.write(1, b"all done\\n")

counted = []
loop = new_loop()
for number in range(100):
    loop.run_in_executor(None, job, number)
loop.close()
""",
}
PROGRAMS = {
    **OPEN,
    "a_signal_handler": """
loop = sys.loop = new_loop()
loop.add_signal_handler(signal.SIGUSR1, print)
""",
    "call_soon_threadsafe_at_exit": """
import atexit
loop = new_loop()
atexit.register(loop.close)
atexit.register(loop.call_soon_threadsafe, print)
loop.run_until_complete(asyncio.sleep(0))
""",
    "handles_and_futures_outlive_everything": """
loop = new_loop()
kept = [loop.call_soon(print), loop.call_later(9, print), loop.create_future()]
ran = loop.call_soon(int)
kept.append(ran)
kept[0].cancel()
loop.call_soon(loop.stop)
loop.run_forever()
loop.close()
sys.kept = kept
del loop
""",
    "exit_does_not_wait_for_idle_workers": """
loop = new_loop()
loop.run_until_complete(loop.run_in_executor(None, int))
begin = time.monotonic()
import atexit
atexit.register(lambda: time.monotonic() - begin < 100 or os._exit(9))
""",
    "the_executor_refuses_work_during_shutdown": """
def late():
    async def main():
        try:
            await asyncio.to_thread(print, "ran")
        except RuntimeError as exc:
            print("refused")
    loop.run_until_complete(main())
    loop.close()

loop = new_loop()
loop.run_until_complete(loop.run_in_executor(None, int))
import atexit
atexit.register(late)
""",
    "a_thread_that_outlives_main": """
printed = threading.Event()

def runner():
    loop = new_loop()
    printed.wait()
    print(loop.run_until_complete(asyncio.sleep(0.02, "thread done")))
    loop.close()

threading.Thread(target=runner).start()
print("main done", flush=True)
printed.set()
""",
    # The main thread ends while a callback of the loop still runs.
    "bytes_that_a_daemon_thread_wrote": SERVED
    + """
async def serve():
    server = await loop.create_server(Server, "127.0.0.1", 0)
    peer = socket.create_connection(server.sockets[0].getsockname())
    await until(lambda: made)
    return server, peer

def write():
    made[0].transport.write(b"goodbye")
    written.set()

def both():
    loop.call_soon(write)
    loop.call_soon(time.sleep, 60)

loop, written = new_loop(), threading.Event()
server, peer = loop.run_until_complete(serve())
if os.fork() == 0:
    peer.settimeout(10)
    os.write(1, peer.recv(100))
    os._exit(0)
peer.close()
threading.Thread(target=loop.run_forever, daemon=True).start()
loop.call_soon_threadsafe(both)
written.wait()
""",
}
SAY = {
    "queued_jobs": "all done\n",
    "the_executor_refuses_work_during_shutdown": "refused\n",
    "a_thread_that_outlives_main": "main done\nthread done\n",
    "bytes_that_a_daemon_thread_wrote": "goodbye",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_end_of(script, name):
    quiet = name != "an_open_server_and_connection"
    done = script(PROGRAMS[name], quiet=quiet)
    assert done.stdout == SAY.get(name, "")


@pytest.mark.parametrize("work", ["idle", "busy", "timers", "executor"])
def test_a_daemon_thread_runs_a_loop(script, work):
    script(
        f"""
work = {work!r}
started = threading.Event()

def runner():
    loop = new_loop()
    def spin():
        loop.call_soon(spin)
    def tick():
        loop.call_later(0.0001, tick)
    async def jobs():
        while True:
            await asyncio.to_thread(int)
    if work == "busy":
        spin()
    elif work == "timers":
        tick()
    elif work == "executor":
        task = loop.create_task(jobs())
    loop.call_later(0.005, started.set)
    loop.run_forever()

threading.Thread(target=runner, daemon=True).start()
started.wait()
""",
        quiet=work != "executor",
    )
