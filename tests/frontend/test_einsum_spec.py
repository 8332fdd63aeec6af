"""What an einsum spec means: against NumPy and opt_einsum, and the forms that neither has."""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import opt_einsum
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einloom.frontend.einsum.operands import parse_operands
from einloom.frontend.einsum.parse import parse_spec
from einloom.frontend.einsum.spec import Form, Spec
from einloom.ir.errors import EinloomError, ShapeError

LABELS = "ijkAB"


def texts(spec: Spec) -> tuple[list[str], str]:
    """A spec as the texts of its labels, a space between them."""
    return [" ".join(map(str, labels)) for labels in spec.inputs], " ".join(map(str, spec.output))


def names(spec: Spec) -> tuple[list[str], str]:
    """A spec as the names of its labels, a space between them."""
    inputs = [" ".join(label.name for label in labels) for labels in spec.inputs]
    return inputs, " ".join(label.name for label in spec.output)


def bound_shape(*arguments: Any) -> tuple[int, ...]:
    spec, operands = parse_operands(arguments)
    return spec.bind([np.shape(operand) for operand in operands]).shape


def through_lists(spec: Spec, operands: list[np.ndarray]) -> Any:
    """What NumPy computes for the labels of a spec, given to it as integers."""
    number = {label: i for i, label in enumerate(spec.labels)}
    arguments: list[Any] = []
    for operand, labels in zip(operands, spec.inputs, strict=True):
        arguments += [operand, [number[label] for label in labels]]
    return np.einsum(*arguments, [number[label] for label in spec.output])


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    """A spec string and shapes that mostly fit it, with a mistake put in now and then."""
    mistake = draw(st.sampled_from([None, None, None, "rank", "size", "label", "character"]))
    sizes = {label: draw(st.sampled_from([0, 1, 2, 3, 5])) for label in LABELS}
    carried = draw(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=2))
    terms, shapes = [], []
    for _ in range(draw(st.integers(1, 3))):
        term = draw(st.lists(st.sampled_from(LABELS), max_size=4))
        shape = [sizes[label] for label in term]
        for position, label in enumerate(term):
            if term.count(label) == 1 and draw(st.integers(0, 5)) == 0:
                shape[position] = 1
        if draw(st.booleans()):
            at = draw(st.integers(0, len(term)))
            held = carried[draw(st.integers(0, len(carried))) :]
            term[at:at] = ["..."]
            shape[at:at] = [1 if draw(st.integers(0, 5)) == 0 else size for size in held]
        terms.append(term)
        shapes.append(shape)
    text = ",".join("".join(term) for term in terms)
    if draw(st.booleans()):
        present = sorted({label for term in terms for label in term} - {"..."})
        output = draw(st.permutations(present))[: draw(st.integers(0, 5))]
        if draw(st.integers(0, 3)):
            output.insert(draw(st.integers(0, len(output))), "...")
        if mistake == "label":
            output.append(draw(st.sampled_from(LABELS)))
        text += "->" + "".join(output)
    if mistake == "character":
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from("ijZ.,->1_%(")) + text[at:]
    shape = draw(st.sampled_from(shapes))
    if mistake == "rank":
        shape.append(2)
    elif mistake == "size" and shape:
        shape[draw(st.integers(0, len(shape) - 1))] = draw(st.sampled_from([0, 1, 4]))
    if draw(st.booleans()):
        text = text.replace(",", " , ").replace("->", " -> ").replace("i", " i")
    return text, [tuple(shape) for shape in shapes]


def numpy_reads_past_an_empty_operand(text: str, shapes: list[tuple[int, ...]]) -> bool:
    """Whether NumPy 2.4 takes `jj->j` of shape (0, 3), and returns memory it does not own.

    Its path for one operand mistakes a first size of 0 for a size not seen yet.
    """
    if len(shapes) != 1:
        return False
    labels = parse_spec(text, [len(shapes[0])]).inputs[0]
    sizes = list(zip(labels, shapes[0], strict=True))
    return any(size and (label, 0) in sizes for label, size in sizes)


def test_accepts_what_numpy_accepts_and_means_the_same() -> None:
    accepted = {True: 0, False: 0}

    @settings(max_examples=1500, deadline=None, derandomize=True)
    @given(calls())
    def agree(call: tuple[str, list[tuple[int, ...]]]) -> None:
        accepted[agrees_with_numpy(*call)] += 1

    agree()
    assert accepted[True] > 500 and accepted[False] > 200  # neither side is left untested


