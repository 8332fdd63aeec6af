"""The machine code of the entries, generated once: it looks up a known call and runs its kernels.

Two C functions of CPython's METH_FASTCALL convention are made, whose `self` is a tuple that begins
with the words of `CONTEXT`:

    executable(table, operands, out)
    einsum(arguments, out, *options)      # the table and the usual options are in the context

Both return `missed` for whatever is not a known call, having done nothing that can be observed;
Python code then does the work, or says what is wrong.
"""

from __future__ import annotations

from einloom.backends.cpu.builder import ModuleBuilder
from einloom.backends.cpu.entry.layout import Layout
from einloom.backends.cpu.entry.objects import Objects
from einloom.backends.cpu.entry.run import PARAMETERS, RUN, Run
from einloom.backends.cpu.library import entry_symbol
from einloom.backends.cpu.target import Target

_FASTCALL = ("ptr %self", "ptr %arguments", "i64 %given")


def emit_entries(layout: Layout, target: Target) -> str:
    """The LLVM module of both entries, for objects that are laid out in this way."""
    module = ModuleBuilder(target)
    for emitter in (Run(module, layout), _Executable(module, layout), _Einsum(module, layout)):
        module.add(emitter.function())
    return module.text()


class _Executable(Objects):
    """`executable(table, operands, out)`."""

    def function(self) -> str:
        self.context = self.words_of("%self")
        self.unless(self.compare("icmp eq", "i64", "%given", "3"), "missed")
        table, operands, out = (self.load("ptr", "%arguments", 8 * k) for k in range(3))
        items = self.pointer(operands, self.layout.tuple_items)
        count = self.load("i64", operands, self.layout.size)
        self.run(table, "null", "0", items, count, out)
        return self.text(entry_symbol("executable"), "ptr", _FASTCALL)

    def run(self, *arguments: str) -> None:
        """The end of an entry."""
        types = [parameter.split()[0] for parameter in PARAMETERS]
        values = (self.context, *arguments)
        pairs = ", ".join(f"{t} {v}" for t, v in zip(types, values, strict=True))
        self.line(f"ret ptr {self.value(f'call ptr @{RUN}({pairs})')}")
        self.start("missed")
        self.return_missed()


class _Einsum(_Executable):
    """`einsum(arguments, out, *options)`: a spec and operands, all options being the usual ones."""

    def function(self) -> str:
        self.context = self.words_of("%self")
        options = self.of_context("options", "i64")
        given = self.op("sub", "i64", "%given", "2")
        self.unless(self.compare("icmp eq", "i64", given, options), "missed")
        usual = self.of_context("usual_options")
        actual = self.pointer("%arguments", 16)
        with self.loop(options) as each:
            pair = (self.load_at("ptr", words, each.index) for words in (actual, usual))
            self.unless(self.compare("icmp eq", "ptr", *pair), "missed")
        self._check_variable()
        arguments, out = (self.load("ptr", "%arguments", 8 * k) for k in range(2))
        size = self.load("i64", arguments, self.layout.size)
        self.unless(self.compare("icmp sge", "i64", size, "2"), "missed")
        spec = self.load("ptr", arguments, self.layout.tuple_items)
        self.unless(self.is_a(spec, "string_type"), "missed")
        start = self.c_call("i64", "PyObject_Hash", f"ptr {spec}")
        items = self.pointer(arguments, self.layout.tuple_items + 8)
        count = self.op("sub", "i64", size, "1")
        self.run(self.of_context("table"), spec, start, items, count, out)
        return self.text(entry_symbol("einsum"), "ptr", _FASTCALL)

    def _check_variable(self) -> None:
        """Miss where the context variable of options has another value than usual."""
        found = self.variable("ptr", "null")
        variable = f"ptr {self.of_context('variable')}"
        status = self.c_call("i32", "PyContextVar_Get", variable, "ptr null", f"ptr {found}")
        with self.when(self.compare("icmp ne", "i32", status, "0")):
            self.give("ptr", "null")
        value = self.load("ptr", found)
        self.c_call("void", "Py_DecRef", f"ptr {value}")
        usual = self.of_context("usual_variable")
        self.unless(self.compare("icmp eq", "ptr", value, usual), "missed")
