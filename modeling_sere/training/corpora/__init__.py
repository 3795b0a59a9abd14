"""Corpora: which clips there are, their emotions and speakers, and their audio; a run's choice of emotions and shots.

`loading.load_corpus` is the way in: it finds out what lies on the disk (`folder`) or asks the Hub (`dataset`), whose
readers (`metadata`, `tree`, `archive`, `dataset`) give a `columns.Table`, of which a `corpus.Corpus` is made.
"""
