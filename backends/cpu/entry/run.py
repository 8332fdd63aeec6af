"""From operands to results in machine code: hash, look-up, allocation, launches."""

from __future__ import annotations

from einloom.backends.cpu.entry.known import (
    ALIGNMENT,
    BUFFER,
    HEAD,
    LAUNCH,
    MOST_TENSORS,
    MULTIPLIER,
    OPERAND,
    OUT,
    PROBES,
    RESULT,
    SCALAR,
    SCRATCH,
    STORAGE,
)
from einloom.backends.cpu.entry.objects import Objects

RUN = "run"
PARAMETERS = ("ptr %context", "ptr %table", "ptr %key", "i64 %start", "ptr %items", "i64 %count",
              "ptr %out")  # fmt: skip
"""`start` is the hash of the key; `items` points to the operands."""

WRITEABLE = 0x0400
WARNS_ON_WRITE = 1 << 31
"""NumPy's NPY_ARRAY_WRITEABLE and NPY_ARRAY_WARN_ON_WRITE."""
SCALAR_BYTES = 64


class Run(Objects):
    """The function that both entries end in."""

    def function(self) -> str:
        self.objects = self.array("ptr", MOST_TENSORS)
        self.addresses = self.array("ptr", MOST_TENSORS)
        self.scalar = self.memory(SCALAR_BYTES, ALIGNMENT)
        self.result = self.variable("ptr", "null")
        self.scalar_dtype = self.variable("ptr", "null")
        self.scratch = self.variable("ptr", "null")
        self.total = self.gather()
        self.known = self.look_up(self.hash())
        # The table may lose the call while kernels run, or while an allocation runs finalisers.
        self.c_call("void", "Py_IncRef", f"ptr {self.known}")
        self.head = self.words_of(self.known)
        self.place_given()
        self.allocate_scratch()
        self.allocate_results()
        self.launch()
        self.return_result()
        for label in ("failed", "undone"):
            self.start(label)
            self.c_call("void", "Py_DecRef", f"ptr {self.load('ptr', self.result)}")
            self.drop()
            if label == "failed":
                self.line("ret ptr null")
            else:
                self.jump("missed")
        self.start("missed")
        self.return_missed()
        return self.text(RUN, "ptr", PARAMETERS, exported=False)

    def same(self, one: str, other: str, otherwise: str) -> None:
        self.unless(self.compare("icmp eq", "i64", one, other), otherwise)

    # ---- the operands, and what they hash to ------------------------------------------------

    def gather(self) -> str:
        """Put operands and `out`, exact arrays all, into one list. Returns how many they are."""
        few = self.compare("icmp ult", "i64", "%count", str(MOST_TENSORS))
        self.unless(few, "missed")
        with self.loop("%count") as each:
            item = self.load_at("ptr", "%items", each.index)
            self.unless(self.is_a(item, "array_type"), "missed")
            self.store_at("ptr", item, self.objects, each.index)
        total = self.variable("i64", "%count")
        with self.when(self.compare("icmp ne", "ptr", "%out", self.of_context("none"))):
            self.unless(self.is_a("%out", "array_type"), "missed")
            flags = self.load("i32", "%out", self.layout.flags)
            asked = self.op("and", "i32", flags, str(_signed(WRITEABLE | WARNS_ON_WRITE, 32)))
            self.unless(self.compare("icmp eq", "i32", asked, str(WRITEABLE)), "missed")
            self.store_at("ptr", "%out", self.objects, "%count")
            self.store("i64", self.op("add", "i64", "%count", "1"), total)
        return self.load("i64", total)

    def hash(self) -> str:
        """As `known.hash_of` computes it."""
        found = self.variable("i64", "%start")
        with self.loop(self.total) as each:
            array = self.load_at("ptr", self.objects, each.index)
            rank, extents, strides = self.shape_of(array)
            self.mix(found, self.load("i64", array, self.layout.dtype))
            self.mix(found, rank)
            for words in (extents, strides):
                with self.loop(rank) as axis:
                    self.mix(found, self.load_at("i64", words, axis.index))
        return self.load("i64", found)

    def mix(self, found: str, word: str) -> None:
        changed = self.op("xor", "i64", self.load("i64", found), word)
        product = self.op("mul", "i64", changed, str(_signed(MULTIPLIER, 64)))
        high = self.op("lshr", "i64", product, "32")
        self.store("i64", self.op("xor", "i64", product, high), found)

    # ---- look-up ----------------------------------------------------------------------------

    def look_up(self, key_hash: str) -> str:
        """The known call with these operands, or miss."""
        slots = self.load("ptr", "%table", self.layout.list_items)
        size = self.load("i64", "%table", self.layout.size)
        last = self.op("sub", "i64", size, "1")
        found = self.variable("ptr", "null")
        with self.loop(str(PROBES)) as probe:
            slot = self.op("and", "i64", self.op("add", "i64", key_hash, probe.index), last)
            known = self.load_at("ptr", slots, slot)
            empty = self.compare("icmp eq", "ptr", known, self.of_context("none"))
            self.unless(self.op("xor", "i1", empty, "true"), probe.next)
            words = self.words_of(known)
            self.same(self.word(words, HEAD, "hash"), key_hash, probe.next)
            self.same(self.word(words, HEAD, "operands"), self.total, probe.next)
            extra = self.op("sub", "i64", self.total, "%count")
            self.same(self.word(words, HEAD, "writes_out"), extra, probe.next)
            self.check_key(words, probe.next)
            self.check_operands(words, probe.next)
            self.store("ptr", known, found)
            self.leave_for(probe.done)
        known = self.load("ptr", found)
        self.unless(self.compare("icmp ne", "ptr", known, "null"), "missed")
        return known

    def check_key(self, words: str, otherwise: str) -> None:
        """Both without a spec, or specs of equal text, which mostly are the same object."""
        key = self.word(words, HEAD, "key", "ptr")
        with self.when(self.compare("icmp ne", "ptr", key, "%key")):
            for one in (key, "%key"):
                self.unless(self.compare("icmp ne", "ptr", one, "null"), otherwise)
            order = self.c_call("i32", "PyUnicode_Compare", f"ptr {key}", "ptr %key")
            self.unless(self.compare("icmp eq", "i32", order, "0"), otherwise)

    def check_operands(self, words: str, otherwise: str) -> None:
        """Dtypes, extents, strides and alignment as they were, and `out` apart from operands."""
        out_begin, out_end = (self.variable("i64", "0") for _ in range(2))
        with self.when(self.compare("icmp ne", "i64", self.total, "%count")):
            begin = self.load("i64", "%out", self.layout.data)
            self.store("i64", begin, out_begin)
            size = self.word(words, HEAD, "out_bytes")
            self.store("i64", self.op("add", "i64", begin, size), out_end)
        cursor = self.variable("ptr", self.word(words, HEAD, "operand_words", "ptr"))
        with self.loop(self.total) as each:
            array = self.load_at("ptr", self.objects, each.index)
            expected = self.load("ptr", cursor)
            dtype = self.load("i64", array, self.layout.dtype)
            self.same(dtype, self.word(expected, OPERAND, "dtype"), otherwise)
            rank, extents, strides = self.shape_of(array)
            self.same(rank, self.word(expected, OPERAND, "rank"), otherwise)
            data = self.load("i64", array, self.layout.data)
            stray = self.op("and", "i64", data, self.word(expected, OPERAND, "mask"))
            self.same(stray, "0", otherwise)
            shape = self.pointer(expected, 8 * len(OPERAND))
            steps = self.pointer_at(shape, rank)
            for actual, wanted in ((extents, shape), (strides, steps)):
                with self.loop(rank) as axis:
                    found, known = (
                        self.load_at("i64", row, axis.index) for row in (actual, wanted)
                    )
                    self.same(found, known, otherwise)
            self.store("ptr", self.pointer_at(steps, rank), cursor)
            with self.when(self.compare("icmp slt", "i64", each.index, "%count")):
                low, high = (
                    self.op("add", "i64", data, self.word(expected, OPERAND, name))
                    for name in ("low", "high")
                )
                before = self.compare("icmp ult", "i64", low, self.load("i64", out_end))
                behind = self.compare("icmp ult", "i64", self.load("i64", out_begin), high)
                apart = self.op("xor", "i1", self.op("and", "i1", before, behind), "true")
                self.unless(apart, otherwise)

    # ---- memory -----------------------------------------------------------------------------

    def place_given(self) -> None:
        """Addresses of operands and constants."""
        with self.loop("%count") as each:
            array = self.load_at("ptr", self.objects, each.index)
            data = self.load("ptr", array, self.layout.data)
            self.store_at("ptr", data, self.addresses, each.index)
        constants = self.word(self.head, HEAD, "constants")
        words = self.word(self.head, HEAD, "constant_words", "ptr")
        behind = self.pointer_at(self.addresses, "%count")
        with self.loop(constants) as each:
            address = self.load_at("ptr", words, each.index)
            self.store_at("ptr", address, behind, each.index)
        self.storages = self.pointer_at(behind, constants)

    def allocate_scratch(self) -> None:
        size = self.word(self.head, HEAD, "scratch")
        with self.when(self.compare("icmp ne", "i64", size, "0")):
            padded = self.op("add", "i64", size, str(ALIGNMENT))
            memory = self.c_call("ptr", "PyMem_RawMalloc", f"i64 {padded}")
            self.unless(self.compare("icmp ne", "ptr", memory, "null"), "undone")
            self.store("ptr", memory, self.scratch)
        whole = self.load("i64", self.scratch)
        rounded = self.op("add", "i64", whole, str(ALIGNMENT - 1))
        aligned = self.op("and", "i64", rounded, str(-ALIGNMENT))
        self.aligned = self.value(f"inttoptr i64 {aligned} to ptr")

    def allocate_results(self) -> None:
        results = self.word(self.head, HEAD, "results")
        self.several = self.compare("icmp ne", "i64", results, "1")
        with self.when(self.several):
            made = self.c_call("ptr", "PyTuple_New", f"i64 {results}")
            self.unless(self.compare("icmp ne", "ptr", made, "null"), "failed")
            self.store("ptr", made, self.result)
        address = self.variable("ptr", "null")
        words = self.word(self.head, HEAD, "storage_words", "ptr")
        with self.loop(self.word(self.head, HEAD, "storages")) as each:
            row = self.pointer_at(words, self.op("mul", "i64", each.index, str(len(STORAGE))))
            kind = self.word(row, STORAGE, "kind")
            place = self.word(row, STORAGE, "place")
            dtype = self.word(row, STORAGE, "dtype", "ptr")
            with self.when(self.compare("icmp eq", "i64", kind, str(SCRATCH))):
                self.store("ptr", self.pointer_by(self.aligned, place), address)
            with self.when(self.compare("icmp eq", "i64", kind, str(SCALAR))):
                self.store("ptr", dtype, self.scalar_dtype)
                self.store("ptr", self.scalar, address)
            with self.when(self.compare("icmp eq", "i64", kind, str(OUT))):
                self.c_call("void", "Py_IncRef", "ptr %out")
                self.store("ptr", "%out", self.result)
                self.store("ptr", self.load("ptr", "%out", self.layout.data), address)
            with self.when(self.compare("icmp eq", "i64", kind, str(RESULT))):
                made = self.new_array(row, dtype)
                self.store("ptr", self.load("ptr", made, self.layout.data), address)
                self.keep(made, place)
            self.store_at("ptr", self.load("ptr", address), self.storages, each.index)

    def new_array(self, row: str, dtype: str) -> str:
        """A new array; NumPy's function takes a reference to the dtype over."""
        self.c_call("void", "Py_IncRef", f"ptr {dtype}")
        rank = self.convert("trunc", "i64", self.word(row, STORAGE, "rank"), "i32")
        extents, strides = (self.word(row, STORAGE, x, "ptr") for x in ("extents", "strides"))
        made = self.c_call(
            "ptr", "PyArray_NewFromDescr", f"ptr {self.of_context('array_type')}", f"ptr {dtype}",
            f"i32 {rank}", f"ptr {extents}", f"ptr {strides}", "ptr null", "i32 0", "ptr null",
        )  # fmt: skip
        self.unless(self.compare("icmp ne", "ptr", made, "null"), "failed")
        return made

    def keep(self, made: str, place: str) -> None:
        """Hand a new array over to the result, be it a tuple or the array itself."""
        with self.when(self.several):
            whole = self.load("ptr", self.result)
            self.c_call("i32", "PyTuple_SetItem", f"ptr {whole}", f"i64 {place}", f"ptr {made}")
        with self.when(self.op("xor", "i1", self.several, "true")):
            self.store("ptr", made, self.result)

    # ---- kernels ----------------------------------------------------------------------------

    def launch(self) -> None:
        released = self.compare("icmp ne", "i64", self.word(self.head, HEAD, "release"), "0")
        thread = self.variable("ptr", "null")
        with self.when(released):
            self.store("ptr", self.c_call("ptr", "PyEval_SaveThread"), thread)
        status = self.variable("i32", "0")
        bases = self.array("ptr", MOST_TENSORS)
        fault = self.memory(16, 8)
        words = self.word(self.head, HEAD, "launch_words", "ptr")
        with self.loop(self.word(self.head, HEAD, "launches")) as each:
            row = self.pointer_at(words, self.op("mul", "i64", each.index, str(len(LAUNCH))))
            buffers = self.word(row, LAUNCH, "buffer_words", "ptr")
            with self.loop(self.word(row, LAUNCH, "buffers")) as buffer:
                step = self.op("mul", "i64", buffer.index, str(len(BUFFER)))
                pair = self.pointer_at(buffers, step)
                base = self.load_at("ptr", self.addresses, self.word(pair, BUFFER, "tensor"))
                moved = self.pointer_by(base, self.word(pair, BUFFER, "offset"))
                self.store_at("ptr", moved, bases, buffer.index)
            code = self.call(
                "i32", self.word(row, LAUNCH, "function", "ptr"), f"ptr {bases}",
                f"ptr {self.word(row, LAUNCH, 'parameters', 'ptr')}", "i64 0",
                f"i64 {self.word(row, LAUNCH, 'slices')}", f"ptr {fault}",
            )  # fmt: skip
            self.store("i32", code, status)
            self.unless(self.compare("icmp eq", "i32", code, "0"), each.done)
        with self.when(released):
            state = self.load("ptr", thread)
            self.c_call("void", "PyEval_RestoreThread", f"ptr {state}")
        # Out of memory for a workspace, as nothing else can fail: Python code says so.
        self.unless(self.compare("icmp eq", "i32", self.load("i32", status), "0"), "undone")

    def return_result(self) -> None:
        dtype = self.load("ptr", self.scalar_dtype)
        with self.when(self.compare("icmp ne", "ptr", dtype, "null")):
            arguments = (f"ptr {self.scalar}", f"ptr {dtype}", "ptr null")
            self.store("ptr", self.c_call("ptr", "PyArray_Scalar", *arguments), self.result)
        self.drop()
        self.line(f"ret ptr {self.load('ptr', self.result)}")

    def drop(self) -> None:
        """Give back what the call held."""
        memory = self.load("ptr", self.scratch)
        with self.when(self.compare("icmp ne", "ptr", memory, "null")):
            self.c_call("void", "PyMem_RawFree", f"ptr {memory}")
        self.c_call("void", "Py_DecRef", f"ptr {self.known}")


def _signed(word: int, bits: int) -> int:
    return word - 2**bits if word >= 2 ** (bits - 1) else word
