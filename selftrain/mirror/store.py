"""A folder of object storage through fsspec: ``s3://bucket/prefix``, ``file://`` and whatever else it knows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from selftrain.config import ConfigError
from selftrain.registry import nearest

KEY = "track.mirror"
PACKAGES = {"s3": "pip install 'selftrain[mirror]'", "s3a": "pip install 'selftrain[mirror]'"}
"""How to get what a scheme needs, where an extra of ours has it."""
NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError"}
)
"""Types of errors, by name: the packages that raise them are only there for who uses them."""
OPTIONS: dict[str, dict[str, Any]] = {"file": {"auto_mkdir": True}, "local": {"auto_mkdir": True}}
PATTERN = frozenset("*?[")
"""What fsspec does not read as it stands."""


class Down(Exception):
    """The storage does not answer, or fails in a way that may pass; the message is one line."""


class Unusable(ConfigError):
    """What only the user can mend: no credentials, no such bucket."""


@dataclass(frozen=True)
class Store:
    """Files by their place below ``url``; every failure is a `Down` or an `Unusable`."""

    url: str

    @cached_property
    def _at(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        scheme = check_url(self.url)
        # Another process may write there too: what was listed once does not stay true.
        files, root = url_to_fs(self.url, use_listings_cache=False, **OPTIONS.get(scheme, {}))
        return files, str(root)

    def _place(self, name: str) -> tuple[Any, str]:
        files, root = self._at
        return files, f"{root.rstrip('/')}/{name}"

    def listing(self) -> dict[str, int]:
        """Size in bytes of every file, by its place."""
        with self._told():
            files, root = self._at
            root = root.rstrip("/")
            try:
                found = files.find(root, detail=True)
            except FileNotFoundError:
                return {}
            return {name.removeprefix(root).lstrip("/"): int(look["size"] or 0) for name, look in found.items()}

    def read(self, name: str) -> bytes | None:
        """The contents of a file; None where there is none."""
        with self._told():
            files, place = self._place(name)
            try:
                return bytes(files.cat_file(place))
            except FileNotFoundError:
                return None

    def read_json(self, name: str) -> Any:
        """What a file says; None where there is none, or half of one."""
        content = self.read(name)
        try:
            return None if content is None else json.loads(content)
        except ValueError:
            return None

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """The contents of files, asked for together, by their place."""
        if not names:
            return {}
        with self._told():
            files, root = self._place("")
            found = files.cat([f"{root}{name}" for name in names], on_error="return")
            for content in found.values():
                # One that was removed meanwhile is not there; any other is there, and must not be taken for gone.
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
            return {
                place.removeprefix(root): bytes(content)
                for place, content in found.items()
                if not isinstance(content, Exception)
            }

    def write(self, name: str, content: bytes) -> None:
        with self._told():
            files, place = self._place(name)
            files.pipe_file(place, content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that is not there yet; whether it was not. S3 decides between two who try at once."""
        with self._told():
            files, place = self._place(name)
            try:
                files.pipe_file(place, content, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if "PreconditionFailed" not in f"{error!r} {error.__cause__!r}":
                    raise
                return False
        return True

    def put(self, file: Path, name: str) -> None:
        """Upload a file.

        Raises:
            FileNotFoundError: it is not here any more.
        """
        with self._told(file):
            files, place = self._place(name)
            files.put_file(str(file), place)

    def get(self, name: str, file: Path) -> bool:
        """Download a file; whether it is there."""
        with self._told():
            files, place = self._place(name)
            try:
                files.get_file(place, str(file))
            except FileNotFoundError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self._told():
            files, place = self._place(name)
            try:
                files.rm_file(place)
            except FileNotFoundError:
                return

    @contextmanager
    def _told(self, file: Path | None = None) -> Iterator[None]:
        """What a back-end fails with; they have no type of error in common."""
        try:
            yield
        except (ConfigError, Down):
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and file is not None and not file.exists():
                raise
            if advice := _advice(error):
                raise Unusable(f"{KEY}: {self.url}: {advice}") from error
            raise Down(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def check_url(url: str) -> str:
    """The scheme of a mirror's address.

    Raises:
        ConfigError: it has none, nobody knows it, or what it needs is not installed.
    """
    from fsspec import available_protocols, get_filesystem_class

    scheme, separator, place = url.partition("://")
    user, at, _ = place.partition("/")[0].rpartition("@")
    if at and ":" in user:
        raise ConfigError(
            f"{KEY}: a password in an address would stand in config.yaml and in logs; take it out, and set it in the "
            f"environment (FSSPEC_{scheme.upper()}_PASSWORD)"
        )
    if not separator or not place.strip("/"):
        raise ConfigError(f"{KEY}: '{url}' is no address such as s3://bucket/prefix or file:///folder")
    if PATTERN & set(place):
        raise ConfigError(f"{KEY}: {', '.join(sorted(PATTERN))} in an address are read as patterns; choose one without")
    scheme = scheme.partition("::")[0]
    if scheme not in available_protocols():
        raise ConfigError(f"{KEY}: {url}: unknown scheme '{scheme}' ({nearest(scheme, available_protocols())})")
    try:
        get_filesystem_class(scheme)
    except ImportError as error:
        raise ConfigError(f"{KEY}: {url}: {error}: {PACKAGES.get(scheme, 'pip install it')}") from error
    return scheme


def _advice(error: BaseException) -> str:
    """What to do where waiting does not help; empty where it may."""
    text = " ".join(str(error).split())[:200]
    if type(error).__name__ in NO_CREDENTIALS:
        return "no credentials for it; set them (S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
    if isinstance(error, PermissionError):
        return f"these credentials may not read and write there ({text})"
    if isinstance(error, FileNotFoundError):
        return f"there is no such bucket or folder ({text}); make it, or name another one"
    if isinstance(error, (NotImplementedError, ValueError)) or type(error).__name__ == "ParamValidationError":
        return f"cannot be written to ({text})"
    return ""
