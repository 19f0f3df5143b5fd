import copy
import pickle
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from msgconv_async import (
    Account,
    ApiKey,
    BearerToken,
    ClientCredentials,
    ConfigurationError,
    UserLogin,
    read_accounts,
)
from msgconv_async.client.access.accounts_file import credentials_of
from msgconv_async.client.access.toml_lines import lines

ENVIRONMENT = {"SECRET": "s3cret", "PASSWORD": "pa55", "TOKEN": "t0ken", "EMPTY": ""}
ENVIRONMENT["FROM_A_FILE"] = "s3cret\n"

EVERYTHING = """\
[credentials.main]
kind = "client"
client_id = "reporting"
client_secret_env = "SECRET"

[credentials.somebody]
kind = "user"
username = "jo"
password_env = "PASSWORD"

[credentials."a token"]
kind = "bearer"
token_env = "TOKEN"

[credentials.old]
kind = "api_key"
app_key = "key"
app_secret_env = "SECRET"
access_token_env = "TOKEN"
access_token_secret_env = "PASSWORD"

[[accounts]]
id = "1"
credentials = "main"

[[accounts]]
id = "2"
credentials = "main"
host = "va.data.example.net:8443"

[[accounts]]
id = "3"
credentials = "somebody"

[[accounts]]
id = "4"
credentials = "a token"

[[accounts]]
id = "5"
credentials = "old"
"""

MAIN = """\
[credentials.main]
kind = "client"
client_id = "reporting"
client_secret_env = "SECRET"

[[accounts]]
id = "1"
credentials = "main"
"""


def read(tmp_path: Path, text: str | bytes) -> list[Account]:
    path = tmp_path / "accounts.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_accounts(path, ENVIRONMENT)


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_file_gives_accounts_their_credentials(tmp_path: Path, line_end: str) -> None:
    """Every kind, shared or not, the secrets out of the environment."""
    main = ClientCredentials("reporting", "s3cret")

    assert [
        Account("1", main),
        Account("2", main, host="va.data.example.net:8443"),
        Account("3", UserLogin("jo", "pa55")),
        Account("4", BearerToken("t0ken")),
        Account("5", ApiKey("key", "s3cret", "t0ken", "pa55")),
    ] == read(tmp_path, EVERYTHING.replace("\n", line_end))


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """Editors on Windows write one; lines are counted as ever."""
    assert read(tmp_path, MAIN) == read(tmp_path, b"\xef\xbb\xbf" + MAIN.encode())
    with pytest.raises(ConfigurationError, match="line 9: other is not known here"):
        read(tmp_path, b"\xef\xbb\xbf" + MAIN.encode() + b"[other]\n")


