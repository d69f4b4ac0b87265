"""The reference, from the docstrings of the package tree: a page for each package, read without importing anything."""

from __future__ import annotations

import ast
import copy
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("xrobust", "callbacks")
ITEMS = ("Args", "Raises", "Attributes", "Class attributes")
SECTION = re.compile(rf"({'|'.join((*ITEMS, 'Returns'))}):$")
ITEM = re.compile(r"    ([^\s:][^:]*): (.*)")
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Tree:
    """The modules of the packages, and what each of their names stands for."""

    def __init__(self, root: Path):
        self.modules: dict[str, ast.Module] = {}
        self.packages: set[str] = set()
        for file in sorted(file for package in PACKAGES for file in (root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if not parts[-1].startswith("_") or parts[-1] == "__init__":
                self.modules[name] = ast.parse(file.read_text(encoding="utf-8"))
            if parts[-1] == "__init__":
                self.packages.add(name)
        self.names = {module: dict(_names(module, tree)) for module, tree in self.modules.items()}

    def canonical(self, name: str) -> str:
        """`xrobust.attacks.PGD`, which is a convenience, is `xrobust.attacks.pgd.PGD`."""
        module, _, own = name.rpartition(".")
        found = self.names.get(module, {}).get(own, name)
        return name if found == name else self.canonical(found)

    def knows(self, name: str) -> bool:
        """Whether a canonical name is one of ours."""
        module, _, own = name.rpartition(".")
        return own in self.names.get(module, {})

    def link(self, name: str, shown: str | None = None) -> str:
        """A dotted name, as a link to its place on these pages if it has one."""
        full = self.canonical(name)
        public = self.knows(full) and not full.rpartition(".")[2].startswith("_")
        return f"{{py:obj}}`{shown or name} <{full}>`" if public else f"`{shown or name}`"

    def find_class(self, name: str) -> tuple[str, ast.ClassDef] | None:
        """The module and the definition of a class of ours."""
        module, _, own = name.rpartition(".")
        body = self.modules[module].body if module in self.modules else []
        found = [node for node in body if isinstance(node, ast.ClassDef) and node.name == own]
        return (module, found[0]) if found else None


def _names(module: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What a module imports from our packages or defines: its name there, and its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES:
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
    for top in tree.body:
        if isinstance(top, ast.ClassDef | Function):
            yield top.name, f"{module}.{top.name}"
        for target in getattr(top, "targets", [getattr(top, "target", None)]):
            if isinstance(target, ast.Name):
                yield target.id, f"{module}.{target.id}"


def reference_pages(root: Path) -> dict[str, str]:
    """Markdown by package."""
    tree = Tree(root)
    return {package: _page(tree, package) for package in sorted(tree.packages)}


def _page(tree: Tree, package: str) -> str:
    modules = [name for name in tree.modules if name.rpartition(".")[0] == package and name not in tree.packages]
    short = {
        name: full
        for name, full in tree.names[package].items()
        if tree.canonical(full) == full and tree.knows(full) and not name.startswith("_")
    }
    parts = [f"# {package}\n", *_module(tree, package)]
    if short:
        parts.append("Can be imported from here, without the module: " + ", ".join(_sorted_links(short)) + ".\n")
    for module in modules:
        parts += [f"## {module.rpartition('.')[2]}\n", *_module(tree, module)]
    return "\n".join(parts)


def _sorted_links(names: dict[str, str]) -> list[str]:
    return [f"{{py:obj}}`{name} <{full}>`" for name, full in sorted(names.items(), key=lambda item: item[0].lower())]


def _module(tree: Tree, module: str) -> Iterator[str]:
    """A module's docstring and its public names."""
    yield f"```{{py:module}} {module}\n```\n"
    yield markdown(ast.get_docstring(tree.modules[module]))
    body = tree.modules[module].body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield _class(tree, module, node)
        elif isinstance(node, Function) and _public(node):
            yield _block("py:function", f"{node.name}{_signature(tree, module, node)}", ast.get_docstring(node))
        elif isinstance(node, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            yield _block("py:data", ast.unparse(node.targets[0]), str(after.value.value), value=ast.unparse(node.value))


def _class(tree: Tree, module: str, node: ast.ClassDef) -> str:
    parts = []
    if node.bases:
        known = tree.names[module]
        bases = [tree.link(known.get(base, base), base) for base in map(ast.unparse, node.bases)]
        parts.append(f"Bases: {', '.join(bases)}\n")
    parts.append(markdown(ast.get_docstring(node)))
    seen = set()
    for method in node.body:
        if isinstance(method, Function) and ast.get_docstring(method) and method.name not in seen and _public(method):
            seen.add(method.name)  # the setter of a property has its name
            parts.append(_method(tree, module, method))
    return _block("py:class", node.name + _constructor(tree, module, node), body="\n".join(parts), fence="`````")


def _public(node: Function) -> bool:
    return not node.name.startswith("_") or node.name == "__call__"


def _method(tree: Tree, module: str, node: Function) -> str:
    marks = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
    if marks & {"property", "cached_property"}:
        returns = {} if node.returns is None else {"type": _annotation(tree, module, node.returns)}
        return _block("py:property", node.name, ast.get_docstring(node), **returns)
    flags = {mark: "" for mark in sorted(marks & {"staticmethod", "classmethod", "abstractmethod"})}
    signature = _signature(tree, module, node, bound="staticmethod" not in marks)
    return _block("py:method", node.name + signature, ast.get_docstring(node), **flags)


def _block(
    directive: str, name: str, doc: str | None = None, body: str = "", fence: str = "````", **options: str
) -> str:
    head = [f"{fence}{{{directive}}} {name}", *(f":{key}: {value}" for key, value in options.items())]
    return "\n".join([*head, "", body or markdown(doc), fence, ""])


def _signature(tree: Tree, module: str, node: Function, *, bound: bool = False) -> str:
    arguments = copy.deepcopy(node.args)
    if bound:
        (arguments.posonlyargs or arguments.args).pop(0)
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg) and argument.annotation is not None:
            argument.annotation = ast.Name(_annotation(tree, module, argument.annotation))
    returns = "" if node.returns is None else f" -> {_annotation(tree, module, node.returns)}"
    return f"({ast.unparse(arguments)}){returns}"


def _annotation(tree: Tree, module: str, node: ast.expr) -> str:
    """The annotation with the full names of what is ours, which makes them links."""
    node = copy.deepcopy(node)
    for name in ast.walk(node):
        if isinstance(name, ast.Name) and name.id in tree.names[module]:
            name.id = tree.canonical(tree.names[module][name.id])
    return ast.unparse(node)


def _constructor(tree: Tree, module: str, node: ast.ClassDef) -> str:
    """What a class is called with: the parameters of its `__init__`, or the fields of a dataclass and of its bases."""
    for method in node.body:
        if isinstance(method, Function) and method.name == "__init__":
            return _signature(tree, module, method, bound=True).partition(" -> ")[0]
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    dataclass = next((decorator for decorator in decorators if decorator.startswith("dataclass")), None)
    if dataclass is None:
        return ""
    fields = [f"{name}: {rest}" for name, rest in _fields(tree, module, node).items()]
    return f"({', '.join(['*'] * ('kw_only=True' in dataclass and bool(fields)) + fields)})"


def _fields(tree: Tree, module: str, node: ast.ClassDef) -> dict[str, str]:
    """The fields of a dataclass, those of its bases first: name → annotation and default."""
    fields = {}
    for base in reversed(node.bases):
        found = tree.find_class(tree.canonical(f"{module}.{ast.unparse(base)}"))
        if found:
            fields.update(_fields(tree, *found))
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            annotation = _annotation(tree, module, field.annotation)
            if not field.target.id.startswith("_") and not annotation.startswith("ClassVar"):
                default = "" if field.value is None else f" = {ast.unparse(field.value)}"
                fields[field.target.id] = annotation + default
    return fields


def markdown(docstring: str | None) -> str:
    """A docstring as Markdown: its code spans stay, its sections become lists, everything else is plain text."""
    plain = inspect.cleandoc(docstring or "")
    spans = re.split(r"(`[^`]*`)", plain)
    escaped = "".join(s if s.startswith("`") else re.sub(r"([\\*_<>\[\]{}#~|$])", r"\\\1", s) for s in spans)
    lines, section = [], ""
    for written, line in zip(plain.splitlines(), escaped.splitlines(), strict=True):
        heading, item = SECTION.match(written), ITEM.match(line)
        if heading:
            section = heading[1]
            lines += ["", f"**{section}**", ""]
        elif section and (line.startswith("    ") or not line):
            starts = section in ITEMS and item is not None
            lines.append(f"- *{item[1]}*: {item[2]}" if starts and item else f"  {line.strip()}")
        else:
            section = ""
            lines.append(written if written.startswith("    ") else line)  # an indented block is code, with no escapes
    return "\n".join(lines) + "\n"
