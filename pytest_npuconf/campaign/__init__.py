"""The campaign: every fault of the catalogue against the suites, and the matrix of what caught what. docs/faults.md."""
