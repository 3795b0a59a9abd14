"""Reports of a run: scores, the contract of results.json, the Hub."""
