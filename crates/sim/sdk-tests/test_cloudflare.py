"""The Cloudflare half, driven by the vendor's SDK."""

import base64
import json

import cloudflare
import pytest


def tunnel(account, name, **extra):
    extra.setdefault("tunnel_secret", base64.b64encode(bytes(32)).decode())
    return account.client.zero_trust.tunnels.cloudflared.create(
        account_id=account.id, name=name, config_src="cloudflare", **extra)


def refused(kind, code, call):
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.body["errors"][0]["code"] == code


def test_token_account_and_zone(account):
    client = account.client
    assert client.user.tokens.verify().status == "active"
    assert client.accounts.get(account_id=account.id).id == account.id
    [zone] = client.zones.list(name=account.domain)
    assert zone.id == account.zone and client.zones.get(zone_id=zone.id).name == account.domain


def test_what_shows_how_a_zone_is_set_up(account):
    client = account.client
    zone = client.zones.get(zone_id=account.zone)
    assert (zone.status, zone.paused, zone.type) == ("active", False, "full")
    assert client.zero_trust.organizations.list(account_id=account.id).auth_domain
    [pack] = client.ssl.certificate_packs.list(zone_id=account.zone, status="all")
    assert pack.status == "active" and f"*.{account.domain}" in pack.hosts
    for setting, value in (("ssl", "full"), ("websockets", "on"), ("browser_check", "on")):
        assert client.zones.settings.get(setting, zone_id=account.zone).value == value
    assert client.bot_management.get(zone_id=account.zone).fight_mode is False


def test_a_tunnel_lives_and_dies(account):
    tunnels = account.client.zero_trust.tunnels.cloudflared
    made = tunnel(account, "ada")
    assert made.status == "inactive" and made.account_tag == account.id
    token = tunnels.token.get(made.id, account_id=account.id)
    assert json.loads(base64.b64decode(token))["t"] == made.id
    refused(cloudflare.ConflictError, 1013, lambda: tunnel(account, "ada"))
    tunnels.edit(made.id, account_id=account.id, name="bob", tunnel_secret=base64.b64encode(bytes(33)).decode())
    assert [found.name for found in tunnels.list(account_id=account.id, is_deleted=False)] == ["bob"]
    assert list(tunnels.connections.get(made.id, account_id=account.id)) == []
    tunnels.connections.delete(made.id, account_id=account.id)
    tunnels.delete(made.id, account_id=account.id)
    assert tunnels.get(made.id, account_id=account.id).deleted_at
    assert list(tunnels.list(account_id=account.id, is_deleted=False)) == []


def test_all_pages_of_tunnels_are_found(account):
    names = {f"t{number}" for number in range(7)}
    for name in names:
        tunnel(account, name)
    listed = account.client.zero_trust.tunnels.cloudflared.list(account_id=account.id, per_page=3)
    assert {found.name for found in listed} == names


def test_configurations(account):
    configurations = account.client.zero_trust.tunnels.cloudflared.configurations
    made = tunnel(account, "ada")
    rules = [{"hostname": f"ada.{account.domain}", "service": "http://127.0.0.1:18789"},
             {"hostname": "", "service": "http_status:404"}]
    put = configurations.update(made.id, account_id=account.id, config={"ingress": rules})
    assert put.version == 1
    got = configurations.get(made.id, account_id=account.id)
    assert got.config.ingress[0].service == "http://127.0.0.1:18789" and got.source == "cloudflare"
    refused(cloudflare.BadRequestError, 1056, lambda: configurations.update(
        made.id, account_id=account.id, config={"ingress": rules[:1]}))


def test_dns_records(account):
    records = account.client.dns.records
    made = records.create(zone_id=account.zone, type="CNAME", name="ada", content="x.cfargotunnel.com",
                          proxied=True, ttl=1, comment="moorage:1")
    assert made.name == f"ada.{account.domain}"
    refused(cloudflare.BadRequestError, 81053, lambda: records.create(
        zone_id=account.zone, type="CNAME", name="ada", content="y.cfargotunnel.com", ttl=1))
    records.edit(made.id, zone_id=account.zone, type="CNAME", name="ada", content="y.cfargotunnel.com", ttl=1)
    found = list(records.list(zone_id=account.zone, comment={"startswith": "moorage:"}, per_page=5000))
    assert [(record.id, record.content) for record in found] == [(made.id, "y.cfargotunnel.com")]
    records.delete(made.id, zone_id=account.zone)
    assert list(records.list(zone_id=account.zone)) == []


def test_the_batch(account):
    records = account.client.dns.records
    posts = [{"type": "CNAME", "name": f"s{number}", "content": "x.cfargotunnel.com", "ttl": 1} for number in range(3)]
    done = records.batch(zone_id=account.zone, posts=posts)
    assert len(done.posts) == 3
    deletes = [{"id": record.id} for record in done.posts]
    refused(cloudflare.BadRequestError, 81058, lambda: records.batch(
        zone_id=account.zone, deletes=deletes[:1], posts=posts[1:2]))
    listed = records.list(zone_id=account.zone, per_page=2)
    assert len(list(listed)) == 3, "nothing of the failed batch happened"
    records.batch(zone_id=account.zone, deletes=deletes)
    assert list(records.list(zone_id=account.zone)) == []


def test_access(account):
    access = account.client.zero_trust.access
    token = access.service_tokens.create(account_id=account.id, name="op", duration="8760h")
    assert token.client_secret
    rule = {"service_token": {"token_id": token.id}}
    policy = access.policies.create(account_id=account.id, name="op", decision="non_identity", include=[rule])
    uri = f"*-mgmt.{account.domain}"
    fields = {"account_id": account.id, "type": "self_hosted", "name": "mgmt", "domain": uri,
              "destinations": [{"type": "public", "uri": uri}]}
    app = access.applications.create(**fields, policies=[{"id": policy.id, "precedence": 1}])
    assert app.policies[0].id == policy.id and app.destinations[0].uri == uri
    assert [found.id for found in access.applications.list(account_id=account.id)] == [app.id]
    assert [found.id for found in access.policies.list(account_id=account.id)] == [policy.id]
    assert [found.id for found in access.service_tokens.list(account_id=account.id)] == [token.id]
    rotated = access.service_tokens.rotate(token.id, account_id=account.id)
    assert rotated.client_secret != token.client_secret and rotated.client_id == token.client_id
    access.applications.update(app.id, **fields, policies=[])
    access.applications.delete(app.id, account_id=account.id)
    access.policies.delete(policy.id, account_id=account.id)
    access.service_tokens.delete(token.id, account_id=account.id)
    assert list(access.service_tokens.list(account_id=account.id)) == []


def test_errors(account):
    tunnels = account.client.zero_trust.tunnels.cloudflared
    refused(cloudflare.NotFoundError, 1003, lambda: tunnels.get("nothing", account_id=account.id))
    refused(cloudflare.PermissionDeniedError, 10000, lambda: list(tunnels.list(account_id="0" * 32)))
    stranger = account.client.with_options(api_token="nobody")
    refused(cloudflare.AuthenticationError, 1000, stranger.user.tokens.verify)
    account.fault(kind="status", status=429)
    with pytest.raises(cloudflare.RateLimitError) as caught:
        tunnels.get("x", account_id=account.id)
    assert caught.value.response.headers["retry-after"] == "300"
