"""Resource Manager itself: metadata, tenants, subscriptions, locations, resource groups.

``az cloud register`` and the SDKs read a cloud's addresses from the metadata document.
"""

from __future__ import annotations

from typing import Any

from local.azure_simulator.arm.regions import REGIONS, location_document
from local.azure_simulator.hybrid_compute.machine import AnyMachine
from local.azure_simulator.server.routing import ArmResponse, Call, Route, compact
from local.azure_simulator.state import AzureState


class Subscriptions:
    """Handlers without a provider."""

    def __init__(self, azure: AzureState) -> None:
        self.azure = azure

    def routes(self) -> list[Route]:
        subscription = "/subscriptions/{subscription}"
        return [
            Route("GET", "/metadata/endpoints", "metadata", self.metadata, needs_token=False),
            Route("GET", "/tenants", "list", self.tenants),
            Route("GET", "/subscriptions", "list", self.subscriptions),
            Route("GET", subscription, "read", self.subscription),
            Route("GET", subscription + "/locations", "list", self.locations),
            Route("GET", subscription + "/providers", "list", self.providers),
            Route("GET", subscription + "/providers/{provider}", "read", self.provider),
            Route("GET", subscription + "/resourceGroups", "list", self.groups),
            Route("GET", subscription + "/resourceGroups/{group}", "read", self.group),
            # az vm list -d reads these; the machines here have no network.
            Route("GET", subscription + "/providers/Microsoft.Network/networkInterfaces", "list", self.nothing),
            Route("GET", subscription + "/providers/Microsoft.Network/publicIPAddresses", "list", self.nothing),
        ]

    def metadata(self, call: Call) -> ArmResponse:
        base = self.azure.base_url
        authentication = {
            "loginEndpoint": "https://login.microsoftonline.com",
            "audiences": [base, base + "/", "https://management.core.windows.net/", "https://management.azure.com/"],
            "tenant": "common",
            "identityProvider": "AAD",
        }
        if call.api_version < "2019-05-01":
            old = {"galleryEndpoint": base, "graphEndpoint": "https://graph.windows.net/"}
            kept = {key: authentication[key] for key in ("loginEndpoint", "audiences")}
            return compact(old | {"portalEndpoint": "https://portal.azure.com/", "authentication": kept})
        cloud: dict[str, Any] = {
            "portal": "https://portal.azure.com",
            "authentication": authentication,
            "media": "https://rest.media.azure.net",
            "graphAudience": "https://graph.windows.net/",
            "graph": "https://graph.windows.net/",
            "name": "PatchwaveSimulator",
            "suffixes": {
                "sqlServerHostname": "database.windows.net",
                "storage": "core.windows.net",
                "keyVaultDns": "vault.azure.net",
                "acrLoginServer": "azurecr.io",
            },
            "batch": "https://batch.core.windows.net/",
            "resourceManager": base,
            "vmImageAliasDoc": "https://raw.githubusercontent.com/Azure/azure-rest-api-specs/main/arm-compute/quickstart-templates/aliases.json",
            "activeDirectoryDataLake": "https://datalake.azure.net/",
            "sqlManagement": "https://management.core.windows.net:8443/",
            "microsoftGraphResourceId": "https://graph.microsoft.com/",
            "appInsightsResourceId": "https://api.applicationinsights.io",
            "logAnalyticsResourceId": "https://api.loganalytics.io",
            "gallery": base,
        }
        # Up to 2021 the document is a list of clouds; since 2022-09-01 it is one cloud.
        return compact(cloud if call.api_version >= "2022-09-01" else [cloud])

    def tenants(self, call: Call) -> ArmResponse:
        tenant = self.azure.tenant_id
        shown = {
            "id": f"/tenants/{tenant}",
            "tenantId": tenant,
            "countryCode": "NL",
            "displayName": "Simulated directory",
            "domains": ["simulated.example"],
            "tenantCategory": "Home",
            "defaultDomain": "simulated.example",
            "tenantType": "AAD",
        }
        return compact({"value": [shown]})

    def subscriptions(self, call: Call) -> ArmResponse:
        ids = [machines[0].subscription_id for machines in self.azure.by_subscription.values()]
        shown = [self._subscription(each) for each in ids]
        return compact({"value": shown, "count": {"type": "Total", "value": len(shown)}})

    def subscription(self, call: Call) -> ArmResponse:
        machines = self.azure.subscription(call.subscription)
        return compact(self._subscription(machines[0].subscription_id))

    def _subscription(self, subscription_id: str) -> dict[str, Any]:
        return {
            "id": f"/subscriptions/{subscription_id}",
            "authorizationSource": "RoleBased",
            "managedByTenants": [],
            "subscriptionId": subscription_id,
            "tenantId": self.azure.tenant_id,
            "displayName": f"Simulated {subscription_id[:8]}",
            "state": "Enabled",
            "subscriptionPolicies": {
                "locationPlacementId": "Public_2014-09-01",
                "quotaId": "EnterpriseAgreement_2014-09-01",
                "spendingLimit": "Off",
            },
        }

    def locations(self, call: Call) -> ArmResponse:
        subscription_id = self.azure.subscription(call.subscription)[0].subscription_id
        geography = self.azure.geography
        listed = [location_document(subscription_id, region, geography) for region in REGIONS.values()]
        return compact({"value": listed})

    def groups(self, call: Call) -> ArmResponse:
        self.azure.subscription(call.subscription)
        shown = [_group(machines[0]) for key, machines in self.azure.by_group.items() if call.covers(*key)]
        return compact({"value": shown})

    def group(self, call: Call) -> ArmResponse:
        return compact(_group(self.azure.group(call.subscription, call.group)[0]))

    def providers(self, call: Call) -> ArmResponse:
        self.azure.subscription(call.subscription)
        names = ("AlertsManagement", "Compute", "HybridCompute", "Network", "ResourceGraph", "ResourceHealth")
        return compact({"value": [_provider(call, f"Microsoft.{name}") for name in names]})

    def provider(self, call: Call) -> ArmResponse:
        self.azure.subscription(call.subscription)
        return compact(_provider(call, call.captured["provider"]))

    def nothing(self, call: Call) -> ArmResponse:
        self.azure.subscription(call.subscription)
        return compact({"value": []})


def _group(member: AnyMachine) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/{member.subscription_id}/resourceGroups/{member.resource_group}",
        "name": member.resource_group,
        "type": "Microsoft.Resources/resourceGroups",
        "location": member.location,
        "tags": {},
        "properties": {"provisioningState": "Succeeded"},
    }


def _provider(call: Call, name: str) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/{call.subscription}/providers/{name}",
        "namespace": name,
        "resourceTypes": [],
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationRequired",
    }
