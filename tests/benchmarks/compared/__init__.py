"""Other tools' rules beside this suite's: see :mod:`tests.benchmarks.gates_compared`."""
