"""aiofiles: each operation is a job in the loop's executor."""

from __future__ import annotations

import asyncio
import os

import pytest

pytest.importorskip("aiofiles", reason="aiofiles is not installed")

import aiofiles
import aiofiles.os
import aiofiles.tempfile


async def test_text_and_binary(tmp_path):
    path = tmp_path / "file"

    async with aiofiles.open(path, "w", encoding="utf-8") as file:
        await file.writelines(f"line {i}\n" for i in range(1000))
    async with aiofiles.open(path, encoding="utf-8") as file:
        lines = [line async for line in file]
    assert lines == [f"line {i}\n" for i in range(1000)]
    async with aiofiles.open(path, "r+b") as file:
        await file.seek(5)
        await file.write(b"X")
        await file.seek(0)
        assert await file.readline() == b"line X\n"
        assert await file.tell() == 7
        await file.truncate(7)
    assert (await aiofiles.os.stat(path)).st_size == 7


async def test_many_files_at_once(tmp_path):
    """More jobs than the executor has threads."""

    async def copy(i):
        async with aiofiles.open(tmp_path / f"{i}", "wb") as file:
            await file.write(os.urandom(i * 100))
        async with aiofiles.open(tmp_path / f"{i}", "rb") as file:
            return len(await file.read())

    sizes = await asyncio.gather(*(copy(i) for i in range(100)))
    assert sizes == [i * 100 for i in range(100)]
    names = await aiofiles.os.listdir(tmp_path)
    assert len(names) == 100


async def test_errors_and_temporary_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        async with aiofiles.open(tmp_path / "absent"):
            pass
    async with aiofiles.tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        async with aiofiles.tempfile.NamedTemporaryFile(
            "w+", dir=folder
        ) as file:
            await file.write("kept a while")
            await file.seek(0)
            assert await file.read() == "kept a while"
    assert not await aiofiles.os.path.exists(folder)
