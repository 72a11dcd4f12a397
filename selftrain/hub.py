"""The Hugging Face hub, through its own client: HF_ENDPOINT, HF_TOKEN and a login count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from selftrain.config import ConfigError
from selftrain.errors import RunError

STALE = {
    "model": ["*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json"],
    "dataset": ["*.parquet"],
}
"""What an earlier upload to the same name may have left that a later one does not replace. By its configs a repository
is known to hold an adapter or not."""


def check_name(name: str) -> None:
    """Raises ConfigError for a name the hub does not take."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"--to {name}: {error} (a folder starts with ./ or /)") from error


def check_token() -> None:
    """Raises ConfigError where there is no token at all."""
    from huggingface_hub import get_token

    if not get_token():
        raise ConfigError("no token for the Hugging Face hub; set HF_TOKEN, or log in with: hf auth login")


def make(name: str, kind: str, private: bool) -> str:
    """The full name of a repository, which is made where there is none.

    Args:
        kind: model or dataset.

    Raises:
        RunError: the hub refuses, or the repository is there, public, and was asked to be private.
    """
    from huggingface_hub import HfApi

    with told(name):
        full = HfApi().create_repo(name, repo_type=kind, private=private or None, exist_ok=True).repo_id
        public = private and not HfApi().repo_info(full, repo_type=kind).private
    if public:
        raise RunError(f"{full} is there already, and public; nothing was pushed (make it private, or leave --private)")
    return full


def upload(folder: Path, name: str, kind: str, message: str) -> str:
    """Upload the files of a folder as one commit; the address of the repository.

    Raises:
        RunError: the hub refuses, or does not answer.
    """
    from huggingface_hub import HfApi

    with told(name):
        commit = HfApi().upload_folder(
            repo_id=name, repo_type=kind, folder_path=folder, commit_message=message, delete_patterns=STALE[kind]
        )
    return str(commit.repo_url)


@contextmanager
def told(name: str) -> Iterator[None]:
    """What the hub and its client fail with, as one line."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import logging

    from selftrain.models.checkpoint import transport_error

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    again = "run the same command again when it does: what has arrived is not sent twice"
    try:
        yield
    except HfHubHTTPError as error:
        raise RunError(refusal(error.response.status_code, name, error.server_message)) from error
    except OfflineModeIsEnabled as error:
        raise RunError(f"{constants.ENDPOINT} does not answer, or HF_HUB_OFFLINE is set; {again}") from error
    except transport_error() as error:
        raise RunError(f"{constants.ENDPOINT} does not answer ({error}); {again}") from error
    except (ValueError, RuntimeError) as error:  # RuntimeError: the client for large files.
        raise RunError(f"{name} could not be pushed: {error}") from error


def refusal(status: int, name: str, reason: str | None) -> str:
    """What an answer of the hub means, and what to do."""
    known: Mapping[int, str] = {
        401: "the hub does not know this token (401); set HF_TOKEN to a valid one, or log in with: hf auth login",
        403: f"this token may not write to {name} (403); use one with write access to it, or another --to",
        404: f"the hub has no {name} (404), or this token may not see it",
    }
    meaning = known.get(status, f"the hub refused {name} ({status}); try again later")
    return f"{meaning}{f': {reason}' if reason else ''}"
