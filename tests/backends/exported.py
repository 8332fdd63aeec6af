"""Libraries for C, called from a process of their own that knows ctypes and NumPy only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import einloom as el

Array = np.ndarray[Any, Any]

CHILD = """\
import ctypes, json, sys
import numpy as np

folder, calls = sys.argv[1], json.loads(sys.stdin.read())

def tensor(rank):
    fields = [("data", ctypes.c_void_p)]
    if rank:
        fields += [("extents", ctypes.c_int64 * rank), ("strides", ctypes.c_void_p)]
    return type("Tensor", (ctypes.Structure,), {"_fields_": fields})

answers = []
for number, call in enumerate(calls):
    library = ctypes.CDLL(call["library"])
    fields, values, kept, outputs = [], [], [], {}
    for name, item in call["members"]:
        if isinstance(item, int):
            fields.append((name, ctypes.c_int64))
            values.append(item)
            continue
        memory = np.load(f"{folder}/{number}.{name}.npy")
        shape, strides = item["shape"], item["strides"]
        kept.append(memory)
        outputs[name] = memory
        address = 0 if item["null"] else memory.ctypes.data + item["offset"]
        kind = tensor(len(shape))
        fields.append((name, kind))
        if shape:
            block = np.array(strides or [0], np.int64)
            kept.append(block)
            place = block.ctypes.data if strides is not None else None
            values.append(kind(address, tuple(shape), place))
        else:
            values.append(kind(address))
    fault = np.full(2, -7, np.int64)
    fields += [("fault", ctypes.c_void_p), ("threads", ctypes.c_int32)]
    values += [fault.ctypes.data, call["threads"]]
    arguments = type("Arguments", (ctypes.Structure,), {"_fields_": fields})(*values)
    entry, message = library[call["entry"]], library[call["entry"] + "_message"]
    entry.restype, message.restype = ctypes.c_int32, ctypes.c_char_p
    message.argtypes = [ctypes.c_int32]
    code = entry(None if call["null"] else ctypes.byref(arguments))
    for name, memory in outputs.items():
        np.save(f"{folder}/{number}.{name}.after.npy", memory)
    answers.append([code, message(code).decode(), fault.tolist()])
assert not any(name.startswith(("einloom", "llvmlite")) for name in sys.modules)
print(json.dumps(answers))
"""


@dataclass
class Tensor:
    """A tensor among the arguments: memory, and how it is described where that differs."""

    memory: Array
    shape: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None
    offset: int = 0
    null: bool = False


@dataclass
class Call:
    """One call of a library: its members in the order of the header."""

    library: Path
    entry: str
    members: Mapping[str, Array | Tensor | int]
    threads: int = 0
    null: bool = False


@dataclass
class Answer:
    code: int
    message: str
    fault: tuple[int, int]
    arrays: dict[str, Array]


def run(folder: Path, *calls: Call) -> list[Answer]:
    """Make calls in one new process, in order."""
    described = []
    for number, call in enumerate(calls):
        members: list[tuple[str, Any]] = []
        for name, item in call.members.items():
            if isinstance(item, int):
                members.append((name, item))
                continue
            given = item if isinstance(item, Tensor) else Tensor(item)
            np.save(folder / f"{number}.{name}.npy", given.memory)
            shape = given.memory.shape if given.shape is None else given.shape
            strides = None if given.strides is None else list(given.strides)
            what = {"shape": list(shape), "strides": strides}
            members.append((name, {**what, "offset": given.offset, "null": given.null}))
        described.append(
            {
                "library": str(call.library),
                "entry": call.entry,
                "members": members,
                "threads": call.threads,
                "null": call.null,
            }
        )
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)],
        input=json.dumps(described),
        capture_output=True,
        text=True,
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    answers = []
    for number, (code, message, fault) in enumerate(json.loads(done.stdout)):
        arrays = {
            name: np.load(folder / f"{number}.{name}.after.npy")
            for name, item in calls[number].members.items()
            if not isinstance(item, int)
        }
        answers.append(Answer(code, message, (fault[0], fault[1]), arrays))
    return answers


def exported(folder: Path, program: str | Path, *specs: Any, **options: Any) -> Path:
    """The shared library of a program, in a folder."""
    library, _ = el.compile(program, *specs).export(folder / "library.so", **options)
    return library


def results(folder: Path, call: Call, names: Sequence[str]) -> list[Array]:
    """The results of a call that has to succeed."""
    (answer,) = run(folder, call)
    assert (answer.code, answer.message) == (0, "done")
    return [answer.arrays[name] for name in names]
