"""Pipelines: text and list form, options, order, listeners, verification, dumps, reproducers."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import ClassVar, Literal

import pytest

from einloom.ir.errors import EinloomError, PassError, ShapeError
from einloom.ir.expressions import Access, Index
from einloom.ir.program import Einsum, Module, Target
from einloom.ir.text import parse
from einloom.passes import Context, Pass, Pipeline
from einloom.passes.base import AfterPass, BeforePass, Event, Level, Note
from einloom.passes.pipeline import InternalPassError
from einloom.passes.registry import ALL_PASSES


@dataclass(frozen=True)
class Rename(Pass):
    """Add to the name of a program."""

    name: ClassVar[str] = "rename"
    suffix: str = "x"
    times: int = 1
    scale: float = 1.0
    loud: bool = False
    mode: Literal["plain", "fancy"] = "plain"
    limit: int | None = None

    def run(self, module: Module, context: Context) -> Module:
        context.note(self.name, module.name, f"got {self.suffix * self.times}")
        return replace(module, name=module.name + self.suffix * self.times)


@dataclass(frozen=True)
class Idle(Pass):
    """Do nothing."""

    name: ClassVar[str] = "idle"

    def run(self, module: Module, context: Context) -> Module:
        return replace(module)


@dataclass(frozen=True)
class Fail(Pass):
    """Raise what it is told to."""

    name: ClassVar[str] = "fail"
    kind: Literal["value", "shape", "none", "broken"] = "value"

    def run(self, module: Module, context: Context) -> Module | None:
        if self.kind == "value":
            raise ValueError("no such thing")
        if self.kind == "shape":
            raise ShapeError("sizes disagree")
        if self.kind == "none":
            return None
        lost = Einsum((Target("B"),), (Index("i"),), Access("Lost", (Index("i"),)))
        return replace(module, body=(lost,))


@dataclass(frozen=True)
class Lower(Pass):
    """Stand for a lowering."""

    name: ClassVar[str] = "lower"
    result_level: ClassVar[Level | None] = "loops"


@dataclass(frozen=True)
class Unroll(Pass):
    """Stand for a pass over loops."""

    name: ClassVar[str] = "unroll"
    level: ClassVar[Level] = "loops"


KNOWN = (Rename, Idle, Fail, Lower, Unroll)


def program() -> Module:
    return parse("program p(A: f64[i=4]) -> (B) {\n  B[i] = A[i] * 1.0\n}")


def pipeline(text: str) -> Pipeline:
    return Pipeline.parse(text, known=KNOWN)


def message(text: str) -> str:
    """The whole text of the error that a pipeline gives."""
    with pytest.raises(PassError) as caught:
        pipeline(text)
    return str(caught.value)


# ---- text ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rename",
        "rename, idle, rename",
        "rename{suffix=yy}",
        'rename{suffix="a b, {c} \\"d\\" é"}',
        'rename{suffix="true"}',
        'rename{suffix="none"}',
        'rename{suffix="1"}',
        'rename{suffix=""}',
        "fail{kind=shape}",
        "rename{times=-3, scale=0.25, loud=true, mode=fancy, limit=7}",
        "rename{scale=1e-30}",
    ],
)
def test_text_round_trips(text: str) -> None:
    first = pipeline(text)
    assert str(first) == text
    assert pipeline(str(first)) == first


def test_spaces_defaults_and_final_commas_are_not_kept() -> None:
    first = pipeline(" rename { times = 2 , mode = plain, } ,\n idle { } ")
    assert first.passes == (Rename(times=2), Idle())
    assert str(first) == "rename{times=2}, idle"


def test_list_form_equals_text_form() -> None:
    assert Pipeline([Rename(times=2), Idle()]) == pipeline("rename{times=2}, idle")
    assert str(Pipeline(["simplify{max_firings=3}", Idle()])) == "simplify{max_firings=3}, idle"


def test_bare_words_are_texts_where_texts_are_wanted() -> None:
    line = pipeline("rename{suffix=none}, rename{suffix=12}, fail{kind=none}")
    assert line.passes == (Rename("none"), Rename("12"), Fail("none"))
    assert pipeline(str(line)) == line


def test_whole_numbers_are_numbers_and_none_is_allowed_where_declared() -> None:
    assert pipeline("rename{scale=2, limit=none}").passes == (Rename(scale=2, limit=None),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "idle, renam",
            "<pipeline>:1:7: unknown pass 'renam'\n"
            "  idle, renam\n"
            "        ^^^^^\n"
            "  hint: did you mean rename?",
        ),
        (
            "zzz",
            "<pipeline>:1:1: unknown pass 'zzz'\n"
            "  zzz\n"
            "  ^^^\n"
            "  hint: the passes are: rename, idle, fail, lower, unroll",
        ),
        (
            "rename{tims=1}",
            "<pipeline>:1:8: rename has no option 'tims'\n"
            "  rename{tims=1}\n"
            "         ^^^^\n"
            "  hint: did you mean times? "
            "its options are: suffix, times, scale, loud, mode, limit",
        ),
        (
            "idle{a=1}",
            "<pipeline>:1:6: idle has no option 'a'\n"
            "  idle{a=1}\n"
            "       ^\n"
            "  hint: it has no options",
        ),
        (
            "rename{times=many}",
            "<pipeline>:1:14: option times of rename is many; it takes a whole number\n"
            "  rename{times=many}\n"
            "               ^^^^",
        ),
        (
            "rename{times=1.5}",
            "<pipeline>:1:14: option times of rename is 1.5; it takes a whole number\n"
            "  rename{times=1.5}\n"
            "               ^^^",
        ),
        (
            "rename{loud=1}",
            "<pipeline>:1:13: option loud of rename is 1; it takes true or false\n"
            "  rename{loud=1}\n"
            "              ^",
        ),
        (
            "rename{mode=fancey}",
            "<pipeline>:1:13: option mode of rename is fancey; it takes plain or fancy\n"
            "  rename{mode=fancey}\n"
            "              ^^^^^^\n"
            "  hint: did you mean fancy?",
        ),
        (
            "rename{limit=big}",
            "<pipeline>:1:14: option limit of rename is big; it takes a whole number or none\n"
            "  rename{limit=big}\n"
            "               ^^^",
        ),
        (
            "rename{times=1, times=2}",
            "<pipeline>:1:17: option times of rename is given twice\n"
            "  rename{times=1, times=2}\n"
            "                  ^^^^^",
        ),
        (
            "rename idle",
            "<pipeline>:1:8: expected a comma between passes, found idle\n"
            "  rename idle\n"
            "         ^^^^",
        ),
        (
            "rename,",
            "<pipeline>:1:8: expected the name of a pass, found the end\n  rename,\n         ^",
        ),
        (
            "rename{times=1",
            "<pipeline>:1:15: expected a comma or } after an option, found the end\n"
            "  rename{times=1\n"
            "                ^",
        ),
        (
            "rename{times}",
            "<pipeline>:1:13: expected = and a value for times, found }\n"
            "  rename{times}\n"
            "              ^",
        ),
        (
            "rename{times=}",
            "<pipeline>:1:14: expected a value for times, found }\n"
            "  rename{times=}\n"
            "               ^",
        ),
        (
            "rename; idle",
            "<pipeline>:1:7: unexpected character ';' in a pipeline\n"
            "  rename; idle\n"
            "        ^\n"
            "  hint: write name{option=value}, name, ...; other text goes in quotes",
        ),
    ],
)
def test_messages(text: str, expected: str) -> None:
    assert message(text) == expected


@pytest.mark.parametrize("text", ['rename{suffix="a', "{", "=,", "rename{{", "1", "idle{" * 9])
def test_malformed_text_is_a_pass_error(text: str) -> None:
    message(text)


def test_random_text_gives_passes_or_a_pass_error() -> None:
    random = Random(5)
    pieces = ["rename", "idle", "{", "}", ",", "=", "times", "3", "-1.5e3", '"', '"a"', "\\", " "]
    pieces += [
        "none",
        "true",
        "mode",
        "fancy",
        "é",
        "\n",
        "{times=2}",
        "suffix=b",
        "\x00",
        "9" * 99,
    ]
    read = 0
    for _ in range(3000):
        text = "".join(random.choice(pieces) for _ in range(random.randint(1, 8)))
        try:
            assert pipeline(str(pipeline(text))) == pipeline(text)
            read += 1
        except PassError:
            pass
    assert read > 20


def test_options_are_checked_in_python_too() -> None:
    with pytest.raises(PassError) as caught:
        Rename(times="3")  # type: ignore[arg-type]
    assert str(caught.value) == 'option times of rename is "3"; it takes a whole number'
    with pytest.raises(PassError):
        Rename(times=True)


def test_levels_must_fit() -> None:
    assert message("lower, idle") == (
        "idle works on program, but lower leaves loops\n  hint: put idle before lower"
    )
    assert message("idle, unroll") == (
        "unroll works on loops, but idle leaves program\n"
        "  hint: lower the program to loops before unroll"
    )
    assert str(pipeline("idle, lower, unroll")) == "idle, lower, unroll"


# ---- running ------------------------------------------------------------------------------


def test_passes_run_in_order_and_listeners_hear_it() -> None:
    heard: list[Event] = []
    context = Context(listeners=(heard.append,))
    outcome = pipeline("rename{suffix=y}, idle, rename").trace(program(), context)
    assert outcome.module.name == "pyx"
    assert [timing.name for timing in outcome.timings] == ["rename", "idle", "rename"]
    assert all(timing.seconds >= 0 for timing in outcome.timings)
    told = []
    for event in heard:
        match event:
            case BeforePass(position, pass_, module):
                told.append(f"{position} before {pass_.name} {module.name}")  # type: ignore[attr-defined]
            case AfterPass(position, pass_, module, changed, _):
                told.append(f"{position} after {pass_.name} {module.name} {changed}")  # type: ignore[attr-defined]
            case Note():
                told.append(str(event))
    assert told == [
        "1 before rename p",
        "rename: p: got y",
        "1 after rename py True",
        "2 before idle py",
        "2 after idle py False",
        "3 before rename py",
        "rename: py: got x",
        "3 after rename pyx True",
    ]
    assert [str(note) for note in context.notes] == ["rename: p: got y", "rename: py: got x"]


def test_a_note_is_kept_once() -> None:
    context = Context()
    context.note("fuse", "QK", "stays alone")
    context.note("fuse", "QK", "stays alone")
    assert len(context.notes) == 1


def test_stop_after_and_disable() -> None:
    line = pipeline("rename, idle, rename{suffix=z}")
    assert line.run(program(), stop_after="idle").name == "px"
    assert line.run(program(), disable=["rename"]).name == "p"
    assert line.run(program(), disable=["idle"], stop_after="idle").name == "px"
    with pytest.raises(PassError) as caught:
        line.run(program(), stop_after="idel")
    assert str(caught.value) == "unknown pass 'idel'\n  hint: did you mean idle?"
    with pytest.raises(PassError):
        line.run(program(), disable=["fuse"])


def test_dumps_are_numbered_and_parse(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "dump"
    pipeline("rename, idle, rename").run(program(), dump_dir=folder, disable=["idle"])
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == ["00-input.ein", "01-rename.ein", "03-rename.ein"]
    assert [parse(file.read_text()).name for file in files] == ["p", "px", "pxx"]


def test_a_folder_that_cannot_be_made_is_a_pass_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PassError, match="cannot write"):
        pipeline("idle").run(program(), dump_dir=tmp_path / "file" / "dump")


# ---- failures -----------------------------------------------------------------------------


def test_a_defect_in_a_pass_carries_a_reproducer() -> None:
    with pytest.raises(InternalPassError) as caught:
        pipeline("rename, fail").run(program(), Context(seed=7, strict=True))
    error = caught.value
    assert str(error) == "internal error in pass fail: ValueError: no such thing"
    assert isinstance(error.__cause__, ValueError)
    assert error.reproducer == (
        "# pipeline: rename, fail\n# seed: 7\n# strict\n"
        "program px(A: f64[i=4]) -> (B) {\n  B[i] = A[i] * 1.0\n}\n\n"
    )
    assert parse(error.reproducer).name == "px"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.reproducer) == (str(error), error.reproducer)


def test_an_error_of_the_user_passes_through() -> None:
    with pytest.raises(ShapeError) as caught:
        pipeline("fail{kind=shape}").run(program())
    assert str(caught.value) == "sizes disagree"


def test_what_is_no_module_is_an_internal_error() -> None:
    with pytest.raises(InternalPassError, match="it returned NoneType, not a module"):
        pipeline("fail{kind=none}").run(program())


def test_verification_after_each_pass_names_the_pass() -> None:
    line = pipeline("fail{kind=broken}, idle")
    with pytest.raises(InternalPassError) as caught:
        line.run(program(), verify_each=True)
    assert str(caught.value).splitlines()[:2] == [
        "internal error in pass fail: the module that it made is not valid",
        "Lost is not defined",
    ]
    assert "B[i] = A[i] * 1.0" in caught.value.reproducer
    assert line.run(program()).body != program().body


def test_verification_of_the_input_is_no_internal_error() -> None:
    broken = pipeline("fail{kind=broken}").run(program())
    with pytest.raises(EinloomError) as caught:
        pipeline("idle").run(broken, verify_each=True)
    assert not isinstance(caught.value, InternalPassError)


# ---- the registry -------------------------------------------------------------------------


def test_every_pass_is_ready_for_the_manual() -> None:
    names = [cls.name for cls in ALL_PASSES]
    assert "simplify" in names
    assert len(set(names)) == len(names)
    for cls in ALL_PASSES:
        assert cls.__doc__ and len(cls.__doc__) > 300 and "Source:" in cls.__doc__, cls.name
        assert cls.name == cls.name.lower()
        assert str(Pipeline.parse(cls.name)) == cls.name
