"""What EINLOOM_DEBUG prints about a compilation, on standard error.

1: how long each pass took. 2: decisions, and the IR where it changed. 3: every rule that fired,
with file and line. 4: LLVM IR and assembly.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from einloom import config

if TYPE_CHECKING:
    from einloom.executable import Executable
    from einloom.passes.base import Event, Listener

TIMINGS, CHANGES, RULES, CODE = 1, 2, 3, 4


def debug_listeners() -> tuple[Listener, ...]:
    """Listeners for a pass context at the level that the environment asks for now.

    Raises EinloomError for an illegal level.
    """
    level = config.debug_level()
    if not level:
        return ()

    def listen(event: Event) -> None:
        text = described(event, level)
        if text is not None:
            say(text)

    return (listen,)


def described(event: Event, level: int) -> str | None:
    """What to print of an event at a level; None: nothing."""
    from einloom.passes.base import AfterPass, Note, RuleFired

    match event:
        case AfterPass():
            changed = "changed" if event.changed else "no change"
            text = f"{event.position} {event.pass_}: {1e3 * event.seconds:.2f} ms, {changed}"
            return f"{text}\n{event.module}" if event.changed and level >= CHANGES else text
        case Note() if level >= CHANGES:
            return str(event)
        case RuleFired() if level >= RULES:
            where = "" if event.location is None else f"{event.location}: "
            before, after = (", ".join(map(str, side)) for side in (event.before, event.after))
            return (
                f"{where}{event.pass_name}: {event.rule} in {event.statement}\n"
                f"  - {before}\n  + {after}"
            )
    return None


def debug_code(executable: Executable) -> None:
    """At level 4, print the machine code of a program for contiguous operands."""
    if config.debug_level() >= CODE:
        say(executable.llvm(optimized=True))
        say(executable.asm())


def say(text: str) -> None:
    """Print on standard error, every line marked, so that `grep` can tell it apart."""
    lines = "".join(f"einloom: {line}\n" for line in text.rstrip("\n").split("\n"))
    sys.stderr.write(lines)
    sys.stderr.flush()
