"""The simulator against the vendors' OpenAPI documents: every exchange of the SDK scenarios.

MOORAGE_SPECS names the folder with hetzner.json and cloudflare.json. Without it these tests are
skipped, or fail under MOORAGE_REQUIRE_ALL=1."""

import os
import pathlib

import pytest
import test_cloudflare
import test_hcloud
from contract import Contract, without_required


def specification(name):
    folder = os.environ.get("MOORAGE_SPECS")
    file = pathlib.Path(folder or ".") / name
    if folder and file.is_file():
        return file
    reason = f"MOORAGE_SPECS names no folder with the vendor's {name}"
    if os.environ.get("MOORAGE_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def relax_hetzner(document):
    # Gone since 2026-07; the document is older.
    document.update(without_required(document, ["datacenter"]))
    # The vendor's own SDK sends ids as numbers here.
    document["components"]["schemas"]["create_server_request"]["properties"]["ssh_keys"]["items"] = {}


def relax_cloudflare(document):
    """What the real API does otherwise than its document says."""
    schemas = document["components"]["schemas"]
    for name in NULLABLE:
        schemas[name]["nullable"] = True
    for item in document["paths"].values():
        for method, operation in item.items():
            if method == "parameters":
                continue
            for code, answer in operation["responses"].items():
                schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
                if code.upper() == "4XX" and "allOf" in schema:
                    # An error is described as a success and a failure at the same time.
                    schema["allOf"] = [part for part in schema["allOf"] if "failure" in part.get("$ref", "")]


# The descriptions of the first three say "null", their types do not.
NULLABLE = ("tunnel_deleted_at", "tunnel_conns_active_at", "tunnel_conns_inactive_at", "dns-records_comment")
# The same schema serves requests and answers.
ANSWER_ONLY = ("id", "proxiable", "created_on", "modified_on")


@pytest.fixture(scope="session")
def hetzner():
    return Contract(specification("hetzner.json"), "/v1", relax_hetzner)


@pytest.fixture(scope="session")
def cloudflare():
    return Contract(specification("cloudflare.json"), "/client/v4", relax_cloudflare, ANSWER_ONLY)


def scenarios(module):
    return [pytest.param(value, id=name) for name, value in vars(module).items() if name.startswith("test_")]


@pytest.mark.parametrize("scenario", scenarios(test_hcloud))
def test_hetzner_keeps_to_its_document(hetzner, project, scenario):
    scenario(project)
    unknown = {exchange.path for exchange in project.exchanges if not hetzner.check(exchange)}
    assert project.exchanges and not unknown




@pytest.mark.parametrize("scenario", scenarios(test_cloudflare))
def test_cloudflare_keeps_to_its_document(cloudflare, account, scenario):
    scenario(account)
    unknown = {exchange.path for exchange in account.exchanges if not cloudflare.check(exchange)}
    assert account.exchanges
    assert all(path.endswith(NOT_IN_THE_DOCUMENT) or path == f"/client/v4/accounts/{account.id}" for path in unknown), unknown


# The document is a part of the vendor's; the SDK reads these answers all the same.
NOT_IN_THE_DOCUMENT = (
    "/dns_records/batch", "/access/organizations", "/ssl/certificate_packs", "/bot_management",
    "/settings/ssl", "/settings/websockets", "/settings/browser_check",
)
