"""Finding the first pass of a pipeline that changes what a program computes, or that fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from einloom.cli.comparison import compare, largest, roundings
from einloom.ir.errors import EinloomError
from einloom.ir.program import Module
from einloom.ir.record import record

if TYPE_CHECKING:
    from einloom.passes import Context, Pipeline
    from einloom.passes.base import Event


@record
class Step:
    """What one pass did: `verdict` in words, `kind` for comparing failures of two programs.

    `kind` is "" where the results stayed the same.
    """

    position: int
    pass_text: str
    verdict: str
    kind: str = ""

    @property
    def wrong(self) -> bool:
        return bool(self.kind)


def bisect(
    pipeline: Pipeline,
    module: Module,
    context: Context,
    arrays: Mapping[str, Any],
    sizes: Mapping[str, int],
    **options: Any,
) -> list[Step]:
    """The passes up to the first one at fault, which is the last of the list; or all of them.

    `options` are those of `Pipeline.trace`. A linear search: passes that change nothing cost
    nothing, and a later pass may hide what an earlier one broke. Raises EinloomError where the
    program itself cannot be interpreted.
    """
    from einloom.ir.interpret import interpret
    from einloom.passes.base import AfterPass, BeforePass

    references = interpret(module, arrays)
    counted, scale = roundings(module, sizes), largest(arrays)
    steps: list[Step] = []
    started: list[BeforePass] = []

    class Found(Exception):
        """Stops the pipeline: what comes after the first fault says nothing."""

    def listen(event: Event) -> None:
        if isinstance(event, BeforePass):
            started.append(event)
        if not isinstance(event, AfterPass):
            return
        verdict, kind = "the program did not change", ""
        if event.changed:
            verdict, kind = _judged(event.module)
        steps.append(Step(event.position, str(event.pass_), verdict, kind))
        if kind:
            raise Found

    def _judged(after: Any) -> tuple[str, str]:
        if not isinstance(after, Module):
            return "not compared: below the program level", ""
        try:
            results = interpret(after, arrays)
        except EinloomError as error:
            return f"the interpreter refuses the program: {error.message}", "refused"
        except Exception as error:  # what a pass has broken may break anything
            return f"the interpreter fails: {type(error).__name__}: {error}", "broken"
        if set(results) != set(references):
            return f"the results are now {', '.join(results) or 'none'}", "other results"
        differences = compare(results, references, counted, scale)
        wrong = [str(d) for d in differences if not d.agrees]
        if wrong:
            return "; ".join(wrong), "differs"
        return f"the same (max error {max((d.error for d in differences), default=0):.3g})", ""

    watched = replace(context, listeners=(*context.listeners, listen), notes=[])
    try:
        pipeline.run(module, watched, **options)
    except Exception as error:
        # The pipeline takes Found for a defect of its own when a listener is called inside it.
        if not (steps and steps[-1].wrong):
            if len(started) == len(steps):
                raise
            steps.append(_raised(started[-1], error))
    return steps


def _raised(event: Any, error: Exception) -> Step:
    from einloom.passes.pipeline import InternalPassError

    if isinstance(error, InternalPassError):
        verdict = error.message
    elif isinstance(error, EinloomError):
        verdict = f"raises {type(error).__name__}: {error.message}"
    else:
        verdict = f"raises {type(error).__name__}: {error}"
    cause = error.__cause__ or error
    return Step(event.position, str(event.pass_), verdict, f"raises {type(cause).__name__}")
