"""`selftrain push`: a checkpoint of a run with its card, and what it was fitted to, to the hub or into a folder.

Nothing but the checkpoint's own files, a card and the lineage leaves the run directory; the hub's own client does the
rest, so that HF_ENDPOINT, HF_TOKEN and a login count. An adapter of a hub model leaves as it is; any other is merged
into its base, which nobody else has.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from selftrain import hub
from selftrain.artifacts import RunDir
from selftrain.config import ConfigError
from selftrain.digests import file_digest
from selftrain.errors import RunError
from selftrain.files import read_json, replacing

if TYPE_CHECKING:
    from selftrain.report.choose import Checkpoint
    from selftrain.report.lineage import Lineage

CARD, LINEAGE = "README.md", "selftrain.json"
PLACES = {"config.json", "generation_config.json", "tokenizer_config.json", "adapter_config.json"}
"""Files of a checkpoint that may say where a model was loaded from."""


@dataclass(frozen=True)
class Target:
    """Where files go: a folder, or a repository of the hub."""

    name: str
    kind: str = "model"
    folder: Path | None = None

    @property
    def data(self) -> Target:
        """Where the data that belongs to a model goes."""
        folder = self.folder.with_name(f"{self.folder.name}-data") if self.folder else None
        return Target(f"{self.name}-data", "dataset", folder)


def push(run: RunDir, options: argparse.Namespace) -> int:
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from selftrain.report.choose import choose
    from selftrain.report.lineage import lineage

    model = target(options.to)
    checkpoint = choose(run, options.learner, options.iteration)
    targets = [model, model.data] if options.data else [model]
    if not options.dry_run:
        targets = ready(targets, options.private)
    remote = model.folder is None
    facts = lineage(run, checkpoint, online=remote and not options.dry_run)
    with TemporaryDirectory(prefix="selftrain-push-") as scratch:
        folders = [Path(scratch) / place.kind for place in targets]
        files, facts = complete(checkpoint.folder, facts, Path(scratch) / "merged")
        if options.data:
            lay_data(run, facts, checkpoint, folders[1], targets)
        lay_model(facts, files, folders[0], targets)
        for place, folder in zip(targets, folders, strict=True):
            where = "nothing is pushed" if options.dry_run else deliver(folder, place, message(facts))
            print(f"{place.kind} {place.name}, {checkpoint.learner} of iteration {checkpoint.iteration}: {where}")
            show(folder, whole=options.dry_run)
    return 0


def target(to: str) -> Target:
    """Raises ConfigError for a name that is neither a folder nor one the hub takes."""
    if to.startswith((".", "/", "~")) or Path(to).is_dir():
        folder = Path(to).expanduser().resolve()
        return Target(folder.name, folder=folder)
    hub.check_name(to)
    return Target(to)


def ready(targets: list[Target], private: bool) -> list[Target]:
    """The targets, checked, and made where they are repositories; under the full names the hub gives them."""
    for place in targets:
        if place.folder is not None:
            check_free(place.folder)
    if targets[0].folder is not None:
        return targets
    hub.check_token()
    return [dataclasses.replace(place, name=hub.make(place.name, place.kind, private)) for place in targets]


def check_free(folder: Path) -> None:
    """Raises ConfigError where a push would overwrite what no push wrote."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"--to {folder}: is a file; name a folder")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if LINEAGE in found:
        found -= {CARD, LINEAGE, *(entry["name"] for entry in read_json(folder / LINEAGE).get("files", []))}
    if found:
        raise ConfigError(f"--to {folder}: holds files that no push wrote ({min(found)}); name another folder")


def complete(files: Path, facts: Lineage, merged: Path) -> tuple[Path, Lineage]:
    """Where the files to push lie, which need nothing that stays here, and the facts that go with them.

    Args:
        files: folder of a checkpoint.
        merged: where a full checkpoint is made of an adapter whose base is no model of the hub.
    """
    if facts.adapter is None or facts.adapter.base is not None:
        return files, facts
    from selftrain.models.export import export

    try:
        difference = export(files, merged)
    except ValueError as error:
        raise RunError(f"{files} was not pushed: {error}") from error
    return merged, dataclasses.replace(facts, adapter=dataclasses.replace(facts.adapter, difference=difference))


def lay_model(facts: Lineage, files: Path, folder: Path, targets: list[Target]) -> None:
    """The files of a checkpoint, as links, with its card."""
    from selftrain.report.cards import model_card

    folder.mkdir()
    for path in sorted(path for path in files.rglob("*") if path.is_file()):
        place = folder / path.relative_to(files)
        if place.name in (CARD, LINEAGE):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        cleaned = without_place(path) if path.name in PLACES else None
        if cleaned is None:
            place.symlink_to(path.resolve())
        else:
            place.write_text(cleaned)
    data = targets[1].name if targets[1:] and targets[0].folder is None else None
    _describe(folder, facts, model_card(facts, targets[0].name, data))


def without_place(path: Path) -> str | None:
    """The text of a config without the folder its model was loaded from; None where it names none."""
    from selftrain.report.lineage import without_paths

    tree = read_json(path)
    named = {key: without_paths(value) for key, value in tree.items() if key.endswith("name_or_path")}
    if all(tree[key] == value for key, value in named.items()):
        return None
    return json.dumps({**tree, **named}, indent=2, ensure_ascii=False) + "\n"


def lay_data(run: RunDir, facts: Lineage, checkpoint: Checkpoint, folder: Path, targets: list[Target]) -> None:
    """What was sampled up to a checkpoint and what its learner was fitted to, with a card."""
    from selftrain.models.checkpoint import load_tokenizer
    from selftrain.report.cards import dataset_card
    from selftrain.report.export import export

    numbers = [one.number for one in facts.iterations]
    decode = load_tokenizer(checkpoint.folder).batch_decode
    data = export(run, facts.learner, numbers, facts.config["evaluate"]["splits"], decode, folder)
    model = targets[0].name if targets[0].folder is None else None
    _describe(folder, facts, dataset_card(facts, targets[1].name, data, model))


def _describe(folder: Path, facts: Lineage, card: str) -> None:
    """Add the card, and the lineage with the sha256 of every other file."""
    files = [
        {"name": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    lineage = {**dataclasses.asdict(facts), "files": files}
    (folder / LINEAGE).write_text(json.dumps(lineage, indent=1, ensure_ascii=False) + "\n")
    (folder / CARD).write_text(card)


def show(folder: Path, whole: bool) -> None:
    """The files; with ``whole`` the card too."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"  {path.stat().st_size:>14,}  {path.relative_to(folder)}")
    if whole:
        print(f"\n{(folder / CARD).read_text()}")


def message(facts: Lineage) -> str:
    return f"Iteration {facts.iteration} of '{facts.run}', by selftrain {facts.selftrain}"


def deliver(folder: Path, place: Target, message: str) -> str:
    """Copy or upload what lies in a folder; where it is then."""
    if place.folder is None:
        return hub.upload(folder, place.name, place.kind, message)
    with replacing(place.folder) as temporary:
        shutil.copytree(folder, temporary)
    return str(place.folder)
