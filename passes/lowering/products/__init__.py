"""Contractions of two factors in blocks that fit registers and caches, with packed panels."""
