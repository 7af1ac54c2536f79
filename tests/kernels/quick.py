"""Compiler options for what a test runs once or twice, on tiny arrays, to compare with.

Half of its time would go into compiling it well. What is tested itself is compiled as users do.
"""

OPTIONS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
