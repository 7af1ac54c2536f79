"""Imports flow one way: every package imports only from the layers to its left.

The table below is the one of docs/architecture.md. All imports count, also those inside functions.
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From left to right: each imports only what stands before it.
LAYERS = (
    "kernels",
    "instant_gs.version",
    "instant_gs.flag_message",
    "instant_gs.cli",
    "instant_gs.output",
    "instant_gs.data.format",  # names and constants only: it imports nothing
    "instant_gs.types",
    "instant_gs.geometry",
    "instant_gs.config_check",
    "instant_gs.config",
    "instant_gs.rendering",
    "instant_gs.models",
    "instant_gs.losses",
    "instant_gs.metrics",
    "instant_gs.portrait",
    "instant_gs.data",
    "instant_gs.teacher",
    "instant_gs.training",
    "instant_gs.inference",
    "instant_gs.evaluation",
    # Command lines.
    "instant_gs",
    "configs",
    "train",
    "eval",
    "benchmarks",
)
# `import instant_gs` stays cheap and offers load(), which imports its package when it is called.
EXCEPTIONS = {("instant_gs", "instant_gs.inference")}

LEVEL = {name: level for level, name in enumerate(LAYERS)}


def source_files():
    roots = ("kernels", "instant_gs", "configs", "benchmarks")
    paths = [path for root in roots for path in sorted((ROOT / root).rglob("*.py"))]
    return paths + [path for path in (ROOT / "train.py", ROOT / "eval.py") if path.exists()]


def module_name(path):
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree):
    """Yields (line, dotted module) of every import statement, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # `from package import name`: name may be a module.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def layer_of(module):
    """The longest name in the table that contains the module, or None for other packages."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in LEVEL:
            return name
    return None


def third_party(module):
    return module.split(".")[0]


ALL = [
    (path, module_name(path), ast.parse(path.read_text(encoding="utf-8"), str(path)))
    for path in source_files()
]


def is_command(tree):
    """Whether the module ends in `if __name__ == "__main__":`."""
    last = tree.body[-1]
    return isinstance(last, ast.If) and "__name__" in ast.dump(last.test)


def report(problems):
    assert not problems, "\n" + "\n".join(problems)


def place(path, line):
    return f"{path.relative_to(ROOT)}:{line}"


def test_there_are_sources():
    assert len(ALL) > 20, [name for _, name, _ in ALL]
    assert {name.split(".")[0] for _, name, _ in ALL} >= {"kernels", "instant_gs"}


def test_every_package_has_a_layer():
    missing = [name for _, name, _ in ALL if layer_of(name) is None]
    assert not missing, f"add these to LAYERS and docs/architecture.md: {missing}"


def test_imports_point_to_the_left():
    problems = []
    for path, name, tree in ALL:
        own = layer_of(name)
        for line, target in imports(tree):
            layer = layer_of(target)
            if layer is None or layer == own or (name, layer) in EXCEPTIONS:
                continue
            if target in ("instant_gs", "instant_gs.__version__", "instant_gs.load"):
                continue
            if LEVEL[layer] >= LEVEL[own]:
                problems.append(f"{place(path, line)}: {own} may not import {layer} ({target})")
    report(problems)


def test_imports_are_absolute():
    report(
        [
            f"{place(path, line)}: relative import {target}"
            for path, _, tree in ALL
            for line, target in imports(tree)
            if target.startswith(".")
        ]
    )


def test_only_models_import_flax():
    report(
        [
            f"{place(path, line)}: {target}; only instant_gs/models/ imports flax"
            for path, name, tree in ALL
            for line, target in imports(tree)
            if third_party(target) == "flax" and layer_of(name) != "instant_gs.models"
        ]
    )


def test_only_rendering_imports_kernels():
    allowed = ("kernels", "instant_gs.rendering", "benchmarks")
    report(
        [
            f"{place(path, line)}: {target}; only instant_gs/rendering.py imports kernels"
            for path, name, tree in ALL
            for line, target in imports(tree)
            if third_party(target) == "kernels" and layer_of(name) not in allowed
        ]
    )


def test_kernels_are_a_library_of_their_own():
    allowed = {"kernels", "jax", "jaxlib", "numpy", "triton"}
    tools = {"absl", "matplotlib"}  # only for command lines
    problems = []
    for path, name, tree in ALL:
        if third_party(name) != "kernels":
            continue
        for line, target in imports(tree):
            package = third_party(target)
            standard = package in sys.stdlib_module_names
            if standard or package in allowed or (package in tools and is_command(tree)):
                continue
            problems.append(f"{place(path, line)}: kernels may not import {target}")
    report(problems)


def test_one_file_each_imports_the_triton_compiler_and_private_jax():
    compiling = {"kernels.triton_compile", "kernels.triton_interpreter"}
    problems = []
    for path, name, tree in ALL:
        for line, target in imports(tree):
            if name.startswith("benchmarks"):
                continue  # tools that report on compiled kernels
            compiler = target.startswith("triton") and not target.startswith("triton.language")
            bodies = path.name.startswith("triton_") and target == "triton"  # @triton.jit
            if compiler and name not in compiling and not bodies:
                problems.append(
                    f"{place(path, line)}: {target}; only kernels/triton_compile.py may"
                )
            if target.startswith("jax._src") and name != "kernels.triton_call":
                problems.append(f"{place(path, line)}: {target} is private to jax")
    report(problems)


@pytest.mark.parametrize(
    ("module", "instead"),
    [
        ("torch", "numpy or jax: nothing here may need torch"),
        ("tensorflow", "numpy or jax"),
        ("jax.experimental.shard_map", "jax.shard_map"),
        ("jax.experimental.pallas", "triton through kernels/triton_call.py"),
        ("jax.pmap", "jax.jit with shardings"),
    ],
)
def test_nobody_imports(module, instead):
    report(
        [
            f"{place(path, line)}: {target}; use {instead}"
            for path, name, tree in ALL
            for line, target in imports(tree)
            if target == module or target.startswith(module + ".")
            if not (module == "torch" and name.startswith("benchmarks"))  # others' splatting
        ]
    )


def test_nobody_calls_pmap():
    report(
        [
            f"{place(path, node.lineno)}: jax.pmap; use jax.jit with shardings"
            for path, _, tree in ALL
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr == "pmap"
        ]
    )


def test_no_assert_on_user_input():
    # Asserts vanish under -O and name no fix; the packages raise ValueError instead.
    report(
        [
            f"{place(path, node.lineno)}: assert; raise ValueError with name, expected, got, fix"
            for path, _, tree in ALL
            for node in ast.walk(tree)
            if isinstance(node, ast.Assert)
        ]
    )
