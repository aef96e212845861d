"""Kinds of control networks: one module a kind with a KIND, found by discover.py. Adding one = adding a file."""
