"""Data and models named as text, with options behind a question mark: `data.csv?label=species`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from edgekit.errors import WorkloadError, did_you_mean

PREFIXES = ("hf", "timm", "torchvision")
"""What may stand before a colon and is no module."""


def split_options(reference: str, known: Sequence[str], *, where: str = "") -> tuple[str, dict[str, str]]:
    """What stands before the question mark, and the options behind it as `KEY=VALUE` with `&` between them.

    A value may write any character as %XX.

    Raises:
        WorkloadError: an option is unknown, has no value sign, or is there twice.

    >>> split_options("hf:reviews?text=body&label=stars", ("text", "label"))
    ('hf:reviews', {'text': 'body', 'label': 'stars'})
    >>> split_options("data.csv?lable=species", ("label", "image"))
    Traceback (most recent call last):
    edgekit.errors.WorkloadError: unknown option 'lable'
      where: data.csv?lable=species
      rule: label=…, image=… behind the question mark
      way out: did you mean label?
    """
    target, mark, given = reference.partition("?")
    if not mark:
        return reference, {}
    rule = f"{', '.join(f'{name}=…' for name in known)} behind the question mark" if known else "no options"
    options: dict[str, str] = {}
    for part in given.split("&"):
        name, equals, value = part.partition("=")
        if name not in known or not equals or name in options:
            problem = f"unknown option {name!r}" if name not in known else f"got {part!r}"
            near = did_you_mean(name, known, "leave it out") if name not in known else f"write {name}=VALUE, once"
            raise WorkloadError(problem, where=where or reference, rule=rule, way_out=near)
        options[name] = unquote(value)
    return target, options


def yes(options: dict[str, str], name: str, reference: str) -> bool:
    """Whether the option `name` says yes; without it, no.

    Raises:
        WorkloadError: it says neither yes nor no.
    """
    value = options.get(name, "no")
    if value not in ("yes", "no"):
        raise WorkloadError(f"{name} is {value!r}", where=reference, rule=f"{name}=yes or {name}=no")
    return value == "yes"


def asking(reference: str) -> str:
    """`reference` with the option that allows a download.

    >>> asking("timm:resnet18"), asking("torchvision:CIFAR10?root=data")
    ('timm:resnet18?download=yes', 'torchvision:CIFAR10?root=data&download=yes')
    """
    return f"{reference}{'&' if '?' in reference else '?'}download=yes"


def anchored(reference: str, folder: Path) -> str:
    """`reference` with a relative path in it made absolute from `folder`.

    Names that are no paths (modules, names of networks and data sets) stay as they are.

    >>> anchored("net.py:model", Path("/p")), anchored("data.csv?label=a:b", Path("/p"))
    ('/p/net.py:model', '/p/data.csv?label=a:b')
    >>> anchored("torchvision:CIFAR10?root=data", Path("/p")), anchored("package.module:model", Path("/p"))
    ('torchvision:CIFAR10?root=/p/data', 'package.module:model')
    """
    target, mark, options = reference.partition("?")
    options = "&".join(_anchored_root(part, folder) for part in options.split("&"))
    head, colon, tail = target.partition(":")
    if colon and head in ("timm", "torchvision"):
        return f"{target}{mark}{options}"
    if colon and head == "hf":
        # A folder, or else the name of a repository in the user's cache.
        path = folder / Path(tail).expanduser()
        return f"hf:{path if path.exists() or tail.startswith(('.', '/', '~')) else tail}{mark}{options}"
    path_part, separator, name = target.rpartition(":")
    if separator and not path_part.endswith(".py"):
        return reference
    if not separator:
        path_part = target
    if Path(path_part).expanduser().is_absolute():
        return reference
    return (
        f"{folder / Path(path_part).expanduser()}{separator}{name}{mark}{options}"
        if separator
        else (f"{folder / Path(path_part).expanduser()}{mark}{options}")
    )


def _anchored_root(option: str, folder: Path) -> str:
    name, equals, value = option.partition("=")
    return f"{name}{equals}{folder / Path(value).expanduser()}" if name == "root" and value else option
