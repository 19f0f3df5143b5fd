from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest

from msgconv_async import ConnectionFailed
from msgconv_async.cli.doctor import _apart, mending
from msgconv_async.sandbox import CLIENT_SECRET
from tests.cli.conftest import Run, serving
from tests.cli.test_watch import accounts_file
from tests.client.support import authority, certificate


def test_what_is_well_is_said(run: Run) -> None:
    """Of a service whose clock agrees; the exit code says so."""
    note = "no credentials given for a server on this machine: using the sandbox's (sandbox-client)"
    with serving("--accounts", 2) as url:
        done = run("doctor", 10000001, 10000002, "--base-url", url)
    assert (0, "") == (done.code, done.err)
    assert [
        f"ok     accounts: 2: 2 with OAuth 2.0 client credentials; {note}",
        f"ok     server: {url}",
        "ok     proxy: none",
        "ok     clock: agrees with the service's",
    ] == [line for line in done.out.splitlines() if not line.startswith("ok     answers: 2 of 2")]


def test_a_clock_that_is_wrong_is_said(run: Run, sandbox: str) -> None:
    """The sandbox's is long ago."""
    done = run("doctor", 71, "--base-url", sandbox)
    assert 1 == done.code
    [line] = [line for line in done.out.splitlines() if line.startswith("WRONG")]
    assert line.startswith("WRONG  clock: ")
    assert line.endswith(" s ahead of the service's")
    assert "to mend: set this machine's clock" in done.out


def test_accounts_that_fail_are_said_and_summed_up(run: Run) -> None:
    """With what to mend, and without a secret."""
    with serving() as url:
        done = run("doctor", 10000001, *range(500, 510), "--base-url", url)
    assert 3 == done.code
    wrong = [line for line in done.out.splitlines() if line.startswith("WRONG")]
    assert 4 == len(wrong)
    assert "WRONG  account: account 50" in wrong[0]
    assert "WRONG  account: and 7 more accounts" == wrong[-1]
    assert 4 == done.out.count("to mend: check the account's id, and that these credentials")
    assert "ok     answers: 1 of 11 accounts" in done.out
    assert CLIENT_SECRET not in done.out


def test_a_mistake_in_the_accounts_file_is_what_to_mend(run: Run, tmp_path: Path) -> None:
    path = accounts_file(tmp_path, "71")
    done = run("doctor", "--accounts", path)
    assert (1, "") == (done.code, done.err)
    assert f"WRONG  accounts: {path}, line 5: the environment variable MAIN_SECRET is" in done.out


def test_the_proxy_is_named_without_its_password(
    run: Run, monkeypatch: pytest.MonkeyPatch, sandbox: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hush@proxy.example:3128")
    done = run("doctor", 71, "--base-url", sandbox)
    assert "ok     proxy: proxy.example:3128, by HTTPS_PROXY" in done.out
    assert "hush" not in done.out + done.err
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:hush@proxy.example")
    done = run("doctor", 71, "--base-url", sandbox)
    assert 1 == done.code
    assert "WRONG  proxy: HTTPS_PROXY names a proxy of the kind 'socks5'" in done.out
    assert "hush" not in done.out + done.err


def test_a_service_that_is_not_there_is_told(run: Run) -> None:
    done = run("doctor", 71, "--base-url", "http://127.0.0.1:9")
    assert 1 == done.code
    assert "to mend: is the server running there?" in done.out
    assert "HTTPS_PROXY" not in done.out
    outage = ConnectionFailed("no", account_id="1")
    for base_url in (None, "https://va.data.example.net"):
        assert "check the network, the firewall, and HTTPS_PROXY" == mending(outage, base_url)


def test_a_certificate_says_itself_what_to_mend(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network has no fault then, and the server is running."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate().configure_cert(tls)
    monkeypatch.setenv("MSGCONV_TOKEN", "t")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def answer() -> None:
            peer, _ = listening.accept()
            with peer, suppress(OSError), tls.wrap_socket(peer, server_side=True):
                pass

        answering = Thread(target=answer)
        answering.start()
        done = run("doctor", 71, "--base-url", f"https://127.0.0.1:{listening.getsockname()[1]}")
        answering.join()
    assert 1 == done.code
    assert "is not accepted: " in done.out
    assert "to mend" not in done.out


def test_all_that_is_wrong_here_is_said_before_anything_is_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not the first alone."""
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for name, value in {
        "MSGCONV_BASE_URL": "http://[",
        "HTTPS_PROXY": "http://foo:99999",
        "SSL_CERT_FILE": str(junk),
    }.items():
        monkeypatch.setenv(name, value)
    done = run("doctor", 71)
    assert (1, "") == (done.code, done.err)
    assert [f"WRONG  {what}" for what in ("accounts", "server", "proxy", "certificates")] == [
        line.partition(":")[0] for line in done.out.splitlines()
    ]
    assert f"SSL_CERT_FILE is {junk}, which holds no certificate in PEM" in done.out


def test_the_file_of_authorities_is_looked_at_where_it_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sandbox: str
) -> None:
    """And not where there is a folder as well, which may hold what the file lacks."""
    company = tmp_path / "company.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(company))
    ask = ("doctor", 71, "--base-url", sandbox)
    assert f"WRONG  certificates: SSL_CERT_FILE is {company}, which cannot be" in run(*ask).out
    authority().cert_pem.write_to_path(str(company))
    found = f"ok     certificates: their authorities are those of {company}, by SSL_CERT_FILE"
    assert found in run(*ask).out
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert "certificates" not in run(*ask).out


def test_clocks_agree_within_the_time_of_an_answer() -> None:
    begun = datetime(2026, 3, 4, tzinfo=UTC)
    second = timedelta(seconds=1)
    ended = begun + second
    found = [_apart(begun + place * second, begun, ended) for place in (-2, 0, 1, 3)]
    assert [-2 * second, 0 * second, 0 * second, 2 * second] == found
