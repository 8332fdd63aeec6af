"""A pipeline: passes in a legal order, as a list or as text, run, timed, verified and dumped."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from einloom.ir.errors import Diagnostic, EinloomError, PassError
from einloom.ir.node import Node
from einloom.ir.program import Module
from einloom.ir.record import record
from einloom.passes.base import AfterPass, BeforePass, Context, Level, Pass
from einloom.passes.options import parse_passes, unknown_pass
from einloom.passes.order import ORDER, Constraint, check_order


class InternalPassError(PassError):
    """A pass failed on a valid module: a defect of Einloom, with all that repeats it.

    `reproducer` is a program file: the pipeline and the seed as comments, then the module as it
    was before the pass that failed.
    """

    def __init__(
        self,
        message: str,
        *,
        diagnostics: tuple[Diagnostic, ...] = (),
        suggestion: str | None = None,
        reproducer: str = "",
    ) -> None:
        super().__init__(message, diagnostics=diagnostics, suggestion=suggestion)
        self.reproducer = reproducer

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.diagnostics, self.reproducer)


def _rebuild(diagnostics: tuple[Diagnostic, ...], reproducer: str) -> InternalPassError:
    return InternalPassError(diagnostics[0].message, diagnostics=diagnostics, reproducer=reproducer)


@record
class Timing:
    """How long one pass took, in seconds of wall time."""

    name: str
    seconds: float


@record
class Outcome:
    """What a run of a pipeline gives: the module, and the time that each pass took."""

    module: Any
    timings: tuple[Timing, ...]


@record
class Pipeline:
    """An immutable sequence of passes whose order has been checked.

    >>> str(Pipeline.parse("simplify{max_firings=500}, simplify"))
    'simplify{max_firings=500}, simplify'
    """

    passes: tuple[Pass, ...]

    def __init__(
        self, passes: Iterable[Pass | str] = (), *, constraints: Sequence[Constraint] = ORDER
    ) -> None:
        """Take passes, or texts that each name one or more. Raises PassError."""
        if isinstance(passes, str) or not isinstance(passes, Iterable):
            raise PassError(
                f"a pipeline is made of a list of passes, not of type {type(passes).__name__}",
                suggestion="read a text by Pipeline.parse(text)",
            )
        found: list[Pass] = []
        for item in passes:
            if not isinstance(item, str | Pass):
                raise PassError(
                    f"{item!r} is no pass", suggestion="give passes, or texts such as 'simplify'"
                )
            found += parse_passes(item, registry()) if isinstance(item, str) else [item]
        check_order([p.name for p in found], constraints)
        _check_levels(found)
        object.__setattr__(self, "passes", tuple(found))

    @classmethod
    def parse(cls, text: str, *, known: Sequence[type[Pass]] | None = None) -> Pipeline:
        """Read `name{option=value}, name, ...`. Raises PassError with a caret.

        `known`: the passes that may be named, all that Einloom has by default.
        """
        if not isinstance(text, str):
            raise PassError(
                f"Pipeline.parse reads a text, not a value of type {type(text).__name__}",
                suggestion="make a list of passes a pipeline by Pipeline([...])",
            )
        return cls(parse_passes(text, registry() if known is None else known))

    def __str__(self) -> str:
        return ", ".join(str(p) for p in self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the passes in order."""
        return tuple(p.name for p in self.passes)

    def run(self, module: Any, context: Context | None = None, **options: Any) -> Any:
        """The module after all passes; takes the options of `trace`."""
        return self.trace(module, context, **options).module

    def trace(
        self,
        module: Any,
        context: Context | None = None,
        *,
        verify_each: bool = False,
        stop_after: str | None = None,
        disable: Collection[str] = (),
        dump_dir: str | Path | None = None,
    ) -> Outcome:
        """Run the passes and report the time of each.

        `verify_each`: check the module at the start and after every pass. `stop_after`: the name
        of the last pass to run (its first occurrence). `disable`: names of passes to leave out.
        `dump_dir`: a folder, made if missing, for the module at the start and after every pass,
        in numbered files.

        Raises PassError for a name that is not in this pipeline, InternalPassError when a pass
        fails or breaks the module, and any other EinloomError as the pass raised it.
        """
        if not isinstance(module, Node):
            raise PassError(
                f"a pipeline runs on a module, not on a value of type {type(module).__name__}",
                suggestion="read a program by einloom.parse(text) or einloom.load(path)",
            )
        context = Context() if context is None else context
        for name in ([] if stop_after is None else [stop_after], disable):
            for each in name:
                if each not in self.names:
                    raise unknown_pass(each, self.names or ("(none)",))
        folder = None if dump_dir is None else Path(dump_dir)
        _dump(folder, 0, "input", module)
        if verify_each:
            _verify(module)
        timings: list[Timing] = []
        for position, current in enumerate(self.passes, start=1):
            if current.name not in disable:
                module, seconds = self._step(position, current, module, context, verify_each)
                timings.append(Timing(current.name, seconds))
                _dump(folder, position, current.name, module)
            if current.name == stop_after:
                break
        return Outcome(module, tuple(timings))

    def _step(
        self, position: int, current: Pass, module: Any, context: Context, verify_each: bool
    ) -> tuple[Any, float]:
        context.emit(BeforePass(position, current, module))
        started = time.perf_counter()
        try:
            result = current.run(module, context)
        except EinloomError:
            raise
        except Exception as error:
            raise self._internal(current, module, context, _described(error), ()) from error
        seconds = time.perf_counter() - started
        if not isinstance(result, Node):
            what = f"it returned {type(result).__name__}, not a module"
            raise self._internal(current, module, context, what, ())
        if verify_each:
            try:
                _verify(result)
            except EinloomError as error:
                what = "the module that it made is not valid"
                raise self._internal(current, module, context, what, error.diagnostics) from error
        changed = result is not module and result != module
        context.emit(AfterPass(position, current, result, changed, seconds))
        return result, seconds

    def _internal(
        self,
        current: Pass,
        module: Any,
        context: Context,
        what: str,
        diagnostics: tuple[Diagnostic, ...],
    ) -> InternalPassError:
        message = f"internal error in pass {current.name}: {what}"
        return InternalPassError(
            message,
            diagnostics=(Diagnostic(message), *diagnostics),
            reproducer=self.reproducer(module, context),
        )

    def reproducer(self, module: Any, context: Context) -> str:
        """A program file that repeats a run: pipeline, seed and options, then the module."""
        lines = [f"# pipeline: {self}", f"# seed: {context.seed}"]
        if context.strict:
            lines.append("# strict")
        try:
            text = str(module)
        except Exception as error:  # the printer may be what fails
            text = f"# the module cannot be printed: {_described(error)}"
        return "\n".join([*lines, text, ""])


def registry() -> Sequence[type[Pass]]:
    """All passes that Einloom has."""
    from einloom.passes.registry import ALL_PASSES

    return ALL_PASSES


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _check_levels(passes: Sequence[Pass]) -> None:
    """A pass takes the level of IR that the one before it leaves."""
    for earlier, later in pairwise(passes):
        left: Level = earlier.result_level or earlier.level
        if left != later.level:
            raise PassError(
                f"{later.name} works on {later.level}, but {earlier.name} leaves {left}",
                suggestion=f"put {later.name} before {earlier.name}"
                if later.level == "program"
                else f"lower the program to {later.level} before {later.name}",
            )


def _verify(module: Any) -> None:
    if isinstance(module, Module):
        from einloom.ir.verify import verify

        verify(module)


def _dump(folder: Path | None, position: int, name: str, module: Any) -> None:
    if folder is None:
        return
    suffix = "ein" if isinstance(module, Module) else "loops"
    file = folder / f"{position:02d}-{name}.{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{module}\n", encoding="utf-8")
    except OSError as error:
        raise PassError(f"cannot write {file}: {error.strerror}") from error
