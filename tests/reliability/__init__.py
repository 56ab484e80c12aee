"""Campaigns that show what survives: kills, signals, failing system calls, damaged files, lost power."""
