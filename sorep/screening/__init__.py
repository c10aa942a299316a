"""Screening: which materials meet criteria, and which are likely to before their properties are calculated."""
