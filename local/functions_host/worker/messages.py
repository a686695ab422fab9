"""The messages that ``azure-functions-runtime`` takes through its ``protos`` argument.

In Azure they are the protobuf messages of the worker protocol (``FunctionRpc.proto``). The library creates them by
keyword, reads their fields and calls ``WhichOneof``, so plain objects with the same names are enough. The worker passes
this module itself.
"""

from types import SimpleNamespace
from typing import Any

FunctionLoadResponse = FunctionMetadataResponse = RpcFunctionMetadata = RpcRetryOptions = SimpleNamespace
WorkerInitResponse = WorkerMetadata = SimpleNamespace
NullableBool = NullableDouble = NullableString = NullableTimestamp = SimpleNamespace


class TypedData:
    """One value of a binding, in one of these fields; the others read as None."""

    string: str | None
    json: str | None
    bytes: "bytes | None"
    int: "int | None"
    double: float | None
    http: "RpcHttp | None"

    def __init__(self, **values: Any) -> None:
        if len(values) > 1 or not values.keys() <= TypedData.__annotations__.keys():
            raise TypeError(f"TypedData takes one of {', '.join(TypedData.__annotations__)}")
        self._which = next(iter(values), None)
        self.__dict__.update(dict.fromkeys(TypedData.__annotations__) | values)

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - the name is protobuf's
        return self._which


class RpcHttpCookie(SimpleNamespace):
    SameSite = SimpleNamespace(**{"None": 0, "Lax": 1, "Strict": 2, "ExplicitNone": 3})


class RpcHttp(SimpleNamespace):
    """A request (method, url, headers, params, query, body) or a response (status_code, headers, cookies, body)."""


class ParameterBinding(SimpleNamespace):
    """A named input or output value: ``name`` and ``data``."""

    def WhichOneof(self, _group: str) -> str:  # noqa: N802 - the name is protobuf's
        return "data"


class BindingInfo(SimpleNamespace):
    undefined, out, inout = 0, 1, 2


class RpcException(SimpleNamespace):
    """``message`` is ``Type: text``."""

    stack_trace = ""


class StatusResult(SimpleNamespace):
    Failure, Success = 0, 1
    exception: RpcException | None = None


class InvocationResponse(SimpleNamespace):
    return_value: TypedData | None = None
