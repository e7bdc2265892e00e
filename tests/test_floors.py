"""The floors of the package: a file imports only from its own or a lower one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import maskfast

PACKAGE = Path(maskfast.__file__).parent
FLOORS = {"core": 0, "data": 1, "bundle": 2, "score": 3, "learn": 4, "apps": 5}
HEAVY = {"torch", "torchvision", "timm", "fastai", "fastcore", "ray", "cv2", "onnxruntime", "onnx", "matplotlib"}
TORCH_LAYERS = PACKAGE / "bundle" / "layers.py"
"""Classes of torch modules, which pickle finds by name; itself imported only inside functions."""
FASTAI = {"fastai", "fastcore", "fastprogress", "torch", "torchvision"}


def list_imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor"
            yield node.module or ""


def list_top_imports(tree: ast.Module) -> Iterator[str]:
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    yield from list_imports(ast.Module(body=list(top), type_ignores=[]))


def floor_files() -> list[Path]:
    return [path for floor in FLOORS for path in sorted((PACKAGE / floor).rglob("*.py"))]


def floor_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0]


def find_upward_imports(path: Path, source: str) -> list[str]:
    own = FLOORS[floor_of(path)]
    imported = (name.split(".") for name in list_imports(ast.parse(source)))
    inside = (parts[1] for parts in imported if parts[0] == "maskfast" and len(parts) > 1 and parts[1] in FLOORS)
    return [name for name in inside if FLOORS[name] > own]


def test_no_import_runs_upwards() -> None:
    assert len(floor_files()) > len(FLOORS)
    upward = {str(path): find_upward_imports(path, path.read_text()) for path in floor_files()}
    assert {path: names for path, names in upward.items() if names} == {}


def test_an_upward_import_is_found() -> None:
    assert find_upward_imports(PACKAGE / "core" / "image.py", "def f():\n    from maskfast.apps import cli") == ["apps"]


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    for path in floor_files():
        heavy = {name.split(".")[0] for name in list_top_imports(ast.parse(path.read_text()))} & HEAVY
        allowed = FASTAI if floor_of(path) == "learn" else {"torch"} if path == TORCH_LAYERS else set()
        assert heavy <= allowed, f"{path} imports {sorted(heavy - allowed)} at its top"


def test_torch_layers_are_imported_where_they_are_used() -> None:
    for path in floor_files():
        if floor_of(path) != "learn":
            assert "maskfast.bundle.layers" not in set(list_top_imports(ast.parse(path.read_text()))), path
