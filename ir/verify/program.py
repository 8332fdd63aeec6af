"""The verifier of the program level: its rules in one table, and the functions that run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from einloom.ir.errors import Diagnostic, EinloomError
from einloom.ir.infer import infer
from einloom.ir.program import Module
from einloom.ir.verify import definitions, laws, literals, names, scans, sections, statements, types
from einloom.ir.verify.complaints import Complaint, in_order, raise_collected
from einloom.ir.verify.parts import Parts

Rule = Callable[[Parts], Iterator[Complaint]]

DECLARATIONS: tuple[Rule, ...] = (
    # What inference relies on: it runs only where none of these complains.
    names.names_are_not_empty,
    names.extents_are_declared_once,
    names.symbols_are_bound,
    names.indices_are_no_symbols,
    names.operations_are_known,
    names.reducers_are_known,
    names.views_are_known,
    names.parameters_stay_inside_definitions,
    definitions.definitions_have_distinct_names,
    definitions.definitions_shadow_nothing,
    definitions.parameters_are_distinct,
    definitions.definitions_use_earlier_ones,
    definitions.definitions_expand_to_a_bounded_size,
    types.dtypes_are_valid,
    types.casts_are_between_numbers,
    types.extents_are_integers,
    types.ranks_have_names,
    statements.bounds_are_used,
)

STRUCTURE: tuple[Rule, ...] = (
    # What can be said without types.
    names.results_are_distinct,
    names.kernels_have_distinct_names,
    names.kernels_show_their_results,
    definitions.laws_are_known,
    types.blocks_fit_the_ranks,
    types.formats_fit_the_ranks,
    sections.mappings_fit_their_kernels,
)

TYPED: tuple[Rule, ...] = (
    # What needs the types of tensors or dtypes that are known to be valid.
    types.fills_are_representable,
    types.encrypted_tensors_are_numbers,
    types.constants_have_all_their_data,
    definitions.function_bodies_are_typed,
    definitions.monoids_are_typed,
    laws.declared_laws_hold,
    statements.conditions_are_boolean,
    statements.indices_are_integers,
    statements.views_fit_their_tensors,
    literals.literals_fit_their_dtypes,
    statements.accumulators_keep_the_kind,
    statements.calls_take_whole_tensors,
    statements.types_of_states_are_stated_once,
    statements.results_of_scans_with_until,
    scans.states_are_written_in_turn,
    scans.only_earlier_iterations_are_read,
    sections.layouts_fit_their_tensors,
    sections.storage_is_free_to_reuse,
)


def complaints(module: Module) -> list[Complaint]:
    """Everything wrong with a module, in the order of its source.

    Rules that need types run only where inference succeeds, which runs only where the
    declarations are sound: a wrong declaration would drown the rest in its consequences.
    """
    parts = Parts(module)
    found = [complaint for rule in DECLARATIONS for complaint in rule(parts)]
    sound = not found
    found += [complaint for rule in STRUCTURE for complaint in rule(parts)]
    if sound:
        try:
            parts.inference = infer(module)
        except EinloomError as error:
            found += [(type(error), diagnostic) for diagnostic in error.diagnostics]
        else:
            found += [complaint for rule in TYPED for complaint in rule(parts)]
    return in_order(found)


def problems(module: Module) -> list[Diagnostic]:
    """Everything wrong with a module; empty for a valid one."""
    return [diagnostic for _, diagnostic in complaints(module)]


def verify(module: Module) -> None:
    """Raise one error with all complaints about a module, of the class of the first one."""
    raise_collected(complaints(module))
