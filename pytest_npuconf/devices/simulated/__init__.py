"""A simulated NPU: torch's device ``npu`` without an Ascend, so that the code path of ``--npu`` runs anywhere. docs/simulated.md
says what is simulated and what is not. Nothing that it produces is an NPU's."""
