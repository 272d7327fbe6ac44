"""The map of rooms holds: arrows point down, pure rooms are pure, and nothing knows where it is run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ("gateway", "drivers", "firmware_bridge")

PURE_ROOMS = ("gateway/core", "gateway/translate", "gateway/consensus")  # and every wire/
THIRD_PARTY_FOR_PURE = ("msgspec",)
NEVER_LOADED_BY_PURE = frozenset(
    "asyncio concurrent multiprocessing random secrets select selectors signal socket socketserver ssl "
    "subprocess tempfile threading uvloop".split()
)
# The interpreter itself loads some of these before any of our code, so only the source can tell.
NEVER_IMPORTED_BY_PURE = NEVER_LOADED_BY_PURE | frozenset(
    "ctypes getpass glob http logging os pathlib platform shutil sqlite3 sys time urllib uuid".split()
)
NEVER_CALLED_BY_PURE = frozenset({"open", "print", "input", "breakpoint", "exec", "eval", "__import__"})
# What is evaluated there is a tree of which every node was checked: see docs/adr/0028-expressions.md
MAY_CALL = {"gateway/translate/expression.py": frozenset({"eval"})}
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})  # of datetime

# What the process may learn from its environment: systemd's words and the terminal's. Nothing else.
ENVIRONMENT = frozenset(
    "CREDENTIALS_DIRECTORY INVOCATION_ID JOURNAL_STREAM LISTEN_FDS LISTEN_PID LOGS_DIRECTORY NOTIFY_SOCKET "
    "RUNTIME_DIRECTORY STATE_DIRECTORY WATCHDOG_PID WATCHDOG_USEC "
    "COLUMNS LINES NO_COLOR TERM PATH PYTHONPATH HOME XDG_RUNTIME_DIR XDG_STATE_HOME TMPDIR".split()
)

# Joined here so that this file does not name them either.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"), ("pythonhosted", "org"), ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("deb", "debian", "org"), ("archive", "ubuntu", "com"), ("proxy", "golang", "org"), ("crates", "io"),
        ("conda", "anaconda", "org"), ("repo1", "maven", "org"),
    )
)  # fmt: skip
MACHINE_PATHS = ("/".join(("", "work", "main")), "/".join(("", "work", "shared")))
IGNORE = "# type: " + "ignore"


@cache
def project_files() -> tuple[Path, ...]:
    """Every text file that belongs to the project: what git would commit, or all of a plain folder."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        names: Iterable[Path] = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    else:
        names = (path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.parts))
    return tuple(sorted(path for path in names if path.is_file()))


@cache
def text_of(path: Path) -> str | None:
    """The file's text; None where it is not text."""
    data = path.read_bytes()
    return None if b"\0" in data[:8192] else data.decode(errors="replace")


def python_files(*folders: str) -> list[Path]:
    """The project's modules below these folders."""
    return [
        path
        for path in project_files()
        if path.suffix == ".py"
        and path.relative_to(ROOT).as_posix().startswith(tuple(f"{f}/" for f in folders))
    ]


def is_pure(path: Path) -> bool:
    relative = path.relative_to(ROOT)
    return relative.as_posix().startswith(tuple(f"{room}/" for room in PURE_ROOMS)) or (
        relative.parts[0] in RUNTIME and "wire" in relative.parts[:-1]
    )


def pure_files() -> list[Path]:
    return [path for path in python_files(*RUNTIME) if is_pure(path)]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module name) of every import, at module level or not, also through import_module."""
    package = module_name(path).split(".")[: None if path.name == "__init__.py" else -1]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in {"import_module", "__import__"}:
                yield node.lineno, str(node.args[0].value)


def at(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def lines_with(pattern: re.Pattern[str], paths: Iterable[Path]) -> list[str]:
    return [
        f"{at(path, number)}: {line.strip()[:100]}"
        for path in paths
        for number, line in enumerate((text_of(path) or "").splitlines(), 1)
        if pattern.search(line)
    ]


def test_arrows_between_rooms_point_down() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as main; main()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout), done.stdout


FRESH = """
import importlib, json, os, sys
names, third_party = json.load(sys.stdin)
for name in third_party:
    importlib.import_module(name)