def agrees_with_numpy(text: str, shapes: list[tuple[int, ...]]) -> bool:
    """Check one call against NumPy; whether NumPy takes it."""
    generator = np.random.default_rng(len(text))
    operands = [generator.integers(-9, 9, shape) for shape in shapes]
    try:
        expected = np.einsum(text, *operands)
    except (ValueError, TypeError):
        try:
            spec, _ = parse_operands((text, *operands))
            spec.bind(shapes)
        except EinloomError:
            return False
        # The only extensions that these calls can reach.
        assert spec.repeats_output or spec.form is Form.NAMES, text
        return False
    if not numpy_reads_past_an_empty_operand(text, shapes):
        spec, _ = parse_operands((text, *operands))
        binding = spec.bind(shapes)
        assert binding.shape == np.shape(expected)
        np.testing.assert_array_equal(through_lists(binding.spec, operands), expected)
    return True


@settings(max_examples=300, deadline=None, derandomize=True)
@given(calls(), st.randoms(use_true_random=False))
def test_lists_mean_what_letters_mean(
    call: tuple[str, list[tuple[int, ...]]], shuffle: random.Random
) -> None:
    text, shapes = call
    try:
        spec = parse_spec(text, [len(shape) for shape in shapes])
    except EinloomError:
        return
    if spec.form is Form.NAMES:
        return
    inputs, _, output = text.replace(" ", "").partition("->")
    arguments: list[Any] = []
    for term, shape in zip(inputs.split(","), shapes, strict=True):
        arguments += [np.empty(shape), listed(term)]
    if "->" in text:
        arguments.append(listed(output))
    through = parse_operands(arguments)[0]
    assert (through.inputs, through.output) == (spec.inputs, spec.output)
    assert through == spec and hash(through) == hash(spec)


def listed(term: str) -> list[Any]:
    return [Ellipsis if c == "." else c for c in term.replace("...", ".")]


@pytest.mark.parametrize(
    ("text", "ranks", "inputs", "output"),
    [
        ("ij,jk->ik", (2, 2), ["i j", "j k"], "i k"),
        ("ba", (2,), ["b a"], "a b"),
        ("aB", (2,), ["a B"], "B a"),
        ("bab", (3,), ["b a b"], "a"),
        (" i j , j\tk\n-> i k ", (2, 2), ["i j", "j k"], "i k"),
        ("ij , jk -> ik", (2, 2), ["i j", "j k"], "i k"),
        ("", (0,), [""], ""),
        ("->", (0,), [""], ""),
        (",ij->ij", (0, 2), ["", "i j"], "i j"),
        ("i->ii", (1,), ["i"], "i i"),
        ("ij->iij", (2,), ["i j"], "i i j"),
        ("αβ,βγ", (2, 2), ["α β", "β γ"], "α γ"),
        ("...i", (3,), ["...[-2] ...[-1] i"], "...[-2] ...[-1] i"),
        ("i...", (2,), ["i ...[-1]"], "...[-1] i"),
        ("...i,...i->i...", (3, 2), ["...[-2] ...[-1] i", "...[-1] i"], "i ...[-2] ...[-1]"),
        ("...i->i", (1,), ["i"], "i"),
        ("i->...i", (1,), ["i"], "i"),
    ],
)
def test_character_form(text: str, ranks: tuple[int, ...], inputs: list[str], output: str) -> None:
    assert texts(parse_spec(text, ranks)) == (inputs, output)
    assert parse_spec(text, ranks).form is Form.LETTERS


def test_label_names_are_unique_ascii_identifiers() -> None:
    spec, _ = parse_operands((np.empty((1,) * 8), [0, -1, "i0", "é", (1,), "row", 1.5, "e0"]))
    found = [label.name for label in spec.labels]
    assert found == ["i0", "i_1", "i0_3", "ue9", "label5", "row", "label7", "e0"]
    assert names(parse_spec("...αi", (4,)))[0] == ["e0 e1 u3b1 i"]
    assert names(parse_spec("... e0 i", (3,)))[0] == ["e_0 e0 i"]