def test_the_secrets_are_those_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless others are given."""
    monkeypatch.setenv("SECRET", "another")
    (tmp_path / "accounts.toml").write_text(MAIN)

    [account] = read_accounts(str(tmp_path / "accounts.toml"))
    assert ClientCredentials("reporting", "another") == account.credentials


MISTAKES = {
    "no TOML": (MAIN.replace('"client"', "client"), 2, "Invalid value"),
    "an end in the midst": (MAIN + '[[accounts]]\nid = "2', 10, "nterminated string"),
    "no UTF-8": (MAIN.encode() + b"# \xe9", 9, "this is not UTF-8"),
    "nothing": ("", 1, "accounts is missing"),
    "no accounts": (MAIN.partition("[[")[0], 1, "accounts is missing"),
    "accounts that are none": ("\naccounts = 3\n", 2, "each headed [[accounts]]"),
    "an empty list of accounts": ("accounts = []\n", 1, "each headed [[accounts]]"),
    "credentials that are none": ("credentials = 1\n" + MAIN[MAIN.index("[[") :], 1, "are tables"),
    "an unknown table": (MAIN + "[other]\n", 9, "other is not known here"),
    "a kind that is none": (MAIN.replace('"client"', '"cilent"'), 2, "one of client, user, bearer"),
    "no kind": (MAIN.replace('kind = "client"\n', ""), 1, "credentials main: kind must be"),
    "half of a pair": (MAIN.replace('client_id = "reporting"\n', ""), 1, "client_id is missing"),
    "an empty half": (MAIN.replace('"reporting"', '""'), 3, "client_id must be a string"),
    "a number for a name": (MAIN.replace('"reporting"', "7"), 3, "client_id must be a string"),
    "a key of another kind": (
        MAIN.replace("client_id", "username"),
        3,
        "username is not known here; known are kind, client_id, client_secret_env",
    ),
    "a variable that is not set": (
        MAIN.replace('"SECRET"', '"MISSING"'),
        4,
        "the environment variable MISSING is not set, or empty",
    ),
    "a variable that is empty": (
        MAIN.replace('"SECRET"', '"EMPTY"'),
        4,
        "the environment variable EMPTY is not set, or empty",
    ),
    "an account without credentials": (
        MAIN.replace('credentials = "main"\n', ""),
        6,
        "credentials is missing",
    ),
    "credentials that are not there": (
        MAIN.replace('= "main"', '= "mian"'),
        8,
        "there is no [credentials.mian]",
    ),
    "an account id that is a number": (MAIN.replace('"1"', "1"), 7, "account id 1 is not one"),
    "an account id with a path": (MAIN.replace('"1"', '"1/2"'), 7, "account id '1/2' is not one"),
    "a host with a path": (MAIN + 'host = "a.example/b"\n', 9, "host 'a.example/b' is not a bare"),
    "an unknown key": (MAIN + 'hots = "a.example"\n', 9, "hots is not known here; known are id,"),
    "an account twice": (MAIN + MAIN[MAIN.index("[[") :], 10, "account 1 is given twice"),
    "accounts in one line": (
        'accounts = [{id = "1", credentials = "main"}, {id = "1", credentials = "main"}]\n'
        + MAIN.partition("[[")[0],
        1,
        "account 1 is given twice",
    ),
    "a mistake behind a value of many lines": (
        MAIN.replace('"reporting"', '"""\n[[accounts]]\\\nid = 7\\\n"""') + "oops = 1\n",
        12,
        "oops is not known here",
    ),
    "a list of many lines": (
        '\n\naccounts = [\n  {id = "1"},\n  3,\n]\n',
        4,  # where the table stands that lacks it, not where its array begins
        "credentials is missing",
    ),
    "a number of five thousand digits": (
        f"accounts = {'1' * 5000}\n",
        None,
        "too long, or nested too deeply",
    ),
    "a tower of arrays": (
        f"accounts = {'[' * 9999}{']' * 9999}\n",
        None,
        "too long, or nested too deeply",
    ),
    "a variable that ends in a line end": (
        MAIN.replace('"SECRET"', '"FROM_A_FILE"'),
        4,
        "the environment variable FROM_A_FILE ends in a line end",
    ),
}


@pytest.mark.parametrize(("text", "line", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence_with_its_line(
    tmp_path: Path, text: str | bytes, line: int | None, said: str
) -> None:
    """It names the file, and says what is wrong there."""
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text)

    message = str(caught.value)
    at = "" if line is None else f", line {line}"
    assert message.startswith(f"{tmp_path / 'accounts.toml'}{at}: ")
    assert "s3cret" not in message
    assert said in message
    assert "\n" not in message


def test_a_mistake_far_down_is_found(tmp_path: Path) -> None:
    """Among a thousand accounts, and quickly enough."""
    more = "".join(f'[[accounts]]\nid = "{n}"\ncredentials = "main"\n' for n in range(2, 1000))
    text = (MAIN + more).replace('"700"', '"70 0"')

    with pytest.raises(ConfigurationError, match=rf"line {8 + 698 * 3 + 2}: account id '70 0'"):
        read(tmp_path, text)


TWICE = {
    "tables": ("", '[[accounts]]\nid = "{}"\ncredentials = "main"\n', "", 3),
    "inline tables, each in a line": (
        "accounts = [\n",
        '  {{ credentials = "main", id = "{}" }}, # }} ] "\n',
        "]\n",
        1,
    ),
    "inline tables in one line": (
        "accounts = [",
        '{{ "id" = "{}", credentials = """main""" }},',
        "]\n",
        0,
    ),
    "elements over many lines": (
        "accounts = [\n",
        "  {{ 'id' = '{}', credentials = '''main''' }}\n  ,\n\n",
        "]\n",
        3,
    ),
}


@pytest.mark.parametrize(("before", "one", "after", "height"), TWICE.values(), ids=TWICE)
def test_an_account_given_twice_among_thousands_is_told_at_once_with_its_line(
    tmp_path: Path, before: str, one: str, after: str, height: int
) -> None:
    """However the file is written: in a small part of a second."""
    numbers = [*range(1, 2001)]
    numbers[1499] = 7
    entries = [one.format(number) for number in numbers]
    text = before + "".join(entries) + after + MAIN.partition("[[")[0]
    at = 1 + before.count("\n") + 1499 * height + one[: one.index("{}")].count("\n")

    began = time.process_time()
    with pytest.raises(ConfigurationError, match=f"line {at}: account 7 is given twice"):
        read(tmp_path, text)
    assert time.process_time() - began < 1


STRANGE = '"\\u0061\\"" = """\n[a]\nb = 1\\"""\n"""""\nb = 1\n'
NESTED = "b = [[1,\n2], # [\n[3, {c.d = 1979-05-27 07:32:00, e = ']'}\n]]\nc = 1\n"


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a.b.c = 1\na.d = 2\n", ("a", "b"), 1),
        ("a.b.c = 1\na.d = 2\n", ("a", "d"), 2),
        ("# a\n\n[a]\n[ a . 'b c' ]\nd = 1\n", ("a", "b c", "d"), 5),
        ("[[a]]\n[[a]]\n[a.b]\nc = 1\n", ("a", 1, "b", "c"), 4),
        ("[[a.b]]\n[[a.b.c]]\n[[a.b]]\n[[a.b.c]]\nd = 1\n", ("a", "b", 1, "c", 0, "d"), 5),
        (STRANGE, ('a"',), 1),
        (STRANGE, ("b",), 5),
        (f"a = '''\n''''\n{NESTED}", ("b", 0, 1), 4),
        (NESTED, ("b", 1, 1, "c", "d"), 3),
        (NESTED, ("c",), 5),
        ("a = ''\nb = ''\n'' = {}\n", ("",), 3),
    ],
)
def test_the_line_of_a_key_is_found_however_toml_is_written(
    text: str, path: tuple[str | int, ...], line: int
) -> None:
    """Dotted, quoted, nested, behind values that look like headers."""
    value: Any = tomllib.loads(text)
    for step in path:
        value = value[step]
    assert line == lines(text)[path]


