"""Programs as libraries for C: one entry per program, a header, and no Python at run time."""
