"""Nobody is spoken to whose certificate is not vouched for: neither key nor text goes out."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from semtel_batch.records import Endpoint, EndpointKind
from semtel_batch.transport.batch_api import BatchApi, CallFailed
from semtel_batch.transport.client import Client
from semtel_batch.transport.connection import Connection, connection
from semtel_batch.transport.limiter import Ticket
from semtel_batch.transport.shardfile import Call
from semtel_batch.transport.verdicts import Patience

# Made for this test and known to everybody; it signs itself, so that nobody vouches for it.
IMPOSTOR = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgOOAHtwJOhqMMcNX7
NABjtLAejCpqx7U4mz2tZoiqM9ihRANCAARBkdqNbWJrvsxjwzBNHs/fZtFcZh1k
+4Gw7L9q0DbyQyZXw7yRrlddE2BACixISbponIEqPisIRaY1C43+9+hQ
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUNuWA7czqm7icpPQdwLH3syvW/O8wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNTIyMjA0N1oYDzIxMjYxMTAx
MjIyMDQ3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARBkdqNbWJrvsxjwzBNHs/fZtFcZh1k+4Gw7L9q0DbyQyZXw7yRrldd
E2BACixISbponIEqPisIRaY1C43+9+hQo28wbTAdBgNVHQ4EFgQUXkWejoUJ4HQG
2XSsoEEtQTy1WRIwHwYDVR0jBBgwFoAUXkWejoUJ4HQG2XSsoEEtQTy1WRIwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIhANqM3tADzs2+luHo5d+NiBlzALdotyNqMR+chQM4gEodAiAR
NvNypZwkgCqHZHw8f0FsGXqGc1kwKgxgl/0mudPopQ==
-----END CERTIFICATE-----
"""


class Impostor:
    """A TLS server at the right address with a certificate of its own making."""

    def __init__(self, pem: Path) -> None:
        self.heard = b""
        self.n_greeted = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            self.n_greeted += 1
            try:
                with self._context.wrap_socket(caller, server_side=True) as inside:
                    self.heard += inside.recv(65_536)
            except OSError:  # the handshake was broken off, as it should be
                caller.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=10)


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[Impostor]:
    pem = tmp_path / "impostor.pem"
    pem.write_text(IMPOSTOR)
    with closing(Impostor(pem)) as made:
        yield made


def endpoint(impostor: Impostor) -> Endpoint:
    url = f"https://localhost:{impostor.port}/v1"
    return Endpoint(name="main", kind=EndpointKind.OPENAI, base_url=url, model="gpt-6-luna", api_key_env="KEY")


def reached(impostor: Impostor) -> Connection:
    return connection(endpoint(impostor), {"KEY": "sk-not-for-you"})


def test_files_and_batches(impostor: Impostor) -> None:
    with closing(BatchApi(reached(impostor))) as api, pytest.raises(CallFailed) as caught:
        api.models()
    assert caught.value.status_code == 0
    assert (impostor.n_greeted, impostor.heard) == (1, b"")


def test_realtime(impostor: Impostor) -> None:
    async def ask() -> tuple[int, str | None]:
        client = Client(endpoint(impostor), reached(impostor), patience=Patience())
        try:
            call = Call(custom_id="1", url="/v1/chat/completions", body=b"{}")
            reply = await client.send(call, Ticket(n=1, tokens=1))
        finally:
            await client.close()
        return reply.status_code, reply.error.code

    assert asyncio.run(ask()) == (0, "ClientConnectorCertificateError")
    assert (impostor.n_greeted, impostor.heard) == (1, b"")
