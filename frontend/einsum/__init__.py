"""The einsum dialect: spec strings and label lists to a module of one statement.

`tokens` cuts a spec into terms and `parse` reads them, `operands` reads the list form, `spec` is
what both give. `semiring` says what is added and multiplied, `program` makes the module, `views`
and `memory_order` tell how a result lies in memory.
"""
