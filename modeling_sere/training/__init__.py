"""Training and evaluation: corpora, few-shot episodes, features, adaptation, scores. Does not travel to the Hub."""
