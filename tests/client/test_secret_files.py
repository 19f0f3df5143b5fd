"""Secrets in files of their own: how they are read, and read again when they are replaced."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from msgconv_async import (
    Account,
    ApiKey,
    BearerToken,
    ClientCredentials,
    ConfigurationError,
    ConversationSession,
    Unauthorized,
    UserLogin,
    read_accounts,
)
from msgconv_async.cli.credentials import find
from tests.client.support import NOTHING, QUERY, serving

ACCOUNT = '[[accounts]]\nid = "1"\ncredentials = "main"\n'


def accounts_file(tmp_path: Path, kind: str, **keys: str) -> list[Account]:
    """Read a file of one account with these credentials."""
    given = "".join(f'{key} = "{value}"\n' for key, value in {"kind": kind, **keys}.items())
    (tmp_path / "accounts.toml").write_text(f"[credentials.main]\n{given}{ACCOUNT}")
    return read_accounts(tmp_path / "accounts.toml", {"VARIABLE": "from-the-environment"})


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("s3cret\n")
    return file


def test_every_secret_may_stand_in_a_file(tmp_path: Path, secret: Path) -> None:
    """Beside others that are variables; the line end that editors write is no part of it."""
    path = str(secret)
    found = [
        accounts_file(tmp_path, "client", client_id="me", client_secret_file=path),
        accounts_file(tmp_path, "user", username="me", password_file=path),
        accounts_file(tmp_path, "bearer", token_file=path),
        accounts_file(
            tmp_path,
            "api_key",
            app_key="key",
            app_secret_file=path,
            access_token_env="VARIABLE",
            access_token_secret_file=path,
        ),
    ]
    assert [
        ClientCredentials("me", "s3cret"),
        UserLogin("me", "s3cret"),
        BearerToken("s3cret"),
        ApiKey("key", "s3cret", "from-the-environment", "s3cret"),
    ] == [account.credentials for [account] in found]


@pytest.mark.parametrize("body", [b"s3cret", b"s3cret\n", b"s3cret\r\n", b"s3cret\n\n"])
def test_a_line_end_is_no_part_of_a_secret(tmp_path: Path, secret: Path, body: bytes) -> None:
    secret.write_bytes(body)
    [account] = accounts_file(tmp_path, "bearer", token_file=str(secret))
    assert BearerToken("s3cret") == account.credentials


def test_the_directory_of_systemd_is_found(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has another name for each service, which only the service's environment tells."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    [account] = accounts_file(tmp_path, "bearer", token_file="$CREDENTIALS_DIRECTORY/secret")
    assert BearerToken("s3cret") == account.credentials

    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(ConfigurationError, match=r"line 3: .*CREDENTIALS_DIRECTORY is not set"):
        accounts_file(tmp_path, "bearer", token_file="$CREDENTIALS_DIRECTORY/secret")
    assert secret.exists()


def replace(file: Path, text: str | None) -> None:
    """Write a file anew, or take it away."""
    file.unlink(missing_ok=True)
    if text is not None:
        file.write_text(text)


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def make_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "cannot be read: No such file or directory"),
    "empty": (lambda file: file.write_text(""), "is empty"),
    "a line end only": (lambda file: file.write_text("\n"), "is empty"),
    "too large": (lambda file: file.write_text("s3cret" * 20_000), "is larger than 65536 bytes"),
    "of two lines": (lambda file: file.write_text("s3cret\nmore\n"), "has more than one line"),
    "with a space": (lambda file: file.write_text("s3cret \n"), "has more than one line, or white"),
    "no UTF-8": (lambda file: file.write_bytes(b"s3cret\xff"), "is not UTF-8"),
    "a folder": (make_folder, "is not a file, or not a regular one"),
    "a pipe": (make_pipe, "is not a file, or not a regular"),
}


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD)
def test_a_file_that_holds_no_secret_is_told_with_its_line(
    tmp_path: Path, secret: Path, spoil: Callable[[Path], object], said: str
) -> None:
    """One sentence that names the file, and shows nothing of it."""
    spoil(secret)
    with pytest.raises(ConfigurationError) as caught:
        accounts_file(tmp_path, "client", client_id="me", client_secret_file=str(secret))

    assert f"accounts.toml, line 4: the secret file {secret} {said}" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("given", ["hunter2", "secrets/hunter2", "~/hunter2", "$HOME/hunter2"])
def test_what_may_be_the_secret_itself_is_not_shown(tmp_path: Path, given: str) -> None:
    """A path that depends on where a program was started is none either."""
    with pytest.raises(ConfigurationError, match="must be the path of a file, from") as caught:
        accounts_file(tmp_path, "bearer", token_file=given)
    assert "hunter2" not in str(caught.value)


def test_a_variable_and_a_file_are_one_too_many(tmp_path: Path, secret: Path) -> None:
    """And neither is one too few."""
    with pytest.raises(ConfigurationError, match="token_env and token_file are both given"):
        accounts_file(tmp_path, "bearer", token_env="VARIABLE", token_file=str(secret))
    with pytest.raises(ConfigurationError, match="token_env, or token_file, is missing"):
        accounts_file(tmp_path, "bearer")
    with pytest.raises(ConfigurationError, match="client_id_file is not known here"):
        accounts_file(tmp_path, "client", client_id_file="/x", client_secret_env="VARIABLE")


class Service:
    """Gives tokens for a secret, and takes the tokens of the latest one only.

    Attributes:
        secret: The secret that is good now.
        seen: The secrets that it was shown.
        asked: How many questions came.
    """

    def __init__(self) -> None:
        self.secret = "s3cret"
        self.lifetime = 3600
        self.seen: list[str] = []
        self.asked = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if "/sentinel/" in request.path:
            [shown] = parse_qs(await request.text())["client_secret"]
            self.seen.append(shown)
            if shown != self.secret:
                return web.Response(status=401, text=f"not {shown}")
            return web.json_response({"access_token": shown, "expires_in": self.lifetime})
        self.asked += 1
        good = request.headers["Authorization"] == f"Bearer {self.secret}"
        return web.Response(body=NOTHING) if good else web.Response(status=401, text="renew it")


async def test_a_secret_that_was_replaced_is_read_when_the_token_is_refused(
    tmp_path: Path, secret: Path
) -> None:
    """The call that met the refusal is answered; nothing has to be started again."""
    service = Service()
    [who] = accounts_file(tmp_path, "client", client_id="me", client_secret_file=str(secret))
    async with serving(service) as url, ConversationSession(base_url=url) as session:
        await session.fetch(who, QUERY)
        service.secret = "an0ther"
        replace(secret, "an0ther\n")
        await session.fetch(who, QUERY)

    assert ["s3cret", "an0ther"] == service.seen


@pytest.mark.looptime
async def test_a_secret_that_was_replaced_is_read_when_the_token_expires(
    tmp_path: Path, secret: Path
) -> None:
    """Also by an account that was made before it was."""
    service = Service()
    [who] = accounts_file(tmp_path, "client", client_id="me", client_secret_file=str(secret))
    async with serving(service) as url, ConversationSession(base_url=url) as session:
        await session.fetch(who, QUERY)
        await asyncio.sleep(service.lifetime)
        service.secret = "an0ther"
        replace(secret, "an0ther\n")
        await session.fetch(who, QUERY)

    assert ["s3cret", "an0ther"] == service.seen
    assert 2 == service.asked


async def test_a_token_in_a_file_is_read_again_when_it_is_refused(
    tmp_path: Path, secret: Path
) -> None:
    """Once; one that is still the same is refused for good, and asked with once."""
    service = Service()
    [who] = accounts_file(tmp_path, "bearer", token_file=str(secret))
    async with serving(service) as url, ConversationSession(base_url=url) as session:
        await session.fetch(who, QUERY)
        service.secret = "an0ther"
        with pytest.raises(Unauthorized):
            await session.fetch(who, QUERY)
        assert 2 == service.asked
        replace(secret, "an0ther\n")
        await session.fetch(who, QUERY)
        await session.fetch(who, QUERY)

    assert 5 == service.asked  # refused, answered, answered


async def test_a_file_that_is_gone_is_told_and_read_when_it_is_back(
    tmp_path: Path, secret: Path
) -> None:
    """By its name, and without what it held."""
    service = Service()
    [who] = accounts_file(tmp_path, "client", client_id="me", client_secret_file=str(secret))
    replace(secret, None)
    async with serving(service) as url, ConversationSession(base_url=url) as session:
        with pytest.raises(ConfigurationError, match=f"the secret file {secret} cannot be read"):
            await session.fetch(who, QUERY)
        replace(secret, "s3cret")
        await session.fetch(who, QUERY)

    assert ["s3cret"] == service.seen


async def test_the_new_secret_is_in_no_error(tmp_path: Path, secret: Path) -> None:
    """Though the service repeats it, and the account was made with another."""
    service = Service()
    [who] = accounts_file(tmp_path, "client", client_id="me", client_secret_file=str(secret))
    replace(secret, "an0ther-secret")
    async with serving(service) as url, ConversationSession(base_url=url) as session:
        with pytest.raises(Unauthorized) as caught:
            await session.fetch(who, QUERY)
    assert "not ***" in str(caught.value)


def test_what_was_pickled_still_knows_its_file(tmp_path: Path, secret: Path) -> None:
    [account] = accounts_file(tmp_path, "bearer", token_file=str(secret))
    arrived = pickle.loads(pickle.dumps(account.credentials))
    secret.write_text("an0ther")
    assert BearerToken("an0ther") == arrived.current()
    assert BearerToken("s3cret") == arrived


@pytest.mark.parametrize(
    ("given", "names", "credentials"),
    [
        ({"MSGCONV_CLIENT_SECRET_FILE": ""}, ("me", None), ClientCredentials("me", "s3cret")),
        ({"MSGCONV_TOKEN_FILE": ""}, (None, None), BearerToken("s3cret")),
        ({"MSGCONV_PASSWORD_FILE": ""}, (None, "me"), UserLogin("me", "s3cret")),
    ],
)
def test_a_command_reads_a_secret_from_the_file_that_a_variable_names(
    given: dict[str, str],
    names: tuple[str | None, str | None],
    credentials: object,
    secret: Path,
) -> None:
    """As containers are told of secrets; the file is read again as one of an accounts file is."""
    found, _ = find(*names, None, dict.fromkeys(given, str(secret)))
    assert credentials == found
    secret.write_text("an0ther")
    assert found != found.current()


def test_a_command_told_of_a_secret_twice_says_so(secret: Path) -> None:
    """And of a file that is not there."""
    twice = {"MSGCONV_TOKEN": "t", "MSGCONV_TOKEN_FILE": str(secret)}
    with pytest.raises(ConfigurationError, match="MSGCONV_TOKEN and MSGCONV_TOKEN_FILE are both"):
        find(None, None, None, twice)
    with pytest.raises(ConfigurationError, match=r"^MSGCONV_TOKEN_FILE: the secret file /no/such"):
        find(None, None, None, {"MSGCONV_TOKEN_FILE": "/no/such"})
    secret.write_text("a b")
    with pytest.raises(ConfigurationError, match=r"^MSGCONV_TOKEN_FILE: BearerToken: the token is"):
        find(None, None, None, {"MSGCONV_TOKEN_FILE": str(secret)})
