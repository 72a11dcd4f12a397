"""How a learner gets its checkpoint: by a fit, or as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from selftrain.artifacts import Stage
from selftrain.config import instantiate
from selftrain.encoding import chat_template
from selftrain.errors import failing_as_run_error
from selftrain.events import Progress
from selftrain.files import discard, replacing
from selftrain.models.adapters import adapter_base, set_base
from selftrain.models.head_form import has_value_head
from selftrain.objectives.values import VALUES
from selftrain.planning.values import form_of
from selftrain.schema import Component, Learner, Warmup
from selftrain.session import Interrupted, Session
from selftrain.stages.resident import going_on, kept_states, saved, state_file
from selftrain.types import Example

SHOWN = ("reward accuracy", "clipped", "value accuracy", "pair accuracy")
"""Of what an objective tells, what is shown while it runs; all of it is in the log."""


UNFINISHED = "unfinished"
"""What a fit that is killed goes on from, beside the checkpoint."""
IMPROVE = "improve-"
"""Before a learner's name, the name of the stage that fits it in an iteration."""


def run_fit(
    session: Session,
    stage: str,
    iteration: int,
    examples: list[Example],
    source: Path,
    target: Path,
    fitted: Learner | Warmup,
    seed: int,
    temperature: float = 1.0,
    held_out: Sequence[Example] = (),
) -> Iterator[Progress]:
    """Fit and put the checkpoint in its place, and ``log.jsonl`` beside it; one event per step.

    Args:
        temperature: the samples were drawn at, for objectives that compare with it.
        held_out: for validation, beside the share that ``optim`` holds out.

    Raises:
        RunError: the fit failed, for lack of memory for instance.
    """
    from selftrain.training.fit import Fit, fit

    session.free_for_training()
    chosen = instantiate("objective", fitted.objective if isinstance(fitted, Learner) else Component("nll"))
    tokens = 0
    with ExitStack() as files:
        journal = files.enter_context(replacing(target.with_name("log.jsonl"), later=True))
        folder = files.enter_context(replacing(target, later=True, beside=[journal]))
        asked = Fit(source, folder, journal, chosen, fitted.optim, seed, fitted.lora)
        launch = session.config.launch
        asked = replace(asked, kernels=launch.kernels, trainer=launch.train, stopping=session.stopping)
        asked = replace(asked, unfinished=target.with_name(UNFINISHED), places=session.cluster)
        if isinstance(fitted, Learner):
            asked = replace(
                asked, temperature=temperature, gap=fitted.gap, held_out=held_out, reference=fitted.reference
            )
        if isinstance(fitted, Learner) and VALUES in chosen.needs:
            asked = replace(asked, head=None if has_value_head(source) else form_of(fitted))
        if stage.startswith(IMPROVE):
            learner = stage.removeprefix(IMPROVE)
            asked = going_on(session, iteration, learner, asked)
            if learner in kept_states(session) and saved(session, iteration):
                kept = files.enter_context(replacing(state_file(session, iteration, learner), later=True))
                asked = replace(asked, keep_state=kept)
        states = fit(examples, asked)
        for state in failing_as_run_error(states, f"iteration {iteration}, stage '{stage}'"):
            tokens += state.last.tokens
            told = {name: value for name, value in state.last.measures.items() if name in SHOWN}
            values = {"loss": state.last.loss, **told}
            if state.validation is not None:
                values["validation loss"] = state.validation
            yield Progress(iteration, stage, state.step, state.steps, tokens, values=values)
            if state.stopped:
                anew = f"begins the fit anew: where it stands could not be written ({state.unwritten})"
                raise Interrupted(anew if state.unwritten else "goes on with the fit")
        _name_base(session, folder, folder)
        _carry_template(session, folder)
    if asked.resident is not None:
        session.trainers[stage.removeprefix(IMPROVE)] = (target, asked.resident)


def finish_fit(stage: Stage, outputs: Sequence[Path], target: Path) -> None:
    """Write the mark of a fit to ``target``, and only then remove where it stood: digests of a large checkpoint take a
    while, and a fit that is killed meanwhile goes on from there."""
    stage.finish(outputs)
    discard(target.with_name(UNFINISHED))


def keep_checkpoint(session: Session, source: Path, target: Path) -> None:
    import shutil

    if not source.exists():  # A name on the hub, whose files lie in the cache by now.
        from huggingface_hub import snapshot_download

        source = Path(snapshot_download(str(source)))
    with replacing(target) as folder:
        shutil.copytree(source, folder)
        _name_base(session, folder, source)
        _carry_template(session, folder)


def _carry_template(session: Session, folder: Path) -> None:
    """A checkpoint that was trained with another template than its tokenizer's is served with that one."""
    from selftrain.models.checkpoint import put_template

    chosen = session.config.model.chat.template
    if chosen != "auto":
        put_template(folder, chat_template(session.tokenizer, chosen))


def _name_base(session: Session, folder: Path, source: Path) -> None:
    """An adapter made from, or copied from, ``source``: its base is named so that the run can be moved."""
    if (base := adapter_base(source)) is not None:
        set_base(folder, base, session.run.root)
