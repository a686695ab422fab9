"""Commands that talk to the service: the options that all of them share, and what they work with."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchwave.cli.output import OutputFormat, OutputOption, show, show_warning

if TYPE_CHECKING:
    from rich.console import RenderableType

    from patchwave.cli.client import ApiClient

DEFAULT_URL = "http://localhost:7071"

UrlOption = Annotated[str, typer.Option("--url", envvar="PATCHWAVE_URL", help="Address of the service.")]
KeyOption = Annotated[
    str,
    typer.Option("--key", envvar="PATCHWAVE_KEY", help="Function key; better in the environment.", show_default=False),
]
_OUTPUT = ("output", OutputFormat.TABLE, OutputOption)
_ADDRESS = (("url", DEFAULT_URL, UrlOption), ("key", "", KeyOption))

_KEYWORD = inspect.Parameter.KEYWORD_ONLY

type Command = Callable[..., None]


@dataclass(frozen=True)
class Service:
    """The service of a command, and the form of the output that was asked for."""

    client: ApiClient
    output: OutputFormat

    @property
    def prints_json(self) -> bool:
        """Whether the output is JSON."""
        return self.output is OutputFormat.JSON

    def show[Document](
        self, document: Document, view: Callable[[Document], RenderableType], *, soft_wrap: bool = False
    ) -> None:
        """Print a document as JSON, or its view."""
        show(self.output, document, view, soft_wrap=soft_wrap)


def open_client(url: str, key: str) -> ApiClient:
    """The client of the service at an address.

    The token of a user is read from the environment alone: it does not belong into a shell's history.
    """
    # The HTTP library takes as long to import as everything else: only commands that call the service need it.
    from patchwave.cli.client import ApiClient

    return ApiClient(url, key, token=os.environ.get("PATCHWAVE_TOKEN", "").strip(), warn=show_warning)


def command(group: typer.Typer, name: str, text: str = "", *, has_output: bool = True) -> Callable[[Command], Command]:
    """Register a function whose first parameter is a `Service`; --url, --key and --output stand in its place.

    The fields of a dataclass among the other parameters are options too. ``text`` is the help, the docstring by
    default. ``has_output``: whether the command has --output.
    """

    def register(function: Command) -> Command:
        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        groups: dict[str, Any] = {each.name: each.annotation for each in own if is_dataclass(each.annotation)}

        def call(*, url: str, key: str, **options: Any) -> None:
            output = options.pop("output") if has_output else OutputFormat.TABLE
            for parameter, kind in groups.items():
                options[parameter] = kind(**{each.name: options.pop(each.name) for each in fields(kind)})
            with open_client(url, key) as client:
                function(Service(client, output), **options)

        parameters: list[inspect.Parameter] = []
        for each in own:
            options = groups.get(each.name)
            parameters += inspect.signature(options, eval_str=True).parameters.values() if options else [each]
        for option, default, annotation in (_OUTPUT, *_ADDRESS) if has_output else _ADDRESS:
            parameters.append(inspect.Parameter(option, _KEYWORD, default=default, annotation=annotation))
        parameters = [each.replace(kind=_KEYWORD) for each in parameters]
        # What typer reads of a function.
        vars(call)["__signature__"] = inspect.Signature(parameters)
        call.__annotations__ = {each.name: each.annotation for each in parameters}
        group.command(name, help=text or inspect.cleandoc(function.__doc__ or ""))(call)
        return function

    return register
