"""Measures what docs/targets.md names, each figure beside the bare machine's limit in one run.

./dev bench                     everything, writes bench/RESULTS.md
./dev bench --only latency      one group, prints only
./dev bench --json              the figures as JSON on standard output
"""
