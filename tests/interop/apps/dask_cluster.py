"""The loops of two worker processes of Dask, and of their client."""

import asyncio

from distributed import Client


async def which(number):
    await asyncio.sleep(0)
    return type(asyncio.get_running_loop()).__module__, number


async def main():
    options = {"n_workers": 2, "dashboard_address": None}
    async with Client(asynchronous=True, **options) as client:
        done = await client.gather(client.map(which, range(100)))
        done.append(await which(100))
    print({loop for loop, _ in done}, sum(n for _, n in done))


if __name__ == "__main__":
    asyncio.run(main())
