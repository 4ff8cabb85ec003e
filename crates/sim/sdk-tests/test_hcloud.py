"""The Hetzner half, driven by the vendor's SDK."""

import base64

import pytest
from conftest import eventually
from hcloud import APIException
from hcloud.actions import ActionFailedException
from hcloud.firewalls import FirewallResource, FirewallResourceLabelSelector, FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType
from hcloud.servers import ServerCreatePublicNetwork

KEY = "ssh-ed25519 " + base64.b64encode(bytes(51)).decode() + " lab"


def create(project, name, **extra):
    extra.setdefault("server_type", ServerType(name="cx23"))
    extra.setdefault("image", Image(name="debian-13"))
    return project.client.servers.create(name=name, **extra)


def refused(code, call):
    with pytest.raises(APIException) as caught:
        call()
    assert caught.value.code == code
    return caught.value


def test_a_server_lives_and_dies(project):
    servers = project.client.servers
    response = create(project, "ada", user_data="#cloud-config", labels={"pool": "a"},
                      location=Location(name="nbg1"))
    assert response.root_password
    response.action.wait_until_finished()
    for action in response.next_actions:
        action.wait_until_finished()
    server = eventually(lambda: (s := servers.get_by_name("ada")).status == "running" and s)
    assert (server.location.name, server.server_type.name, server.image.name) == ("nbg1", "cx23", "debian-13")
    assert server.public_net.ipv4.ip and server.public_net.ipv6.ip
    server = server.update(name="bob", labels={"pool": "b"})
    assert (server.name, server.labels) == ("bob", {"pool": "b"})
    server.delete().wait_until_finished()
    eventually(lambda: servers.get_by_name("bob") is None)


def test_all_pages_are_found(project):
    for number in range(53):
        create(project, f"s{number}")
    assert len(project.client.servers.get_all()) == 53
    page = project.client.servers.get_list(page=2, per_page=50)
    assert len(page.servers) == 3 and page.meta.pagination.total_entries == 53


def test_selectors_and_statuses_filter(project):
    create(project, "a", labels={"pool": "a"})
    create(project, "b", labels={"pool": "b"}).action.wait_until_finished()
    found = project.client.servers.get_all(label_selector="pool in (a,c)")
    assert [server.name for server in found] == ["a"]
    assert project.client.servers.get_all(status=["deleting"]) == []


def test_the_buttons(project):
    servers = project.client.servers
    server = create(project, "ada").server
    eventually(lambda: servers.get_by_id(server.id).status == "running")
    server.power_off().wait_until_finished()
    assert servers.get_by_id(server.id).status == "off"
    server.change_type(ServerType(name="cx33"), upgrade_disk=True).wait_until_finished()
    server.power_on().wait_until_finished()
    server.reboot().wait_until_finished()
    server.reset().wait_until_finished()
    server.enable_backup()
    server.create_image(description="before", type="snapshot", labels={"a": "b"}).action.wait_until_finished()
    server.change_protection(delete=True, rebuild=True).wait_until_finished()
    refused("protected", server.delete)
    server.change_protection(delete=False, rebuild=False).wait_until_finished()
    server.rebuild(Image(name="debian-12")).action.wait_until_finished()
    server.shutdown().wait_until_finished()
    eventually(lambda: servers.get_by_id(server.id).status == "off")
    assert servers.get_by_id(server.id).server_type.name == "cx33"
    commands = {action.command for action in server.get_actions()}
    assert {"create_server", "stop_server", "start_server", "rebuild_server"} <= commands


def test_a_server_without_public_addresses(project):
    network = ServerCreatePublicNetwork(enable_ipv4=False, enable_ipv6=False)
    server = create(project, "ada", public_net=network).server
    assert (server.public_net.ipv4, server.public_net.ipv6) == (None, None)


def test_firewalls(project):
    firewalls = project.client.firewalls
    rule = FirewallRule(direction="in", protocol="tcp", port="22", source_ips=["192.0.2.0/24"])
    selector = FirewallResource(type="label_selector", label_selector=FirewallResourceLabelSelector(selector="a=b"))
    wall = firewalls.create(name="wall", rules=[rule], resources=[selector]).firewall
    server = create(project, "ada", firewalls=[wall]).server
    assert {applied.firewall.id for applied in server.public_net.firewalls} == {wall.id}
    for action in firewalls.set_rules(wall, []):
        action.wait_until_finished()
    wall = firewalls.get_by_name("wall")
    assert wall.rules == [] and {applied.type for applied in wall.applied_to} == {"label_selector", "server"}
    refused("resource_in_use", wall.delete)
    wall.remove_from_resources([selector, FirewallResource(type="server", server=server)])
    server.delete()

    def gone():
        try:
            return wall.delete()
        except APIException as error:
            assert error.code == "resource_in_use"
            return False

    eventually(gone)


def test_ssh_keys_and_the_catalogue(project):
    client = project.client
    key = client.ssh_keys.create(name="lab", public_key=KEY)
    assert create(project, "ada", ssh_keys=[key]).root_password is None
    assert client.ssh_keys.get_by_name("lab").fingerprint == key.fingerprint
    key.delete()
    server_type = client.server_types.get_by_name("cx23")
    assert {place.location.name for place in server_type.locations} == {"fsn1", "nbg1", "hel1"}
    assert all(place.deprecation for place in client.server_types.get_by_name("cpx11").locations)
    assert client.images.get_by_name_and_architecture("debian-13", "arm").architecture == "arm"
    assert len(client.locations.get_all()) == 6
    assert [ip.assignee_id for ip in client.primary_ips.get_all()]


def test_errors(project):
    create(project, "ada")
    refused("uniqueness_error", lambda: create(project, "ada"))
    refused("invalid_input", lambda: create(project, "b", server_type=ServerType(name="nope")))
    refused("not_found", lambda: project.client.servers.get_by_id(1 << 40))
    project.fault(kind="out-of-stock")
    refused("resource_unavailable", lambda: create(project, "c"))
    project.fault(kind="status", status=423, path="/servers/*")
    refused("locked", lambda: project.client.servers.get_by_id(1))


def test_an_action_that_fails(project):
    project.fault(kind="action-error", method="POST", message="host died")
    action = create(project, "ada").action
    with pytest.raises(ActionFailedException):
        action.wait_until_finished()


def test_the_sdk_waits_out_a_rate_limit(project):
    project.fault(kind="status", status=429, times=1)
    assert project.client.servers.get_all() == []
