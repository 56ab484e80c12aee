"""textclf beside the tools that a user would take instead: `python -m tests.benchmarks --help`."""
