"""The messages that ``azure-functions-runtime`` takes through its ``protos`` argument.

In Azure they are the protobuf messages of the worker protocol (``FunctionRpc.proto``); the library only makes
them, reads their fields and asks ``WhichOneof``, so plain classes with the same names and fields are enough.
This module itself is what is handed over as ``protos``.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar


class _OneOf:
    """A message of which exactly one field is set; fields that are not set read as None."""

    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **values: Any) -> None:
        if len(values) > 1 or not set(values) <= set(self.fields):
            raise TypeError(f"{type(self).__name__} takes one of {', '.join(self.fields)}")
        self._which = next(iter(values), None)
        for name in self.fields:
            setattr(self, name, values.get(name))

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - the name is protobuf's
        return self._which


class TypedData(_OneOf):
    """One value of a binding: text, JSON text, bytes, a number, or an HTTP request or response."""

    fields = (
        "string",
        "json",
        "bytes",
        "int",
        "double",
        "http",
        "collection_bytes",
        "collection_string",
        "collection_double",
        "collection_sint64",
        "model_binding_data",
        "collection_model_binding_data",
    )
    string: str | None
    json: str | None
    bytes: "bytes | None"
    int: "int | None"
    double: float | None
    http: "RpcHttp | None"


@dataclass(slots=True)
class NullableString:
    value: str


@dataclass(slots=True)
class NullableBool:
    value: bool


@dataclass(slots=True)
class NullableDouble:
    value: float


@dataclass(slots=True)
class NullableTimestamp:
    """``value`` is a protobuf ``Timestamp``, which the library makes itself."""

    value: Any


class _SameSite:
    Lax = 1
    Strict = 2
    ExplicitNone = 3


setattr(_SameSite, "None", 0)


@dataclass(slots=True)
class RpcHttpCookie:
    name: str
    value: str
    domain: NullableString | None = None
    path: NullableString | None = None
    expires: NullableTimestamp | None = None
    secure: NullableBool | None = None
    http_only: NullableBool | None = None
    same_site: int = 0
    max_age: NullableDouble | None = None

    SameSite: ClassVar[type[_SameSite]] = _SameSite


@dataclass(slots=True)
class RpcHttp:
    """A request (method, url, params, query) or a response (status_code, cookies)."""

    method: str = ""
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    params: dict[str, str] = field(default_factory=dict[str, str])
    query: dict[str, str] = field(default_factory=dict[str, str])
    body: TypedData | None = None
    status_code: str = ""
    cookies: list[RpcHttpCookie] | None = None
    enable_content_negotiation: bool = False


class ParameterBinding:
    """A named input or output value."""

    __slots__ = ("data", "name")

    def __init__(self, name: str, data: TypedData | None = None) -> None:
        self.name = name
        self.data = data

    def WhichOneof(self, _group: str) -> str:  # noqa: N802 - the name is protobuf's
        return "data"


@dataclass(slots=True)
class BindingInfo:
    type: str
    data_type: int | None
    direction: int

    inout: ClassVar[int] = 2
    out: ClassVar[int] = 1
    undefined: ClassVar[int] = 0


@dataclass(slots=True)
class RpcException:
    """``message`` is ``Type: text``."""

    message: str
    stack_trace: str = ""
    source: str = ""


@dataclass(slots=True)
class StatusResult:
    status: int
    exception: RpcException | None = None

    Failure: ClassVar[int] = 0
    Success: ClassVar[int] = 1


@dataclass(slots=True, kw_only=True)
class RpcFunctionMetadata:
    name: str
    function_id: str
    raw_bindings: list[str]
    directory: str = ""
    script_file: str = ""
    entry_point: str = ""
    language: str = ""
    is_proxy: bool = False
    managed_dependency_enabled: bool = False
    bindings: Any = None
    retry_options: Any = None
    properties: Any = None


@dataclass(slots=True, kw_only=True)
class RpcRetryOptions:
    max_retry_count: int
    retry_strategy: str
    delay_interval: Any = None
    minimum_interval: Any = None
    maximum_interval: Any = None


@dataclass(slots=True, kw_only=True)
class WorkerMetadata:
    runtime_name: str
    runtime_version: str
    worker_version: str
    worker_bitness: str
    custom_properties: dict[str, str]


@dataclass(slots=True, kw_only=True)
class WorkerInitResponse:
    capabilities: dict[str, str]
    worker_metadata: WorkerMetadata
    result: StatusResult


@dataclass(slots=True, kw_only=True)
class FunctionMetadataResponse:
    use_default_metadata_indexing: bool
    function_metadata_results: list[RpcFunctionMetadata] | None
    result: StatusResult


@dataclass(slots=True, kw_only=True)
class FunctionLoadResponse:
    function_id: str
    result: StatusResult


@dataclass(slots=True, kw_only=True)
class InvocationResponse:
    invocation_id: str
    result: StatusResult
    return_value: TypedData | None = None
    output_data: list[ParameterBinding] | None = None


@dataclass(slots=True)
class RpcTraceContext:
    trace_parent: str = ""
    trace_state: str = ""
    attributes: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class RetryContext:
    retry_count: int = 0
    max_retry_count: int = 0
    exception: RpcException | None = None


@dataclass(slots=True, kw_only=True)
class WorkerInitRequest:
    function_app_directory: str
    capabilities: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True, kw_only=True)
class FunctionsMetadataRequest:
    function_app_directory: str


@dataclass(slots=True, kw_only=True)
class FunctionLoadRequest:
    function_id: str


@dataclass(slots=True, kw_only=True)
class InvocationRequest:
    invocation_id: str
    function_id: str
    input_data: list[ParameterBinding]
    trigger_metadata: dict[str, TypedData] = field(default_factory=dict[str, TypedData])
    trace_context: RpcTraceContext = field(default_factory=RpcTraceContext)
    retry_context: RetryContext = field(default_factory=RetryContext)


class StreamingMessage(_OneOf):
    """The envelope of a request."""

    fields = (
        "worker_init_request",
        "functions_metadata_request",
        "function_load_request",
        "invocation_request",
    )


@dataclass(slots=True)
class WorkerRequest:
    """What the library's entry points take: an envelope and properties (``host``, ``protos``)."""

    request: StreamingMessage
    properties: dict[str, Any]
