"""Run configurations: Python files with ``get_config(arg)``."""
