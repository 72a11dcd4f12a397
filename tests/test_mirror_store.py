"""Which storage serves as a mirror, and what is told of one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mirroring import Work, worked

from selftrain.config import ConfigError
from selftrain.mirror.store import Down, Store, Unusable, check_url


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return worked(tmp_path)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("runs/a", "is no address such as s3://bucket/prefix"),
        ("s3://", "is no address"),
        ("s4://runs", "unknown scheme 's4' ("),
        ("s3://runs/a[1]", "[ in an address are read as patterns"),
    ],
)
def test_address_that_cannot_be_one_is_told(address: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_url(address)
    assert told in str(error.value)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"a password in an address .*\(FSSPEC_SFTP_PASSWORD\)$") as error:
        check_url("sftp://me:hush@host/runs")
    assert "hush" not in str(error.value)


def test_storage_that_is_read_alone_is_told() -> None:
    with pytest.raises(Unusable, match="cannot be written to"):
        Store("data://text/plain").write("x", b"")


def test_any_storage_of_fsspec_serves() -> None:
    store = Store("memory://some/where")
    assert store.create("a/b", b"1") and not store.create("a/b", b"2")
    store.write("a/c", b"34")
    assert store.listing() == {"a/b": 1, "a/c": 2}
    assert store.read_all(["a/b", "a/c"]) == {"a/b": b"1", "a/c": b"34"}
    store.remove("a/b")
    store.remove("a/b")
    assert store.read("a/b") is None and store.read_json("a/c") == 34


def test_a_mark_that_cannot_be_read_is_not_taken_for_one_that_is_not_there(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stage would be done again, and its files replaced below the mark."""
    from fsspec.implementations.local import LocalFileSystem

    work.upload()
    read = LocalFileSystem.cat_file

    def unsteady(files: LocalFileSystem, path: str, **more: Any) -> Any:
        if path.endswith("grow.done"):
            raise TimeoutError("slow down")
        return read(files, path, **more)

    monkeypatch.setattr(LocalFileSystem, "cat_file", unsteady)
    with pytest.raises(Down, match="TimeoutError: slow down"):
        work.store.read_all([f"iteration_000{number}/grow.done" for number in (1, 2)])
    monkeypatch.setattr(LocalFileSystem, "cat_file", read)
    assert list(work.store.read_all(["iteration_0001/grow.done", "iteration_0003/grow.done"])) == [
        "iteration_0001/grow.done"
    ]
