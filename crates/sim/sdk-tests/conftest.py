"""A simulator of its own for the session, and a tenant of its own for every test."""

import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
import uuid

import httpx
import pytest
from cloudflare import Cloudflare
from hcloud import Client


class Exchange:
    """A request and its answer, as the SDK sent and got it."""

    def __init__(self, request, body, status, content):
        self.method = request.method
        self.path = urllib.parse.urlsplit(str(request.url)).path
        self.request = json.loads(body) if body else None
        self.status = status
        self.response = json.loads(content) if content else None


def send(url, token=None, method="GET", body=None):
    """One HTTP call without an SDK; returns status and parsed body."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=10)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        text = response.read()
    return response.status, json.loads(text) if text else None


def eventually(condition, seconds=10):
    """Asks again and again until the answer is true, and returns it."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def sim(tmp_path_factory):
    ready = tmp_path_factory.mktemp("sim") / "ready.json"
    command = [os.environ["MOORAGE_SIM_BIN"], "serve", "--backend", "none"]
    command += ["--action-ms", "100", "--firewall-release-ms", "200", "--ready-file", str(ready)]
    process = subprocess.Popen(command)
    try:
        eventually(lambda: process.poll() is not None or ready.exists())
        assert process.poll() is None, "the simulator ended at once"
        yield json.loads(ready.read_text())
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0


class Project:
    def __init__(self, sim):
        self.name = self.token = f"p-{uuid.uuid4().hex}"
        self.base = sim["hetzner"]
        self.admin = sim["admin"]
        status, _ = send(f"{self.admin}/admin/hetzner/projects/{self.name}", method="PUT",
                         body={"token": self.token, "serverQuota": 100})
        assert status == 204
        self.client = Client(token=self.token, api_endpoint=self.base, poll_interval=0.05)
        self.exchanges = []
        self.client._client._session.hooks["response"].append(self.note)

    def note(self, response, **_):
        request = response.request
        self.exchanges.append(Exchange(request, request.body, response.status_code, response.content))

    def fault(self, **fault):
        status, body = send(f"{self.admin}/admin/faults", method="POST",
                            body={"cloud": "hetzner", "tenant": self.name, **fault})
        assert status == 201, body

    def call(self, method, path, body=None):
        return send(self.base + path, self.token, method, body)


class Account:
    def __init__(self, sim):
        self.id, self.zone = uuid.uuid4().hex, uuid.uuid4().hex
        self.token = f"t-{self.id}"
        self.domain = f"{self.id[:8]}.example"
        self.base = sim["cloudflare"]
        self.admin = sim["admin"]
        zone = {"id": self.zone, "name": self.domain, "plan": "free"}
        status, _ = send(f"{self.admin}/admin/cloudflare/accounts/{self.id}", method="PUT",
                         body={"token": self.token, "zones": [zone]})
        assert status == 204
        http = httpx.Client(event_hooks={"response": [self.note]})
        self.client = Cloudflare(api_token=self.token, base_url=self.base, max_retries=0, http_client=http)
        self.exchanges = []

    def note(self, response):
        request = response.request
        self.exchanges.append(Exchange(request, request.content, response.status_code, response.read()))

    def fault(self, **fault):
        status, body = send(f"{self.admin}/admin/faults", method="POST",
                            body={"cloud": "cloudflare", "tenant": self.id, **fault})
        assert status == 201, body

    def call(self, method, path, body=None):
        return send(self.base + path, self.token, method, body)


@pytest.fixture
def project(sim):
    return Project(sim)


@pytest.fixture
def account(sim):
    return Account(sim)
