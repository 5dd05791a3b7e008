"""Real signals sent to a process whose loop sleeps, spins or works."""

import signal

import pytest

BEFORE = "sys.stdout.reconfigure(line_buffering=True)\n"

PROGRAMS = {
    "asleep": "loop.call_soon(print, 'ready')",
    "busy": """
def spin():
    loop.call_soon(spin)
loop.call_soon(print, 'ready')
spin()
""",
    "busy in one callback": """
def forever():
    print('ready')
    while True:
        pass
loop.call_soon(forever)
""",
    "timers": """
def tick():
    loop.call_later(0.0002, tick)
loop.call_soon(print, 'ready')
tick()
""",
    "the wake-up fd replaced": """
loop.call_soon(signal.set_wakeup_fd, -1)
# So late that the loop has begun to wait.
threading.Timer(0.2, print, ["ready"]).start()
""",
    "executor": """
gate = threading.Event()
future = loop.run_in_executor(None, gate.wait)
loop.call_soon(print, 'ready')
""",
}
RUN = """
loop = new_loop()
{body}
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted", loop.is_running())
    if "gate" in globals():
        gate.set()
    print(loop.run_until_complete(asyncio.sleep(0.001, "usable")))
    loop.close()
"""


@pytest.mark.parametrize("where", PROGRAMS)
def test_ctrl_c_leaves_run_forever(script, finish, where):
    process = script.start(RUN.format(body=PROGRAMS[where]))
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert (status, out) == (0, "interrupted False\nusable\n"), err


GRACEFUL = """
async def worker(number):
    try:
        while True:
            await asyncio.sleep(0.0005)
    finally:
        ended.append(number)  # a worker whose timer is due ends later

async def main():
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    workers = [asyncio.ensure_future(worker(n)) for n in range(2)]
    await asyncio.sleep(0.001)
    print("ready")
    await stop.wait()
    for each in workers:
        each.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    print("ended", sorted(ended))

ended = []
with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
"""
IGNORED = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
loop = new_loop()
loop.add_signal_handler(signal.SIGTERM, loop.stop)
loop.call_soon(print, "ready")
loop.run_forever()
loop.close()
print("still here")
"""
#: SIGSTOP and SIGCONT interrupt system calls; sleeps stay whole.
ASLEEP = """
loop = new_loop()
begin = time.monotonic()
loop.call_soon(print, "ready")
loop.run_until_complete(asyncio.sleep(0.15))
print(time.monotonic() - begin >= 0.15)
loop.close()
"""
WITH_A_CHILD = """
async def main():
    child = await asyncio.create_subprocess_exec(
        "/bin/sleep", "1000", start_new_session=True
    )
    print("ready")
    try:
        await child.wait()
    finally:
        child.kill()
        await child.wait()
        print("reaped", child.returncode)

with asyncio.Runner(loop_factory=new_loop) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize(
    ("program", "signals", "status", "says"),
    [
        (RUN.format(body=PROGRAMS["asleep"]), ["TERM"], -signal.SIGTERM, ""),
        (GRACEFUL, ["TERM"], 0, "ended [0, 1]\n"),
        (IGNORED, ["INT", "TERM"], 0, "still here\n"),
        (ASLEEP, ["STOP", "CONT"] * 5, 0, "True\n"),
        (WITH_A_CHILD, ["INT"], -signal.SIGINT, "reaped -9\n"),
    ],
    ids="default graceful ignored stop child".split(),
)
def test_signals_from_outside(script, finish, program, signals, status, says):
    process = script.start(program)
    for name in signals:
        process.send_signal(signal.Signals["SIG" + name])
    done, out, err = finish(process)
    assert (done, out) == (status, says), err
    if done == 0:
        assert err == ""
