"""Corpora: which clips there are, their emotions and speakers, and their audio."""
