"""Tokens, passwords, signatures and certificates."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from tests.unit.models.download.lying import CONTENT, Answer, N, Server, fetch, send, whole

from puna.errors import DownloadError
from puna.models.download import client_trusting


def test_a_redirect_to_another_host_gets_no_password(server: Server, tmp_path: Path) -> None:
    other = Server()
    try:
        server.answers = [send(302, Location="/again"), send(302, Location=other.url)]
        with httpx2.Client(auth=("user", "secret")) as client:
            fetch(server.url, tmp_path, client=client)
            assert not client.is_closed
    finally:
        other.close()
    assert ["Authorization" in request for request in server.requests] == [True, True]
    assert ["Authorization" in request for request in other.requests] == [False]
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


@pytest.mark.parametrize("is_another_host", [False, True])
def test_a_token_stays_with_its_host(server: Server, tmp_path: Path, is_another_host: bool) -> None:
    other = Server()
    try:
        server.answers = [send(302, Location=other.url if is_another_host else "/again"), whole]
        fetch(server.url, tmp_path, headers={"Authorization": "Bearer secret"})
    finally:
        other.close()
    assert [request.get("Authorization") for request in server.requests] == ["Bearer secret"] * (
        1 if is_another_host else 2
    )
    assert ["Authorization" in request for request in other.requests] == ([False] if is_another_host else [])
    assert (tmp_path / "file.whl").read_bytes() == CONTENT


def test_a_signature_is_in_no_message(server: Server, tmp_path: Path) -> None:
    signed = f"{server.url}?Signature=secret"
    failures: list[Answer] = [
        send(403),
        send(200, CONTENT[:-1]),
        send(206, CONTENT),
        send(302, Location="x:y"),
    ]
    for failure in failures:
        server.answers = [failure]
        with pytest.raises(DownloadError) as caught:
            fetch(signed, tmp_path)
        assert server.url in str(caught.value)
        assert "secret" not in str(caught.value)
    server.answers = [send(200, b"?" * N)]
    with pytest.raises(DownloadError) as caught:
        fetch(signed, tmp_path)
    assert "secret" not in str(caught.value)
    assert server.requests[0]["full"].endswith("?Signature=secret")


def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")

    with (
        httpx2.Client(transport=httpx2.MockTransport(refuse)) as client,
        pytest.raises(
            DownloadError, match=r"name its certificate file with `pip config set global\.cert FILE`"
        ),
    ):
        fetch("https://example.invalid/file.whl", tmp_path, client=client)


def test_a_certificate_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    with pytest.raises(DownloadError, match=r"cert\.pem of pip's setting `cert` cannot be read"):
        client_trusting(str(tmp_path / "cert.pem"))
