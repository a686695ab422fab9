"""Values of the bindings besides the trigger: only those of the durable client."""

import json

from local.functions_host.functions import DURABLE_CLIENT, Function
from local.functions_host.host_json import HostJson, HostJsonError
from local.functions_host.worker.process import Input

# Large enough for every payload that the engine takes; 0 would leave the 4 MiB default of gRPC.
_MESSAGE_BYTES = 512 * 1024 * 1024


class Inputs:
    """The ``durableClient`` configuration that ``azure.durable_functions`` expects from the host.

    Its management URLs have no code and are not served: the app must never publish them.
    """

    def __init__(self, settings: HostJson, *, engine_address: str, url: str) -> None:
        base = f"{url}/runtime/webhooks/durabletask"
        instance = f"{base}/instances/INSTANCEID"
        self._client = json.dumps(
            {
                "taskHubName": settings.hub_name,
                "connectionName": "AzureWebJobsStorage",
                "creationUrls": {"createNewInstancePostUri": f"{base}/orchestrators/{{functionName}}[/{{instanceId}}]"},
                "managementUrls": {
                    "id": "INSTANCEID",
                    "statusQueryGetUri": instance,
                    "sendEventPostUri": f"{instance}/raiseEvent/{{eventName}}",
                    "terminatePostUri": f"{instance}/terminate?reason={{text}}",
                    "purgeHistoryDeleteUri": instance,
                },
                "baseUrl": base,
                "requiredQueryStringParameters": "",
                "rpcBaseUrl": f"http://{engine_address}",
                "httpBaseUrl": base,
                "useForwardedHost": False,
                "maxGrpcMessageSizeInBytes": _MESSAGE_BYTES,
                "grpcHttpClientTimeout": "00:01:40",
            }
        )

    def extra(self, function: Function) -> list[Input]:
        """The inputs of a function besides its trigger."""
        inputs: list[Input] = []
        for binding in function.bindings:
            if binding is function.trigger or str(binding.get("direction", "IN")).upper() == "OUT":
                continue
            if binding["type"] != DURABLE_CLIENT:
                raise HostJsonError(f"{function.name}: input bindings of type {binding['type']} are not supported")
            inputs.append(Input(str(binding["name"]), "string", self._client))
        return inputs
