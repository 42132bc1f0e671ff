"""What a ``_target_`` can be called with, read from its source without importing it."""

import ast
from functools import cache
from typing import Any, NamedTuple

from polyqwen.config.errors import suggest
from polyqwen.config.sources import (
    READ,
    Definition,
    file_of,
    look_up,
    look_up_expression,
    names_of,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
# where ``**kwargs`` end in a package whose source is not read: the names taken there
ENDS: dict[str, tuple[str, ...]] = {
    "torch.nn.Module": (),
    "torchmetrics.Metric": (
        "compute_on_cpu",
        "compute_with_cache",
        "dist_sync_fn",
        "dist_sync_on_step",
        "distributed_available_fn",
        "process_group",
        "sync_on_compute",
    ),
    "lightning.fabric.loggers.tensorboard.TensorBoardLogger": (  # for its SummaryWriter
        "comment",
        "filename_suffix",
        "flush_secs",
        "max_queue",
        "purge_step",
    ),
}


class Parameter(NamedTuple):
    """One parameter.

    Attributes:
        annotation: as written; None where there is none.
        module: in which the annotation's names have their meaning.
        required: it has no default.
    """

    annotation: ast.expr | None
    module: str
    required: bool


class Signature(NamedTuple):
    """Parameters by name.

    Attributes:
        parameters: in order, without ``self`` and ``cls``.
        open: other keywords are taken too, by code that is not read.
    """

    parameters: dict[str, Parameter]
    open: bool = False


class NoSuchTarget(ValueError):
    """There is nothing at this dotted path."""


class NotStatic(ValueError):
    """The target is there, but its signature is made when it is imported."""


@cache
def signature_of(target: str) -> Signature:
    """The signature of a class, a class's method or a function.

    Raises:
        NoSuchTarget: nothing is there; the message has the nearest names.
        NotStatic: something is, whose signature cannot be read from the source.
    """
    found, owner = walk(target)
    if found.module.partition(".")[0] not in READ:  # such as polyqwen.….os.system
        raise NoSuchTarget(f"{target} stands for {found.path}, which is not allowed as a target")
    if isinstance(found.node, ast.ClassDef):
        return _class_signature(found)
    if isinstance(found.node, Function):
        return _signature(found.node, found.module, owner)
    raise NotStatic(f"{target} is neither a class nor a function in the source of {found.module}")


def walk(target: str) -> tuple[Definition, Definition | None]:
    """What a dotted path stands for, and the class that has it if it is a method.

    Raises:
        NoSuchTarget: nothing is there.
    """
    found = Definition(target.partition(".")[0], "", ast.Module([], []))
    if file_of(found.module) is None:
        raise NoSuchTarget(f"there is no package {found.module!r}")
    owner: Definition | None = None
    for part in target.split(".")[1:]:
        if isinstance(found.node, ast.ClassDef):
            owner, step = found, _method(found, part)
        else:
            step = look_up(found.module, part) if not found.name else None
        if step is None:
            raise NoSuchTarget(f"there is no {part!r} in {found.path}; {_near(part, found)}")
        found = step
    return found, owner


def class_constant(target: str, name: str) -> Any:
    """The literal that a class, or the first of its bases that does, assigns to a name; else None.

    Raises:
        NoSuchTarget: nothing is there.
    """
    return _constant(walk(target)[0], name)


def _constant(owner: Definition, name: str) -> Any:
    if not isinstance(owner.node, ast.ClassDef):
        return None
    for node in owner.node.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return node.value.value
    found = (_constant(base, name) for base in _bases(owner))
    return next((value for value in found if value is not None), None)


def _near(name: str, parent: Definition) -> str:
    if isinstance(parent.node, ast.ClassDef):
        return suggest(name, [n.name for n in parent.node.body if isinstance(n, Function)])
    path = file_of(parent.module)
    inside = list(names_of(parent.module))
    if path is not None and path.name == "__init__.py":
        inside += [p.stem for p in path.parent.iterdir() if p.suffix == ".py" or p.is_dir()]
    return suggest(name, [n for n in inside if not n.startswith("_")])


def _method(owner: Definition, name: str) -> Definition | None:
    """A method of a class or of its bases."""
    assert isinstance(owner.node, ast.ClassDef)
    for node in owner.node.body:
        if isinstance(node, Function) and node.name == name:
            return Definition(owner.module, name, node)
    for base in _bases(owner):
        if isinstance(base.node, ast.ClassDef) and (found := _method(base, name)):
            return found
    return None


def _bases(owner: Definition) -> list[Definition]:
    assert isinstance(owner.node, ast.ClassDef)
    found = (look_up_expression(owner.module, base) for base in owner.node.bases)
    return [base for base in found if base is not None]


def _class_signature(owner: Definition) -> Signature:
    """That of ``__init__``, the class's own or the first among its bases, left to right."""
    assert isinstance(owner.node, ast.ClassDef)
    for node in owner.node.body:
        if isinstance(node, Function) and node.name == "__init__":
            return _signature(node, owner.module, owner)
    if owner.node.decorator_list:
        raise NotStatic(f"{owner.path} gets its constructor from a decorator")
    return _inherited(owner)


def _inherited(owner: Definition) -> Signature:
    for base in _bases(owner):
        if isinstance(base.node, ast.ClassDef):
            signature = _class_signature(base)
            if signature.parameters or signature.open:
                return signature
        elif base.path in ENDS:
            return _end(base.path)
        elif base.module not in ("abc", "typing"):
            raise NotStatic(f"{owner.path} has the constructor of {base.path}, which is not read")
    return Signature({})


def _end(path: str) -> Signature:
    return Signature(dict.fromkeys(ENDS[path], Parameter(None, path, False)))


def _signature(node: Function, module: str, owner: Definition | None) -> Signature:
    """Parameters of a function, and those of the one that its ``**kwargs`` are handed to."""
    a = node.args
    ordered = [*a.posonlyargs, *a.args]
    required = len(ordered) - len(a.defaults)
    own = {p.arg: Parameter(p.annotation, module, i < required) for i, p in enumerate(ordered)}
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
    if owner is not None and ordered and not static:
        del own[ordered[0].arg]
    for p, default in zip(a.kwonlyargs, a.kw_defaults, strict=True):
        own[p.arg] = Parameter(p.annotation, module, default is None)
    if a.kwarg is None:
        return Signature(own)
    further = _handed_on(node, a.kwarg.arg, module, owner)
    # its own come first, by position too, and hide others of the same name
    return Signature({**own, **further.parameters, **own}, further.open)


def _handed_on(node: Function, kwargs: str, module: str, owner: Definition | None) -> Signature:
    """What ``f(…, **kwargs)`` in the body leaves open of f's own parameters."""
    if owner is not None and owner.path in ENDS:
        return _end(owner.path)
    for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
        if not any(
            k.arg is None and isinstance(k.value, ast.Name) and k.value.id == kwargs
            for k in call.keywords
        ):
            continue
        callee = _callee(call.func, module, owner)
        if callee is None:
            break
        given = {k.arg for k in call.keywords} | {*list(callee.parameters)[: len(call.args)]}
        left = {n: p for n, p in callee.parameters.items() if n not in given}
        return Signature(left, callee.open)
    return Signature({}, open=True)


def _callee(func: ast.expr, module: str, owner: Definition | None) -> Signature | None:
    if owner is not None:
        if ast.unparse(func) == "super().__init__":
            return _inherited(owner)
        if isinstance(func, ast.Name) and func.id == "cls":
            return _class_signature(owner)
    found = look_up_expression(module, func)
    if found is not None and isinstance(found.node, ast.ClassDef):
        return _class_signature(found)
    if found is not None and isinstance(found.node, Function):
        return _signature(found.node, found.module, None)
    return None
