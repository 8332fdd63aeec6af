"""`contract` on random networks: same values, memory kept to, same choice every time."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from einloom.ir import extents as ext
from einloom.ir.errors import EinloomError
from einloom.ir.infer import infer
from einloom.ir.interpret import interpret
from einloom.ir.names import nested_statements
from einloom.ir.program import Einsum, Module, Scan
from einloom.ir.text import parse
from einloom.ir.verify import verify
from einloom.passes.base import Context
from einloom.passes.contract import Contract
from einloom.passes.contraction import network as network_module
from einloom.passes.contraction.network import Network, tree_of
from einloom.passes.contraction.paths import linear
from einloom.passes.contraction.trees import every_path
from tests.passes.networks import RandomNetwork, random_network

METHODS = ("auto", "greedy", "optimal", "dp", "branch-2", "random-greedy", "left")
PRETENDED = 40
"""The pass is told that all sizes are so many times larger: then splitting always pays."""


def contracted(net: RandomNetwork, module: Module, **options: object) -> Module:
    context = Context(extents=net.symbols(PRETENDED))
    return Contract(**options).run(module, context)  # type: ignore[arg-type]


def check_values(net: RandomNetwork, dtype: str, seed: int, **options: object) -> Module:
    module = net.module(np.dtype(dtype))
    made = contracted(net, module, **options)
    verify(made)
    assert parse(str(made)) == made
    arrays = net.arrays(np.dtype(dtype), seed)
    found = interpret(made, arrays)["R"]
    expected = net.by_numpy(arrays)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    return made


@pytest.mark.parametrize("seed", range(60))
def test_values_are_those_of_numpy(seed: int) -> None:
    net = random_network(seed)
    check_values(net, "float64", seed, method=METHODS[seed % len(METHODS)])
    check_values(net, "int64", seed, method=METHODS[(seed + 1) % len(METHODS)])


@pytest.mark.parametrize("seed", range(40))
def test_integers_wrap_as_they_do_in_one_loop_nest(seed: int) -> None:
    net = random_network(seed + 500)
    module = net.module(np.dtype(np.int8))
    arrays = {
        name: np.random.default_rng(seed).integers(-128, 128, array.shape, dtype=np.int8)
        for name, array in net.arrays(np.dtype(np.int8), seed).items()
    }
    made = contracted(net, module)
    expected = interpret(module, arrays)["R"]
    found = interpret(made, arrays)["R"]
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("seed", range(30))
def test_empty_extents(seed: int) -> None:
    check_values(random_network(seed + 1000, empty=True), "float64", seed)


def intermediate_sizes(module: Module, symbols: dict[str, int]) -> list[int]:
    """Elements of every tensor that is neither the result nor as large as the running total."""
    tensors = infer(module).tensors
    exempt = {"R", "R_total"}
    for scan in module.body:
        if isinstance(scan, Scan):  # what one slice adds is as large as the result
            added = scan.body[-2]
            assert isinstance(added, Einsum)
            exempt.add(added.targets[0].name)
    sizes = []
    for statement in nested_statements(module.body):
        if isinstance(statement, Einsum):
            name = statement.targets[0].name
            if name not in exempt:
                sizes.append(math.prod(ext.evaluate(e, symbols) for e in tensors[name].extents))
    return sizes


@pytest.mark.parametrize("limit", [1, PRETENDED, PRETENDED * 50])
@pytest.mark.parametrize("seed", range(25))
def test_memory_limit_is_kept(seed: int, limit: int) -> None:
    net = random_network(seed + 2000)
    made = check_values(net, "int64", seed, memory_limit=limit)
    assert max(intermediate_sizes(made, net.symbols(PRETENDED)), default=0) <= limit


def test_memory_limits_do_slice() -> None:
    """The test above would pass on a pass that never slices."""
    made = []
    for seed in range(25):
        net = random_network(seed + 2000)
        module = net.module(np.dtype(np.int64))
        made.append(contracted(net, module, memory_limit=PRETENDED))
    scans = [s for module in made for s in module.body if isinstance(s, Scan)]
    assert len(scans) >= 3
    assert any(scan.index == "slice" for scan in scans), "several indices sliced at once"


def test_text_does_not_depend_on_the_process() -> None:
    """Paths must not depend on the order of sets of strings, which differs between processes."""
    program = (
        "from tests.passes.test_contract_networks import *\n"
        "for seed, method in enumerate(METHODS * 3):\n"
        "    net = random_network(seed)\n"
        "    print(contracted(net, net.module(np.dtype('f8')), method=method))\n"
    )
    texts = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=120,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).resolve().parents[2],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "R_1" in done.stdout
        texts.add(done.stdout)
    assert len(texts) == 1


def test_the_global_random_state_is_left_alone() -> None:
    net = random_network(5)
    random.seed(1)
    before = random.getstate()
    contracted(net, net.module(np.dtype("f8")), method="random-greedy")
    assert random.getstate() == before


# ---- large networks -----------------------------------------------------------------------


def lattice(count: int) -> RandomNetwork:
    """A chain of matrices with a few far links."""
    source = random.Random(0)
    terms = [[k, k + 1] for k in range(count)]
    for label in range(count + 1, count + 6):
        for term in source.sample(terms, 2):
            term.append(label)
    return RandomNetwork(tuple(map(tuple, terms)), (0, count), (2,) * (count + 6))


def test_300_factors() -> None:
    net = lattice(300)
    module = net.module(np.dtype(np.int64))
    made = Contract().run(module, Context(extents=net.symbols()))
    assert len(made.body) >= 200
    arrays = net.arrays(np.dtype(np.int64), 0)
    # One loop nest would have 2**306 points, so the reference sweeps along the chain instead.
    far = sorted({label for term in net.terms for label in term if label > 300})
    total = np.zeros((2, 2), np.int64)
    for setting in np.ndindex(*(2,) * len(far)):
        value = dict(zip(far, setting, strict=True))
        sweep = np.eye(2, dtype=np.int64)
        for k, term in enumerate(net.terms):
            sweep = sweep @ arrays[f"x{k}"][(..., *(value[label] for label in term[2:]))]
        total += sweep
    np.testing.assert_array_equal(interpret(made, arrays)["R"], total)


@pytest.mark.parametrize("seed", range(30))
def test_linear_paths_are_right(seed: int) -> None:
    net = random_network(seed + 3000)
    terms = tuple(tuple(dict.fromkeys(term)) for term in net.terms)
    used = sorted({label for term in terms for label in term})
    reduced = tuple(label for label in used if label not in net.output)
    sizes = dict(enumerate(net.sizes))
    network = Network(terms, net.output, reduced, sizes, (8.0,) * len(terms), 8.0)
    path = linear(network, 0)
    tree = tree_of(network, path)
    nodes = [node for step in tree.steps for node in step.operands]
    assert sorted(nodes) == list(range(len(terms) + len(tree.steps) - 1)), "each node is used once"
    assert set(tree.steps[-1].kept) == set(net.output)
    assert sorted(index for step in tree.steps for index in step.reduced) == sorted(reduced)


def test_linear_path_of_a_long_chain_keeps_intermediates_small() -> None:
    """At this length a quadratic search would not end while anybody waits."""
    count = 30_000
    terms = tuple((k, k + 1) for k in range(count))
    sizes = dict.fromkeys(range(count + 1), 2)
    network = Network(terms, (0, count), tuple(range(1, count)), sizes, (8.0,) * count, 8.0)
    tree = tree_of(network, linear(network, 0))
    assert len(tree.steps) == count - 1
    assert tree.largest == 4


def test_many_equal_factors_meet_several_at_a_time() -> None:
    terms = ((0,),) * 1000
    network = Network(terms, (), (0,), {0: 2}, (8.0,) * 1000, 8.0)
    assert len(tree_of(network, linear(network, 0)).steps) == 63 + 4 + 1


@pytest.mark.parametrize(("count", "trees"), [(2, 1), (3, 3), (4, 15), (5, 105)])
def test_every_tree_is_enumerated_once(count: int, trees: int) -> None:
    assert len(set(every_path(count))) == trees


# ---- deliberate breakage ------------------------------------------------------------------


def failures() -> int:
    """How many of some networks give wrong values, or no valid program."""
    wrong = 0
    for seed in range(20):
        try:
            check_values(random_network(seed), "int64", seed, method="greedy")
        except (AssertionError, EinloomError):
            wrong += 1
    return wrong


def test_folding_an_index_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failures() == 0
    monkeypatch.setattr(
        network_module, "closes", lambda inside, references: inside >= references - 1
    )
    assert failures() >= 10


def test_never_folding_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_module, "closes", lambda inside, references: False)
    assert failures() >= 10
