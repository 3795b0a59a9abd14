"""What a run tells: scores, the contract of results.json, the Hub."""
