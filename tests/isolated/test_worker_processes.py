"""Programs of several processes: multiprocessing, pools, pre-forked ones."""

import multiprocessing

import pytest

#: A program whose processes are made by `method`; what they run is importable.
PROGRAM = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

async def work(number):
    await asyncio.sleep(0.0005)
    return await asyncio.to_thread(pow, number, 2)

def in_a_loop(number):
    loop = new_loop()
    result = loop.run_until_complete(work(number))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    return result

def worker(queue, number):
    queue.put(in_a_loop(number))

def main():
    context = multiprocessing.get_context({method!r})
    if {method!r} == "forkserver":
        context.set_forkserver_preload([type(new_loop()).__module__])
    loop = new_loop()
    assert loop.run_until_complete(work(3)) == 9
    {body}
    assert loop.run_until_complete(work(4)) == 16
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()

if __name__ == "__main__":
    main()
"""
QUIET = ("-W", "ignore::DeprecationWarning", "-W", "ignore::ResourceWarning")


@pytest.mark.parametrize(
    "method", sorted(multiprocessing.get_all_start_methods())
)
def test_processes_and_pools_of_them(script, method):
    script(
        PROGRAM.format(
            method=method,
            body="""
    queue = context.SimpleQueue()
    processes = [
        context.Process(target=worker, args=(queue, n)) for n in range(3)
    ]
    for process in processes:
        process.start()
    assert sorted(queue.get() for _ in processes) == [0, 1, 4]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    async def pooled():
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            return await asyncio.gather(
                *(loop.run_in_executor(pool, in_a_loop, n) for n in range(4))
            )
    assert loop.run_until_complete(pooled()) == [0, 1, 4, 9]
""",
        ),
        *QUIET,
    )


def test_a_server_that_forks_its_workers(script):
    """As gunicorn: one listener, workers with loops of their own, replaced
    when they die and ended by a signal."""
    script(
        """
listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()

async def answer(reader, writer):
    while await reader.read(100):
        writer.write(b"%d " % os.getpid())
    writer.close()

async def serve():
    loop = asyncio.get_running_loop()
    ending = loop.create_future()
    loop.add_signal_handler(signal.SIGTERM, ending.set_result, None)
    server = await asyncio.start_server(answer, sock=listener)
    os.write(ready, b"r")
    await ending
    server.close()

def spawn():
    pid = os.fork()
    if not pid:
        loop = new_loop()
        loop.run_until_complete(serve())
        loop.close()
        sys.exit(0)
    assert os.read(read_end, 1) == b"r"
    return pid

def ask():
    with socket.create_connection(address) as client:
        client.settimeout(100)
        client.sendall(b"who")
        return int(client.recv(100))

read_end, ready = os.pipe()
master = new_loop()
master.run_until_complete(asyncio.sleep(0))
pids = [spawn(), spawn()]
assert {ask() for _ in range(20)} <= set(pids)
os.kill(pids[0], signal.SIGKILL)
os.waitpid(pids[0], 0)
assert ask() == pids[1]
pids[0] = spawn()
assert {ask() for _ in range(20)} <= set(pids)
for pid in pids:
    os.kill(pid, signal.SIGTERM)
for pid in pids:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert master.run_until_complete(asyncio.sleep(0, 5)) == 5
master.close()
""",
        *QUIET,
    )