def test_as_many_labels_as_opt_einsum_has_symbols() -> None:
    symbols = [opt_einsum.get_symbol(i) for i in range(60_000)]
    # opt_einsum's own numbering runs through 140 lone surrogates, which are not characters.
    symbols = [symbol for symbol in symbols if not 0xD800 <= ord(symbol) < 0xE000]
    spec = parse_spec("".join(symbols), [len(symbols)])
    assert [label.text for label in spec.inputs[0]] == symbols
    assert [label.text for label in spec.output] == sorted(symbols)
    assert len({label.name for label in spec.labels}) == len(symbols)


def test_more_ranks_than_numpy_takes() -> None:
    shape = tuple(i % 3 + 1 for i in range(100))
    spec = parse_spec("...->...", (100,))
    assert spec.bind([shape]).shape == shape


@pytest.mark.parametrize(
    ("text", "ranks", "inputs", "output"),
    [
        (
            "batch row inner, batch inner col -> batch row col",
            (3, 3),
            ["batch row inner", "batch inner col"],
            "batch row col",
        ),
        ("row inner, inner col", (2, 2), ["row inner", "inner col"], "row col"),
        ("zeta a, alpha a", (2, 2), ["zeta a", "alpha a"], "zeta alpha"),
        ("row, col -> row col", (1, 1), ["row", "col"], "row col"),
        ("x1 y_, y_ z2 -> z2 x1", (2, 2), ["x1 y_", "y_ z2"], "z2 x1"),
        ("row row -> row", (2,), ["row row"], "row"),
        ("row col -> row row col", (2,), ["row col"], "row row col"),
        ("...row col, col k -> k...", (3, 2), ["...[-1] row col", "col k"], "k ...[-1]"),
        ("höhe breite -> breite höhe", (2,), ["höhe breite"], "breite höhe"),
    ],
)
def test_named_form(text: str, ranks: tuple[int, ...], inputs: list[str], output: str) -> None:
    assert texts(parse_spec(text, ranks)) == (inputs, output)
    assert parse_spec(text, ranks).form is Form.NAMES


@pytest.mark.parametrize("text", ["ij k, kl -> ijl", "row col", "...ab cd, cd->...ab", "ab ... c"])
def test_what_numpy_takes_keeps_numpys_meaning(text: str) -> None:
    terms = text.split("->")[0].split(",")
    shapes = [(2,) * sum(c.isalpha() for c in term) for term in terms]
    assert bound_shape(text, *map(np.ones, shapes)) == np.einsum(text, *map(np.ones, shapes)).shape
    assert parse_spec(text, [len(shape) for shape in shapes]).form is Form.LETTERS


def test_the_ranks_of_the_operands_choose_the_reading() -> None:
    text = "ij k, kl"
    assert texts(parse_spec(text, (3, 2))) == (["i j k", "k l"], "i j l")
    assert texts(parse_spec(text, (2, 1))) == (["ij k", "kl"], "ij k kl")
    # Repeating an output label is our own extension, so names come before it.
    assert parse_spec("... aa b -> ... aa b", (2,)).form is Form.NAMES
    assert parse_spec("aa b -> aab", (3,)).form is Form.LETTERS


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("ij,jk->ik", Form.LETTERS),
        ("i j, j k", Form.LETTERS),
        ("ij k, kl -> ij l", Form.LETTERS),
        ("x1 y", Form.NAMES),
        ("batch row inner, batch inner col -> batch row col", Form.NAMES),
    ],
)
def test_without_operands_the_possible_reading_is_taken(text: str, form: Form) -> None:
    assert parse_spec(text).form is form


def test_an_ellipsis_waits_for_the_ranks() -> None:
    spec = parse_spec("...i,i->...")
    assert not spec.expanded
    assert texts(spec) == (["... i", "i"], "...")
    assert spec.expand((3, 1)) == parse_spec("...i,i->...", (3, 1))
    assert spec.bind([(2, 5, 3), (3,)]).shape == (2, 5)


