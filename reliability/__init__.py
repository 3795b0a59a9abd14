"""Tries at length of what must hold under bad data, bad luck and bad intent; tests/ tries each of it in small."""
