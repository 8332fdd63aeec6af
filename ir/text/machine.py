"""The LALR(1) automaton: lark makes its tables from the grammar, and the loop here runs them.

The loop of lark itself spends most of a long program's time on comparing rules and token
names that are objects of its own; here both are resolved once, when the tables are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any, Generic, TypeVar

from einloom.ir.errors import Source
from einloom.ir.text.build_expressions import ExpressionBuilder
from einloom.ir.text.build_module import ModuleBuilder
from einloom.ir.text.lexer import Token

BuilderT = TypeVar("BuilderT", bound=ExpressionBuilder)

STARTS = ("module", "definitions", "expression", "tensor_type")

END = "$END"

Reduce = tuple[int, Callable[[list[Any]], Any], str]
"""How many values a rule takes, what makes one of them, and the name of the result."""

Row = dict[str, int | Reduce]
"""What a state does on a token: go to another state, or reduce first."""


class Misplaced(Exception):
    """A token (None: the end) that fits nowhere, and the tokens that would have fitted."""

    def __init__(self, token: Token | None, accepted: set[str]) -> None:
        super().__init__(token)
        self.token = token
        self.accepted = accepted


class Machine(Generic[BuilderT]):
    """The automaton and the builder that its rules call; it works on one text at a time.

    `grammars` names the files that hold the rules: together they are one grammar.
    """

    def __init__(
        self, builder: BuilderT, grammars: tuple[str, ...], starts: tuple[str, ...]
    ) -> None:
        self.builder = builder
        table, callbacks = _tables(builder, grammars, starts)
        made = {
            rule: (len(rule.expansion), callback, str(rule.origin.name))
            for rule, callback in callbacks.items()
            if not isinstance(rule, str)
        }
        self.rows: list[Row] = [{} for _ in table.states]
        for state, actions in table.states.items():
            # an action is (Shift, state), also after a rule's name, or (Reduce, rule)
            self.rows[state] = {
                str(name): argument if isinstance(argument, int) else made[argument]
                for name, (_, argument) in actions.items()
            }
        self.first: dict[str, int] = dict(table.start_states)
        self.last: dict[str, int] = dict(table.end_states)

    def run(self, start: str, tokens: Iterable[Token]) -> Any:
        """The value of the start rule for a whole text; raises Misplaced."""
        rows = self.rows
        states = [self.first[start]]
        values: list[Any] = []
        row = rows[states[0]]
        for token in tokens:
            kind = token.type
            while True:
                step = row.get(kind)
                if type(step) is int:
                    states.append(step)
                    values.append(token)
                    row = rows[step]
                    break
                if step is None:
                    raise Misplaced(token, self.accepted(states))
                row = rows[self.reduce(step, states, values)]  # type: ignore[arg-type]
        while True:
            end = row.get(END)
            if end is None or isinstance(end, int):
                raise Misplaced(None, self.accepted(states))
            state = self.reduce(end, states, values)
            if state == self.last[start]:
                return values[-1]
            row = rows[state]

    def reduce(self, step: Reduce, states: list[int], values: list[Any]) -> int:
        """Replace the values on the right side of a rule by the one that it makes."""
        size, make, name = step
        if size:
            arguments = values[-size:]
            del values[-size:]
            del states[-size:]
        else:
            arguments = []
        values.append(make(arguments))
        state = self.rows[states[-1]][name]
        assert isinstance(state, int)
        states.append(state)
        return state

    def accepted(self, states: list[int]) -> set[str]:
        """The tokens that fit behind what was read, found by trying each on the states alone."""
        return {
            kind for kind in self.rows[states[-1]] if not kind.islower() and self.fits(kind, states)
        }

    def fits(self, kind: str, states: list[int]) -> bool:
        # only the top of the stack is ever looked at: copy what the reductions use up
        below = len(states)
        above: list[int] = []
        while True:
            step = self.rows[above[-1] if above else states[below - 1]].get(kind)
            if step is None:
                return False
            if isinstance(step, int):
                return True
            size, _, name = step
            kept = max(0, len(above) - size)
            below -= size - (len(above) - kept)
            del above[kept:]
            if kind == END and below == 0 and not above:
                return True
            state = self.rows[above[-1] if above else states[below - 1]][name]
            assert isinstance(state, int)
            above.append(state)
            if kind == END and state in self.last.values():
                return True


def _tables(
    builder: ExpressionBuilder, grammars: tuple[str, ...], starts: tuple[str, ...]
) -> tuple[Any, dict[Any, Any]]:
    """The parse table of the grammar, and for each of its rules the function that it calls."""
    from lark import Lark
    from lark.lexer import Lexer

    class Unused(Lexer):
        """The tokens come from `lexer.py`; lark needs no patterns for them."""

        def __init__(self, configuration: Any) -> None:
            pass

        def lex(self, *_: Any) -> Any:
            raise NotImplementedError

    folder = files("einloom.ir.text")
    grammar = "\n".join(folder.joinpath(name).read_text("utf-8") for name in grammars)
    lark: Any = Lark(
        grammar,
        parser="lalr",
        lexer=Unused,
        start=list(starts),
        maybe_placeholders=False,
        transformer=builder,
    )
    frontend = lark.parser
    return frontend.parser._parse_table, frontend.parser_conf.callbacks


@cache
def idle_machines() -> list[Machine[ModuleBuilder]]:
    """Machines that no call uses: threads that parse at once have one each, without a lock."""
    return []


def program_machine() -> Machine[ModuleBuilder]:
    return Machine(ModuleBuilder(), ("program.lark",), STARTS)


@contextmanager
def borrowed(
    idle: list[Machine[BuilderT]], make: Callable[[], Machine[BuilderT]]
) -> Iterator[Machine[BuilderT]]:
    """An idle machine, or a new one; it is idle again, and knows no text, afterwards."""
    try:
        machine = idle.pop()
    except IndexError:
        machine = make()
    try:
        yield machine
    finally:
        machine.builder.begin(_NOTHING)
        idle.append(machine)


_NOTHING = Source("<nothing>", "")