@pytest.mark.parametrize(
    ("arguments", "inputs", "output"),
    [
        ((np.ones((2, 3)), [1, 0]), ["1 0"], "0 1"),
        ((np.ones((2, 3)), (0, 1), (1, 0)), ["0 1"], "1 0"),
        ((np.ones((2, 3)), range(2), np.array([1])), ["0 1"], "1"),
        ((np.ones((2, 3)), [np.int64(0), 1], [1]), ["0 1"], "1"),
        ((3, [], np.ones(2), [0], []), ["", "0"], ""),
        (([[1, 2], [3, 4]], [100, -7]), ["100 -7"], "-7 100"),
        ((np.ones((2, 3)), ["row", "col"], ["col"]), ["'row' 'col'"], "'col'"),
        ((np.ones((2, 3)), ["b", 1]), ["'b' 1"], "'b' 1"),
        ((np.ones((2, 3)), [("a", 1), None]), ["('a', 1) None"], "('a', 1) None"),
        ((np.ones((4, 2, 3)), [..., 0], [0, ...]), ["...[-2] ...[-1] 0"], "0 ...[-2] ...[-1]"),
        ((np.ones((2, 3)), [1, ...]), ["1 ...[-1]"], "...[-1] 1"),
    ],
)
def test_list_form(arguments: tuple[Any, ...], inputs: list[str], output: str) -> None:
    assert texts(parse_operands(arguments)[0]) == (inputs, output)


def test_operands_come_back_in_order_and_untouched() -> None:
    a, b = np.ones((2, 3)), np.ones(3)
    arguments: tuple[Any, ...]
    for arguments in ("ij,j", a, b), (a, [0, 1], b, [1]):
        first, second = parse_operands(arguments)[1]
        assert first is a and second is b
    assert parse_operands((b"ij->ji", [[1, 2]]))[1][0].shape == (1, 2)


def test_extents_and_stretched_ranks() -> None:
    binding = parse_spec("...ij,...jk", (3, 3)).bind([(1, 4, 1), (7, 3, 0)])
    assert {str(label): extent for label, extent in binding.extents.items()} == {
        "...[-1]": 7, "i": 4, "j": 3, "k": 0,
    }  # fmt: skip
    assert binding.stretched(0) == (True, False, True)
    assert binding.stretched(1) == (False, False, False)
    assert parse_spec("i,i->i", (1, 1)).bind([(0,), (1,)]).shape == (0,)
    assert parse_spec("ii,i->i", (2, 1)).bind([(1, 1), (3,)]).shape == (3,)


def test_a_spec_is_a_value() -> None:
    spec = parse_spec("i j, j k -> i k")
    assert spec == parse_spec("ij,jk->ik")
    assert spec != parse_spec("ij,jk->ki")
    assert pickle.loads(pickle.dumps(spec)) == spec
    waiting = pickle.loads(pickle.dumps(parse_spec("...i->...")))
    assert waiting.expand((3,)) == parse_spec("...i->...", (3,))
    with pytest.raises(ShapeError):
        pickle.loads(pickle.dumps(parse_spec("...i->i"))).expand((2,))


def events(run: Callable[[], object]) -> int:
    """How many calls, of Python and of C functions, something makes."""
    count = 0

    def on_event(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    previous = sys.getprofile()
    sys.setprofile(on_event)
    try:
        run()
    finally:
        sys.setprofile(previous)
    return count


@pytest.mark.parametrize(
    "make",
    [
        lambda n: (
            ",".join(chr(0x4E00 + i) + chr(0x4E01 + i) for i in range(n)),
            *[np.ones((1, 1))] * n,
        ),
        lambda n: (",".join(f"rank{i} rank{i + 1}" for i in range(n)), *[np.ones((1, 1))] * n),
        lambda n: (",".join(["...ij"] * n) + "->...", *[np.ones((1, 1, 1))] * n),
        lambda n: [x for i in range(n) for x in (np.ones((1, 1)), [i, i + 1])],
        lambda n: [x for i in range(n) for x in (np.ones((1, 1)), [(i,), "same"])],
    ],
    ids=["letters", "names", "ellipses", "integers", "objects"],
)
def test_the_work_is_linear_in_the_operands(make: Callable[[int], Any]) -> None:
    def work(operands: int) -> int:
        arguments = make(operands)

        def run() -> None:
            spec, arrays = parse_operands(arguments)
            spec.bind([array.shape for array in arrays])

        return events(run)

    few, many = work(500), work(4000)
    assert many <= 8.1 * few


def test_a_hundred_thousand_operands() -> None:
    count = 100_000
    letters = [chr(0x10000 + i) for i in range(count + 1)]
    text = ",".join(a + b for a, b in pairwise(letters))
    spec = parse_spec(text, [2] * count)
    assert texts(spec)[1] == f"{letters[0]} {letters[-1]}"
    assert spec.bind([(3, 3)] * count).shape == (3, 3)
