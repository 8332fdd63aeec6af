"""Reading objects of Python and NumPy from machine code, and calling their C functions."""

from __future__ import annotations

from collections.abc import Sequence

from einloom.backends.cpu.builder import ModuleBuilder
from einloom.backends.cpu.entry.layout import NUMPY_FUNCTIONS, PYTHON_FUNCTIONS, Layout
from einloom.backends.cpu.entry.structured import Structured

CONTEXT = (
    "missed", "none", "array_type", "string_type", "table", "variable", "usual_variable",
    "options", "usual_options", *PYTHON_FUNCTIONS, *NUMPY_FUNCTIONS,
)  # fmt: skip
"""Words that stay the same as long as the process runs: objects, a count, addresses of functions.

`options` is the number of `usual_options`.
"""


class Objects(Structured):
    """A function that knows the layout of objects and has the context at hand."""

    def __init__(self, module: ModuleBuilder, layout: Layout) -> None:
        super().__init__(module)
        self.layout = layout
        self.context = "%context"

    def of_context(self, name: str, machine_type: str = "ptr") -> str:
        return self.load(machine_type, self.context, 8 * CONTEXT.index(name))

    def c_call(self, result: str, name: str, *arguments: str) -> str:
        """Call a C function of Python or NumPy."""
        return self.call(result, self.of_context(name), *arguments)

    def is_a(self, pointer: str, type_name: str) -> str:
        """Whether an object is exactly of a type."""
        kind = self.load("ptr", pointer, self.layout.kind)
        return self.compare("icmp eq", "ptr", kind, self.of_context(type_name))

    def shape_of(self, array: str) -> tuple[str, str, str]:
        """Rank, extents and strides."""
        rank = self.load("i32", array, self.layout.rank)
        extents = self.load("ptr", array, self.layout.extents)
        strides = self.load("ptr", array, self.layout.strides)
        return self.convert("zext", "i32", rank, "i64"), extents, strides

    def words_of(self, pointer: str) -> str:
        """The words of a tuple that begins with an array of them."""
        array = self.load("ptr", pointer, self.layout.tuple_items)
        return self.load("ptr", array, self.layout.data)

    def word(self, words: str, fields: Sequence[str], name: str, machine_type: str = "i64") -> str:
        """A named one of a row of words."""
        return self.load(machine_type, words, 8 * fields.index(name))

    def return_missed(self) -> None:
        missed = self.of_context("missed")
        self.c_call("void", "Py_IncRef", f"ptr {missed}")
        self.line(f"ret ptr {missed}")
