import copy
import copyreg
import inspect
import pickle

import pytest

from msgconv_async import errors
from msgconv_async.errors import (
    ApiError,
    BadRequest,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidQuery,
    MsgConvError,
    RateLimited,
    ServerError,
    SessionUnusable,
    Unauthorized,
    UnexpectedResponse,
)

EXAMPLES = [
    MsgConvError("anything"),
    InvalidQuery("interval", 61, "it must divide the timeframe of 60 minutes"),
    ConfigurationError("no host is known"),
    SessionUnusable("the session is closed"),
    ApiError("not found", status=404, account_id="12345678"),
    BadRequest("bad request", status=400, account_id="12345678", excerpt='{"error":"interval"}'),
    Unauthorized("unauthorized", status=401, account_id="12345678"),
    RateLimited("too many requests", status=429, account_id="12345678", retry_after=1.5),
    ApiError("gone", status=410, account_id="1", request_id="a1", headers={"x-request-id": "a1"}),
    ServerError("service unavailable", status=503, account_id="12345678", excerpt="busy"),
    UnexpectedResponse("not JSON", where="byte 17", account_id="12345678"),
    ConnectionFailed("connection refused", account_id="12345678"),
    DeadlineExceeded("no answer", account_id="12345678", timeout=2.5),
]

every_error = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)


def assert_same(expected: MsgConvError, actual: MsgConvError) -> None:
    assert type(expected) is type(actual)
    assert str(expected) == str(actual)
    assert expected.args == actual.args
    assert vars(expected) == vars(actual)


def test_every_error_has_an_example_here() -> None:
    """No class of the tree escapes the tests below."""
    public = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, MsgConvError)
    }

    assert public == {type(error) for error in EXAMPLES}


@every_error
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles(error: MsgConvError, protocol: int) -> None:
    """An error that crossed a process pool says and carries what it did before."""
    assert_same(error, pickle.loads(pickle.dumps(error, protocol)))


@every_error
def test_copies(error: MsgConvError) -> None:
    """A copy, shallow or deep, says and carries what the original does."""
    assert_same(error, copy.copy(error))
    assert_same(error, copy.deepcopy(error))


