"""Audit hooks, which a process cannot remove.

A StreamReader of fastloop changes its class: an event with the reader as its
argument.
"""

BEFORE = """
def see(event, args):
    '''What the hook does at the change of an object's class.'''
    if event == "object.__setattr__" and args[1] == "__class__":
        at_change(*args)

async def main():
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=near)
    sys.addaudithook(see)
    far.send(b"line" + bytes([10]) + b"part")
    assert await reader.readline() == b"line" + bytes([10])
    far.close()
    for partial in (b"part", b""):
        try:
            await reader.readexactly(10)
        except asyncio.IncompleteReadError as exc:
            assert exc.partial == partial, exc
    assert reader.at_eof() and reader._eof and not reader._buffer
    assert vars(reader)["_limit"] == reader._limit
    writer.close()
    await writer.wait_closed()

def run():
    loop = new_loop()
    loop.run_until_complete(main())
    loop.close()
    print("done")
"""


def test_a_hook_may_refuse_changes_of_classes(script):
    assert (
        script("""
        def at_change(*args):
            raise RuntimeError("refused")

        run()
    """).stdout
        == "done\n"
    )


def test_a_hook_sees_each_lookup_of_an_address(script):
    assert (
        script("""
        seen = []

        def see(event, args):
            if event == "socket.getaddrinfo":
                seen.append(args)

        async def main():
            loop = asyncio.get_running_loop()
            for _ in range(3):
                await loop.getaddrinfo("127.0.0.1", 80, proto=6)

        sys.addaudithook(see)
        loop = new_loop()
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        print(seen.count(("127.0.0.1", 80, 0, 0, 6)))
    """).stdout
        == "3\n"
    )
