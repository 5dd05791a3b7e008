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


def test_a_hook_may_show_its_arguments(script):
    assert (
        script("""
        seen = []

        def at_change(*args):
            seen.append(repr(args))

        run()
        assert len(seen) <= 2, seen
    """).stdout
        == "done\n"
    )


def test_a_hook_may_read_the_reader(script):
    assert (
        script("""
        def at_change(reader, *args):
            assert bytes(reader._buffer) in (b"part", b""), reader._buffer
            assert "_buffer" in vars(reader)

        run()
    """).stdout
        == "done\n"
    )


def test_a_hook_may_refuse_changes_of_classes(script):
    assert (
        script("""
        def at_change(*args):
            raise RuntimeError("refused")

        run()
    """).stdout
        == "done\n"
    )


def test_a_hook_may_be_interrupted(script):
    """The exception is the caller's, and the reader goes on."""
    assert (
        script("""
        raised = []

        def at_change(*args):
            if not raised:
                raised.append(1)
                raise KeyboardInterrupt

        async def change():
            near, far = socket.socketpair()
            reader, writer = await asyncio.open_connection(sock=near)
            far.send(b"data")
            assert await reader.readexactly(1) == b"d"
            sys.addaudithook(see)
            try:
                reader.__class__ = asyncio.StreamReader
            except KeyboardInterrupt:
                print("raised")
            assert await reader.readexactly(3) == b"ata"
            far.close()
            writer.close()
            await writer.wait_closed()

        loop = new_loop()
        loop.run_until_complete(change())
        loop.close()
    """).stdout
        == "raised\n"
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


def test_a_hook_sees_the_limit_that_is_being_replaced(script):
    assert (
        script("""
        seen = []

        def see(event, args):
            if event == "object.__setattr__" and args[1] == "__class__":
                seen.append(args[0]._limit)

        async def main():
            near, far = socket.socketpair()
            reader, writer = await asyncio.open_connection(sock=near, limit=9)
            sys.addaudithook(see)
            reader._limit = 1 << 70
            assert reader._limit == 1 << 70
            far.close()
            writer.close()
            await writer.wait_closed()

        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()
        print(set(seen) <= {9})
    """).stdout
        == "True\n"
    )
