"""Speed and memory against peers, in the same run, on random weights of a true shape.

``python -m benchmarks.compare`` builds what it needs, runs Puna and each peer that is installed in turn,
and writes a table and a JSON file with the machine and the versions. Each run is a process of its own.
"""
