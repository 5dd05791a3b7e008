"""What a forked child writes to a transport of its parent's loop."""

BEFORE = """
class Serves(asyncio.Protocol):
    def connection_made(self, transport):
        served.append(transport)

served = []

async def connected():
    '''Return a server's transport and its peer.'''
    server = await loop.create_server(Serves, "127.0.0.1", 0)
    far = socket.create_connection(server.sockets[0].getsockname())
    while not served:
        await asyncio.sleep(0)
    far.settimeout(10)
    server.close()
    return served[0], far

def received(far):
    got = b""
    while part := far.recv(1000):
        got += part
    far.close()
    return got

loop = new_loop()

def run(main):
    far = loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return received(far)
"""


def test_what_a_child_writes_in_a_callback_is_sent_before_it_exits(script):
    script("""
async def main():
    transport, far = await connected()
    pid = os.fork()
    if not pid:
        transport.write(b"1")
        transport.write(b"2")
        transport.writelines([b"3", b"4"])
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    transport.write(b" parent")
    transport.close()
    return far

got = run(main)
assert got == b"1234 parent", got
""")


def test_a_child_writes_what_its_parent_wrote_before_no_second_time(script):
    script("""
async def main():
    transport, far = await connected()
    transport.write(b"head ")
    transport.write(b"body ")
    pid = os.fork()
    if not pid:
        transport.write(b"1")
        transport.write(b"2 ")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    transport.write(b"parent")
    transport.close()
    return far

got = run(main)
assert got == b"head body 12 parent", got
""")


def test_a_new_loop_of_a_child_corks_as_its_parents_did(script):
    """Also one that was forked in a callback."""
    script("""
import select

async def look():
    transport, far = await connected()
    seen = []

    def write():
        transport.write(b"1")
        seen.append(bool(select.select([far], [], [], 0)[0]))

    asyncio.get_running_loop().call_soon(write)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    transport.close()
    far.close()
    return seen

async def main():
    global loop
    expected = await look()
    served.clear()
    pid = os.fork()
    if not pid:
        asyncio._set_running_loop(None)
        loop = new_loop()
        os._exit(loop.run_until_complete(look()) != expected)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

loop.run_until_complete(main())
loop.close()
""")
