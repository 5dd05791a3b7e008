"""A process without standard streams: the next files opened get their fds."""

import pytest


@pytest.mark.parametrize("closed", ["0", "1", "2", "0, 1, 2"])
def test_a_loop_works_and_closes(script, closed):
    script(f"""
for number in ({closed},):
    os.close(number)

async def main():
    async def answer(reader, writer):
        writer.write(await reader.readline())
        writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"x\\n")
    assert await reader.read() == b"x\\n"
    writer.close()
    server.close()
    await asyncio.to_thread(int)

for _ in range(2):
    on_new_loop(main())
for number in ({closed},):
    try:
        os.fstat(number)
    except OSError:
        continue
    raise AssertionError(number)
os._exit(0)
""")


@pytest.mark.parametrize("closed", ["0", "0, 1, 2"])
def test_a_forked_child_closes_its_parents_loop(script, closed):
    script(f"""
loop = new_loop()
loop.run_until_complete(asyncio.sleep(0))
for number in ({closed},):
    os.close(number)
pid = os.fork()
if pid == 0:
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
loop.close()
os._exit(0)
""")
