"""Helpers of the scripts of this folder: counts of inputs and failures, the table, the exit status."""

import sys
from collections import Counter


class Outcomes:
    """Inputs tried and failures, by the name of what was done to them."""

    def __init__(self):
        self.tried, self.failures = Counter(), {}

    def add(self, name: str, failures: list[str]):
        """Count one more input, and what was wrong with its outcome; nothing wrong is an empty list."""
        self.tried[name] += 1
        self.failures.setdefault(name, []).extend(failures)

    def __str__(self) -> str:
        width = max(map(len, self.tried), default=4)
        lines = [f"{'name':<{width}}  inputs  failures  ok"]
        for name, count in self.tried.items():
            failed = len(self.failures[name])
            lines.append(f"{name:<{width}}  {count:>6}  {failed:>8}  {'no' if failed else 'yes'}")
        total = sum(map(len, self.failures.values()))
        lines.append(f"{'all':<{width}}  {sum(self.tried.values()):>6}  {total:>8}  {'no' if total else 'yes'}")
        return "\n".join(lines)

    def close(self):
        """Print the table and each failure, and end the program with status 1 if there is one."""
        print(self)
        failures = [f"{name}: {failure}" for name, failed in self.failures.items() for failure in failed]
        print(*failures, sep="\n", end="\n" if failures else "")
        sys.exit(1 if failures else 0)