@every_error
def test_a_copy_has_no_traceback_whatever_copyreg_says(
    error: MsgConvError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where tblib is in use, as with Dask, `copyreg` would keep the frames of a request."""

    def keeping(raised: MsgConvError) -> tuple[object, ...]:
        return raised.with_traceback, (raised.__traceback__,)

    monkeypatch.setitem(copyreg.dispatch_table, type(error), keeping)
    with pytest.raises(MsgConvError) as caught:
        raise error from ValueError("hush")
    copied = copy.copy(caught.value)

    assert (None, None, None) == (copied.__traceback__, copied.__cause__, copied.__context__)
    assert_same(error, copied)
    error.__cause__ = error.__traceback__ = None


@every_error
def test_notes_travel(error: MsgConvError) -> None:
    """A note that somebody added survives pickling."""
    noted = copy.copy(error)
    noted.add_note("while watching account 12345678")

    assert ["while watching account 12345678"] == pickle.loads(pickle.dumps(noted)).__notes__


@every_error
def test_repr_names_the_error_and_what_happened(error: MsgConvError) -> None:
    """A log line that holds only the repr is enough to understand."""
    assert repr(error).startswith(f"{type(error).__name__}(")
    assert str(error)
    assert str(error) in repr(error).replace("\\'", "'")


@every_error
def test_one_except_holds_them_all(error: MsgConvError) -> None:
    """Whoever catches MsgConvError catches everything raised on purpose."""
    with pytest.raises(MsgConvError):
        raise error


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (InvalidQuery, ValueError),
        (ConfigurationError, ValueError),
        (SessionUnusable, RuntimeError),
        (DeadlineExceeded, TimeoutError),
        (BadRequest, ApiError),
        (Unauthorized, ApiError),
        (RateLimited, ApiError),
        (ServerError, ApiError),
    ],
)
def test_is_also(kind: type[MsgConvError], also: type[Exception]) -> None:
    """Code that knows only the built-in exceptions, or only ApiError, catches what it should."""
    assert issubclass(kind, also)


@pytest.mark.parametrize("kind", [UnexpectedResponse, ConnectionFailed, DeadlineExceeded])
def test_a_broken_exchange_is_not_an_answer(kind: type[MsgConvError]) -> None:
    """ApiError means that the service answered with a status; these have none to tell."""
    assert not issubclass(kind, ApiError)


def test_invalid_query_tells_what_to_change() -> None:
    """The parameter, the value and the rule stand in the message and, but the rule, beside it."""
    error = InvalidQuery("interval", 61, "it must divide the timeframe of 60 minutes")

    assert "interval=61: it must divide the timeframe of 60 minutes" == str(error)
    assert "interval" == error.parameter
    assert 61 == error.value


def test_invalid_query_shortens_a_long_value() -> None:
    """Fifty thousand ids given in the wrong way do not fill the log."""
    error = InvalidQuery("agentIds", "7," * 50_000, "ids must be 64-bit integers")

    assert len(str(error)) < 150
    assert 100_000 == len(str(error.value))


def test_invalid_query_shows_a_number_too_long_to_print() -> None:
    """A number that Python refuses to print does not hide the error behind another."""
    error = InvalidQuery("timeframe", 10**5000, "it must be 1 to 1440 minutes")

    assert str(error).startswith("timeframe=")
    assert 10**5000 == error.value


def test_invalid_query_pickles_whatever_it_was_given() -> None:
    """A value that does not pickle travels as the text that shows it."""
    error = InvalidQuery("timeframe", (str(each) for each in range(3)), "it must be a whole number")

    arrived = pickle.loads(pickle.dumps(error))

    assert str(error) == str(arrived)
    assert "timeframe" == arrived.parameter
    assert "generator" in arrived.value


def test_api_error_tells_who_what_and_why() -> None:
    """Account, status and the service's own words stand in the message and beside it."""
    error = BadRequest("bad request", status=400, account_id="12345678", excerpt="interval")

    assert "account 12345678: bad request (HTTP 400): interval" == str(error)
    assert ("12345678", 400, "interval") == (error.account_id, error.status, error.excerpt)


def test_api_error_tells_the_name_of_the_request() -> None:
    """Support asks for it; without one nothing is said of it."""
    error = BadRequest("bad", status=400, account_id="1", request_id="7f3c", headers={"via": "a"})

    assert "account 1: bad (HTTP 400, request 7f3c)" == str(error)
    assert ("7f3c", {"via": "a"}) == (error.request_id, error.headers)
    assert ("", {}) == (EXAMPLES[4].request_id, EXAMPLES[4].headers)  # type: ignore[attr-defined]


def test_rate_limited_tells_how_long_the_service_asked_to_wait() -> None:
    """The seconds of the last Retry-After are there, and None where there was none."""
    asked = RateLimited("slow down", status=429, account_id="12345678", retry_after=1.5)
    silent = RateLimited("slow down", status=429, account_id="12345678")

    assert 1.5 == asked.retry_after
    assert silent.retry_after is None


def test_deadline_exceeded_tells_the_timeout() -> None:
    """The message says which timeout ran out, in seconds."""
    error = DeadlineExceeded("no answer", account_id="12345678", timeout=2.5)

    assert "account 12345678: no answer (timeout 2.5 s)" == str(error)
    assert 2.5 == error.timeout


def test_unexpected_response_tells_where() -> None:
    """The place in the document stands in the message and beside it, the account if known."""
    error = UnexpectedResponse("not JSON", where="byte 17", account_id="12345678")

    assert "account 12345678: not JSON (at byte 17)" == str(error)
    assert ("byte 17", "12345678") == (error.where, error.account_id)
    assert "too large" == str(UnexpectedResponse("too large"))
