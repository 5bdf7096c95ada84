"""The shape of the code: imports run one way, nothing heavy comes with `import dlmlab`, no file is long."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("dlmlab.decoder", "dlmlab.model", "dlmlab.task", "dlmlab.tracking")
MAX_LINES, MAX_TOP_LINES = 450, 250
"""Of a file, and of one on top of dlmlab/, which users meet first."""
MAX_PARAMETERS = 7
PUBLIC = {"load", "generate"}
"""Functions whose many parameters are the settings that users give by name."""
LAYERS = (
    ("errors", "paths"),
    ("settings",),
    ("decision",),
    ("denoiser", "rule", "schedule"),
    ("policy",),
    ("types",),
    ("kernel", "record"),
    ("loop",),
    ("denoise", "manifest", "memo"),
    ("decoder", "cache", "model", "sandbox", "page", "picture"),
    ("generation",),
    ("task", "measure", "tracking"),
    ("run",),
    ("export", "lm_eval", "report", "verify", "__main__"),
)
"""What lies on top of dlmlab/, from the bottom up: each imports from layers below its own, and from itself."""
POSIX = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog")
"""Modules that Windows lacks."""
PROGRAMS = {"dlmlab.sandbox.guest"}
"""Modules that no other imports: they are started, where there is a sandbox for them."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for top in ("dlmlab", "experiments") for path in sorted((ROOT / top).rglob("*.py"))}


def lies_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """A tree's nodes, without what is imported for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from runtime_nodes(node)


def imported(source: str) -> Iterator[str]:
    """The project's modules that a source imports, wherever in it."""
    for node in runtime_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is used"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            module = name if name in SOURCES else name.rpartition(".")[0]
            if module in SOURCES:
                yield module


def chains(start: str) -> dict[str, list[str]]:
    """Every module that one imports, itself or through others, with the way there."""
    ways, waiting = {start: [start]}, [start]
    while waiting:
        module = waiting.pop()
        for used in imported(SOURCES[module].read_text(encoding="utf-8")):
            if used not in ways:
                ways[used] = [*ways[module], used]
                waiting.append(used)
    return ways


def allowed(module: str, used: str) -> bool:
    """Whether a module of a part may reach another: of the four parts its own only, and never an experiment."""
    own = next(part for part in PARTS if lies_in(module, part))
    return not lies_in(used, "experiments") and all(part == own or not lies_in(used, part) for part in PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_reaches_neither_another_part_nor_an_experiment(part):
    members = [module for module in SOURCES if lies_in(module, part)]
    assert members
    for module in members:
        for used, way in chains(module).items():
            assert allowed(module, used), " imports ".join(way)


def part_of(module: str) -> str:
    """What lies on top of dlmlab/ that a module belongs to; `dlmlab` itself for its __init__."""
    return [*module.split("."), "dlmlab"][1]


HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer} | {"dlmlab": len(LAYERS)}


@pytest.mark.parametrize("module", [module for module in SOURCES if lies_in(module, "dlmlab")])
def test_a_module_imports_from_the_layers_below_its_own(module):
    own = part_of(module)
    assert own in HEIGHT, f"{own} has no layer: give it one"
    for used in imported(SOURCES[module].read_text(encoding="utf-8")):
        other = part_of(used)
        assert other in (own, "dlmlab") or HEIGHT[other] < HEIGHT[own], f"{module} imports {used}"


def test_the_library_does_not_know_the_experiments():
    for module in SOURCES:
        if lies_in(module, "dlmlab"):
            used = set(imported(SOURCES[module].read_text(encoding="utf-8")))
            assert not any(lies_in(each, "experiments") for each in used), module


def test_the_loop_takes_model_and_rule_as_arguments():
    for used, way in chains("dlmlab.denoise").items():
        assert not any(lies_in(used, part) for part in PARTS), " imports ".join(way)


def test_imports_are_seen_wherever_they_stand():
    source = """
import dlmlab.types
from dlmlab import errors, load
if TYPE_CHECKING:
    from dlmlab.task.base import Task
def f():
    from dlmlab.model.llada import LLaDAModelLM
"""
    assert set(imported(source)) == {"dlmlab.types", "dlmlab.errors", "dlmlab", "dlmlab.model.llada"}


@pytest.mark.parametrize("module", SOURCES)
def test_what_windows_lacks_is_imported_where_it_is_used(module):
    if module in PROGRAMS:
        return
    for node in ast.parse(SOURCES[module].read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & set(POSIX), f"{module} imports {names}"


@pytest.mark.parametrize("module", ["dlmlab", "dlmlab.manifest", "dlmlab.tracking"])
def test_importing_is_cheap(module):
    heavy = "{'torch', 'transformers', 'wandb', 'datasets', 'scipy', 'matplotlib'} & set(sys.modules)"
    command = [sys.executable, "-c", f"import sys, {module}; print({heavy} or 'light')"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "light"


def test_no_file_is_long():
    paths = [path for top in ("dlmlab", "experiments", "tests", "benchmarks") for path in (ROOT / top).rglob("*.py")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in [*paths, ROOT / "run.py"]}
    most = {path: MAX_TOP_LINES if path.parent == ROOT / "dlmlab" else MAX_LINES for path in lengths}
    assert {str(path): length for path, length in lengths.items() if length > most[path]} == {}


def functions(source: str) -> Iterator[ast.FunctionDef]:
    """A source's functions and methods, without the kernels, whose parameters are pointers and strides."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and not any("jit" in ast.unparse(each) for each in node.decorator_list):
            yield node


def test_no_function_has_many_parameters():
    for module, path in SOURCES.items():
        if not lies_in(module, "dlmlab"):
            continue
        for function in functions(path.read_text(encoding="utf-8")):
            given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            number = sum(each.arg not in ("self", "cls") for each in given)
            assert number <= MAX_PARAMETERS or function.name in PUBLIC, f"{module}.{function.name} has {number}"
