"""Audit hooks, which a process cannot remove."""


def test_a_hook_sees_each_lookup_of_an_address(script):
    done = script("""
seen = []

def see(event, args):
    if event == "socket.getaddrinfo":
        seen.append(args)

async def main():
    loop = asyncio.get_running_loop()
    for _ in range(3):
        await loop.getaddrinfo("127.0.0.1", 80, proto=6)

sys.addaudithook(see)
on_new_loop(main())
print(seen.count(("127.0.0.1", 80, 0, 0, 6)))
""")
    assert done.stdout == "3\n"
