"""Helpers of tests, benchmarks and reliability scripts: a Hub on loopback, corpora made for tests, run helpers."""
