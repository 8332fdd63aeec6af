"""What a pass is, what it is given, and the events that listeners hear."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from einloom.ir.errors import Location
from einloom.ir.node import Node
from einloom.ir.record import record

Level = Literal["program", "loops"]


@dataclass(frozen=True)
class Pass:
    """Base of all passes: a frozen dataclass whose fields are its options.

    A subclass gives its `name` (kebab-case), the `level` of the IR that it takes, what it
    `assumes` (for example that values are finite), and `run`. Its docstring is the manual's
    text: what it does, an example before and after, and the source.
    """

    name: ClassVar[str]
    level: ClassVar[Level] = "program"
    # The level of what it returns; other than `level` only in a lowering.
    result_level: ClassVar[Level | None] = None
    assumes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        from einloom.passes.options import check

        check(self)

    def run(self, module: Any, context: Context) -> Any:
        """The module changed, or the same object where there was nothing to do."""
        raise NotImplementedError(type(self).__name__)

    def __str__(self) -> str:
        from einloom.passes.options import spelled

        return spelled(self)


@record
class Note:
    """A decision that a pass took, or declined to take, and why."""

    pass_name: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.pass_name}: {self.subject}: {self.text}"


@record
class BeforePass:
    """A pass is about to run on `module`; `position` counts from 1."""

    position: int
    pass_: Pass
    module: Node


@record
class AfterPass:
    """A pass has run, in `seconds` of wall time; `changed` is whether the module differs."""

    position: int
    pass_: Pass
    module: Node
    changed: bool
    seconds: float


@record
class RuleFired:
    """A rewrite rule replaced `before` by `after` in the statement that defines `statement`."""

    pass_name: str
    rule: str
    statement: str
    before: tuple[Node, ...]
    after: tuple[Node, ...]
    location: Location | None


Event = BeforePass | AfterPass | RuleFired | Note
Listener = Callable[[Event], None]


@dataclass
class Context:
    """What passes are given beside the module, and where they record their decisions.

    `target`: the description of the machine that is compiled for. `cost_model`: what decides
    between alternatives. `seed`: of every random choice. `strict`: no law that holds on floats
    only up to rounding or for finite values. `extents`: likely sizes of symbols, for costs only.
    `assume_no_overflow`: integer additions do not wrap, so that they distribute over max.
    `listeners` hear every event.
    """

    target: Any = None
    cost_model: Any = None
    seed: int = 0
    strict: bool = False
    assume_no_overflow: bool = False
    extents: Mapping[str, int] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    notes: list[Note] = field(default_factory=list)
    _said: set[Note] = field(default_factory=set, init=False, repr=False, compare=False)

    def note(self, pass_name: str, subject: str, text: str) -> None:
        """Record a decision about `subject` (a statement, a tensor, a kernel); said once."""
        note = Note(pass_name, subject, text)
        if note not in self._said:
            self._said.add(note)
            self.notes.append(note)
            self.emit(note)

    def emit(self, event: Event) -> None:
        """Tell all listeners."""
        for listener in self.listeners:
            listener(event)
