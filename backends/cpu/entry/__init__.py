"""Machine code that Python calls as a function: known calls of kernels without Python code.

`layout` says where objects of CPython and NumPy keep their fields, `known` describes a known call
in words that machine code reads, `emission` generates that code, `functions` makes it callable.
"""