before = set(sys.modules)
for name in names:  # a fork of an interpreter that loaded nothing of ours is as fresh as a new one
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(json.dumps([name, [], repr(error)]), flush=True)
        else:
            print(json.dumps([name, sorted(set(sys.modules) - before), ""]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_pure_room_loads_nothing_impure() -> None:
    names = [module_name(path) for path in pure_files()]
    assert len(names) > 8
    done = subprocess.run(
        [sys.executable, "-c", FRESH],
        input=json.dumps([names, THIRD_PARTY_FOR_PURE]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = {name: (modules, error) for name, modules, error in map(json.loads, done.stdout.splitlines())}
    assert sorted(loaded) == sorted(names)
    pure = {module_name(path) for path in pure_files()}
    faults = []
    for name, (modules, error) in loaded.items():
        if error:
            faults.append(f"{name} cannot be imported alone: {error}")
        roots = {module.partition(".")[0] for module in modules}
        faults += [f"{name} loads {root}" for root in sorted(roots & NEVER_LOADED_BY_PURE)]
        for module in modules:
            root = module.partition(".")[0]
            if root in RUNTIME and module not in pure and not any(p.startswith(f"{module}.") for p in pure):
                faults.append(f"{name} loads {module}, which is no pure room")
    assert not faults, "\n".join(faults)


def test_a_pure_room_imports_and_calls_nothing_impure() -> None:
    faults = []
    for path in pure_files():
        faults += [
            f"{at(path, line)} imports {name}"
            for line, name in imports_of(path)
            if name.partition(".")[0] in NEVER_IMPORTED_BY_PURE
        ]
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Name) and node.func.id in NEVER_CALLED_BY_PURE - MAY_CALL.get(
                at(path, 0).partition(":")[0], frozenset()
            ):
                faults.append(f"{at(path, node.lineno)} calls {node.func.id}()")
            if isinstance(node.func, ast.Attribute) and node.func.attr in CLOCK_CALLS:
                faults.append(
                    f"{at(path, node.lineno)} calls .{node.func.attr}(): time comes in as an argument"
                )
    assert not faults, "\n".join(faults)


def test_every_init_above_a_pure_room_is_empty() -> None:
    above = {
        parent / "__init__.py" for path in pure_files() for parent in path.parents if ROOT in parent.parents
    }
    assert {ROOT / "gateway/__init__.py", ROOT / "drivers/__init__.py"} <= above
    assert [at(path, 1) for path in sorted(above) if not path.exists() or path.read_text().strip()] == []


def test_drivers_never_import_each_other() -> None:
    faults = []
    for path in python_files("drivers"):
        kind = path.relative_to(ROOT).parts[1]
        faults += [
            f"{at(path, line)} imports {name}"
            for line, name in imports_of(path)
            if name.startswith("drivers.") and name.split(".")[1] != kind
        ]
    assert not faults, "\n".join(faults)


def test_the_runtime_never_imports_what_measures_or_tests_it() -> None:
    faults = [
        f"{at(path, line)} imports {name}"
        for path in python_files(*RUNTIME)
        for line, name in imports_of(path)
        if name.partition(".")[0] in {"bench", "tests", "pytest", "hypothesis", "unittest"}
    ]
    assert not faults, "\n".join(faults)


def test_the_runtime_cannot_know_that_it_is_measured() -> None:
    assert lines_with(re.compile("bench", re.IGNORECASE), python_files(*RUNTIME)) == []
    faults = []
    for path in python_files(*RUNTIME):
        for node in ast.walk(tree_of(path)):
            name = _environment_name(node)
            if name is not None and name not in ENVIRONMENT:
                faults.append(f"{at(path, node.lineno)} reads {name} from the environment")  # type: ignore[attr-defined]  # calls and subscripts have lines
    assert not faults, "\n".join(faults)


def _environment_name(node: ast.AST) -> str | None:
    """The variable that this expression reads; "?" where it cannot be told; None where it reads none."""

    def is_environ(value: ast.expr) -> bool:
        return (isinstance(value, ast.Attribute) and value.attr == "environ") or (
            isinstance(value, ast.Name) and value.id == "environ"
        )

    if isinstance(node, ast.Subscript) and is_environ(node.value):
        key: ast.expr | None = node.slice
    elif isinstance(node, ast.Call):
        function = node.func
        named = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        through_environ = isinstance(function, ast.Attribute) and is_environ(function.value)
        if named not in {"getenv", "getenvb"} and not through_environ:
            return None
        key = node.args[0] if node.args else None
    else:
        return None
    return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else "?"


def test_no_file_names_a_package_registry() -> None:
    pattern = re.compile("|".join(map(re.escape, REGISTRY_HOSTS)), re.IGNORECASE)
    assert lines_with(pattern, project_files()) == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    paths = {*MACHINE_PATHS, str(ROOT) if len(ROOT.parts) > 2 else MACHINE_PATHS[0]}
    pattern = re.compile("|".join(rf"{re.escape(path)}(?![\w-])" for path in sorted(paths)))
    assert lines_with(pattern, project_files()) == []


def test_every_ignored_type_error_has_its_reason() -> None:
    bare = re.compile(rf"{IGNORE}(?!\[[\w, -]+\]\s.*\w{{3,}})")
    python = [path for path in project_files() if path.suffix == ".py"]
    assert lines_with(bare, python) == []


def test_each_record_of_a_decision_has_a_number_of_its_own() -> None:
    records = sorted((ROOT / "docs/adr").glob("*.md"))
    titles = [path.read_text(encoding="utf-8").partition("\n")[0].partition(".")[0] for path in records]
    assert [path.name[:4] for path in records] == [f"{number:04d}" for number in range(1, len(records) + 1)]
    assert titles == [f"# {number}" for number in range(1, len(records) + 1)]


def test_every_test_that_needs_a_peer_is_marked() -> None:
    """A test that calls `require` or `mosquitto` of `tests.peers` without the mark is not counted in CI."""
    faults = []
    for path in python_files("tests"):
        names = [name for _line, name in imports_of(path)]
        uses = {"tests.peers.require", "tests.peers.mosquitto"} & set(names)
        if uses and path.name.startswith("test_") and "pytest.mark.interop" not in path.read_text():
            faults.append(f"{at(path, 1)} uses {', '.join(sorted(uses))} and marks no test as interop")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("os.environ['A']", "A"), ("os.environ.get('A')", "A"), ("environ['A']", "A"),
        ("os.getenv('A', '')", "A"),
        ("os.environ[name]", "?"), ("os.getenv(name)", "?"), ("os.environ.copy()", "?"), ("table['A']", None),
    ],
)  # fmt: skip
def test_reads_of_the_environment_are_found(source: str, name: str | None) -> None:
    assert _environment_name(ast.parse(source, mode="eval").body) == name
