"""The text form of programs: one grammar in, one printer out."""

from einloom.ir.text.parser import load, parse, parse_definitions, parse_expression, parse_type
from einloom.ir.text.printer import show

__all__ = ["load", "parse", "parse_definitions", "parse_expression", "parse_type", "show"]
