"""resume: go on with a training that was killed or interrupted, as if it had not been."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from finetune_eval import _checks, _text
from finetune_eval.models import lora
from finetune_eval.models.build import load_model
from finetune_eval.runs import Run, claimed
from finetune_eval.training.given_callbacks import usable
from finetune_eval.training.processes import check_distribution, count, is_first, of_first
from finetune_eval.training.recipe import Recipe
from finetune_eval.training.result import FineTuneResult, finished
from finetune_eval.training.rows import of_arrays
from finetune_eval.training.sameness import begun
from finetune_eval.training.training import Training
from finetune_eval.training.watch import together


def resume(
    run: str | os.PathLike[str] | Run, *, callbacks: Any = None, verbose: bool = True
) -> FineTuneResult:
    """Go on with a fine-tuning that was killed or interrupted; it ends as if it had not been, to the bit.

    Model, rows and settings are read from the run folder. The training goes on at its last checkpoint
    (`fine_tune(checkpoint_every=...)`), or at its first step where there is none.

    Args:
        run: The run folder (`fine_tune(run_dir=...)`), or a `Run` that is owned already.
        callbacks: Callbacks of the same classes as `fine_tune` was given, in the same order. They go on where
            they were if they have `get_state()` and `set_state(state)`; so do Keras' EarlyStopping,
            ReduceLROnPlateau and ModelCheckpoint. The others begin anew, and a warning says so.
        verbose: Print the table as the epochs end.

    Returns:
        What `fine_tune` would have returned. Of a run that is complete: what it left.

    Raises:
        FileNotFoundError: There is no such run.
        FileExistsError: Another process is training in it.
        ValueError: It cannot go on: it diverged or had not begun, its files are damaged, its rows were not
            stored (more than 1 GiB), or it has an `optimizer` of the caller's (for both call
            `fine_tune(..., resume=True)`), or callbacks or backend are others.

    Warns:
        RuntimeWarning: The newest checkpoint is damaged and the one before it is used, or versions or
            hardware are others than when the run began.

    Example:
        >>> run = resume("runs/reviews")  # doctest: +SKIP
    """
    show = _text.show if _checks.flag("verbose", verbose) and is_first() else None
    with together(), of_first(_owned(run)) as owned:
        assert owned is not None
        manifest = owned.read_manifest()
        if manifest.get("status") == "complete":
            return finished(owned, manifest, None, show)
        known = begun(str(owned.path), manifest)
        if not known["rows_stored"]:
            raise ValueError(
                f"`run` {str(owned.path)!r} has no copy of its rows, which take more than 1 GiB; call "
                "`fine_tune(model, x, y, ..., run_dir=..., resume=True)` with all that it was called with."
            )
        if known.get("own_optimizer"):
            raise ValueError(
                f"`run` {str(owned.path)!r} began with an `optimizer` of the caller's, which is not in its "
                "folder; call `fine_tune(model, x, y, ..., optimizer=..., run_dir=..., resume=True)` with "
                "all that it was called with."
            )
        recipe = Recipe.of_record(manifest["settings"], precision=manifest["precision"]["asked"])
        more = usable(callbacks, may_set_rate=not recipe.sets_own_rate)
        model = load_model(owned.checkpoint / "model.keras")
        if known.get("adapters"):
            lora.restore(model, known["adapters"], owned.read_weights())
        distribution = known.get("distribution") or ("data_parallel" if count() > 1 else None)
        check_distribution(model, distribution)
        data = of_arrays(model, recipe, owned.read_rows())
        training = Training(
            model, recipe, manifest["precision"]["used"], data, owned, show, more, known["checkpoint_every"],
            distribution=distribution,
        )  # fmt: skip
        training.check(manifest)
        training.go_on(manifest)
        training.go()
        return training.result()


@contextlib.contextmanager
def _owned(run: str | os.PathLike[str] | Run) -> Iterator[Run | None]:
    asked = run if isinstance(run, Run) else Run(_checks.path("run", run))
    if not asked.manifest.is_file():
        raise FileNotFoundError(f"`run` {str(asked.path)!r} is no run folder: it has no manifest.json.")
    with claimed(run if isinstance(run, Run) else asked.path, again=True) as owned:
        yield owned


__all__ = ["resume"]