@pytest.mark.parametrize(
    "text",
    [
        MAIN.replace("client_secret_env", "client_secret").replace("SECRET", "hunter2"),
        MAIN.replace("SECRET", "hunter2"),
        MAIN.replace('client_secret_env = "SECRET"', "client_secret_env = hunter2"),
    ],
)
def test_a_secret_in_the_file_is_not_shown(tmp_path: Path, text: str) -> None:
    """Where it belongs is said, and not what it is."""
    with pytest.raises(ConfigurationError, match="line 4: ") as caught:
        read(tmp_path, text)

    assert "hunter2" not in repr(caught.value)
    assert caught.value.__suppress_context__  # what was refused before it is not printed


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """It says why."""
    with pytest.raises(ConfigurationError, match=r"nope\.toml cannot be read: No such file"):
        read_accounts(tmp_path / "nope.toml")


@pytest.mark.parametrize("place", range(5))
def test_credentials_know_where_they_were_read(tmp_path: Path, place: int) -> None:
    """Without a secret, also as a copy; so another process can read them there once more."""
    path = tmp_path / "accounts.toml"
    path.write_text(EVERYTHING, encoding="utf-8")
    credentials = read_accounts(path, ENVIRONMENT)[place].credentials

    for again in (credentials, copy.deepcopy(credentials), pickle.loads(pickle.dumps(credentials))):
        reference = again.reference
        assert reference is not None
        assert not set(credentials.secrets()) & set(reference.values())
        assert credentials == credentials_of(reference, ENVIRONMENT)
        with pytest.raises(ConfigurationError, match=r"the environment variable \w+ is not set"):
            credentials_of(reference, {})
    assert BearerToken("t0ken").reference is None
