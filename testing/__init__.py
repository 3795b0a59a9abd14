"""What tests, benchmarks and reliability scripts share: a Hub on loopback, corpora made for tests, run helpers."""
