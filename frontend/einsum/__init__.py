"""The einsum dialect: spec strings and label lists to a module of one statement."""
