"""When a request is sent again, on a clock that only the test moves."""

import math
import ssl
import time
from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import pytest

from medmoe.client import Client, errors
from medmoe.client.errors import (
    BadRequest,
    ClientError,
    ConnectionFailed,
    Overloaded,
    ServiceError,
    ServiceUnavailable,
    Timeout,
    UnexpectedAnswer,
)
from medmoe.client.transport.error_body import BY_TYPE, check, retry_after, service_error
from medmoe.client.transport.retry import Attempts, Retry
from medmoe.client.transport.transport_errors import TABLE, translated
from medmoe.server.http.error_table import HTTP_MEANING


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def attempts(seconds: float = 1e6, **retry: float) -> tuple[Attempts, Clock]:
    clock = Clock()
    return Attempts(Retry(**retry), seconds=seconds, clock=clock), clock  # type: ignore[arg-type]


def full(seconds: float | None) -> Overloaded:
    return Overloaded("No.", status=429, type_="overloaded_error", code="overloaded", retry_after=seconds)


def test_pauses_double_up_to_the_longest_and_are_not_all_alike() -> None:
    seen = []
    for _ in range(50):
        trying, _ = attempts(attempts=8, first_pause=1, longest_pause=10)
        seen.append([trying.pause(ConnectionFailed("gone")) for _ in range(7)])
    for number, longest in enumerate((1, 2, 4, 8, 10, 10, 10)):
        pauses = [pauses[number] for pauses in seen]
        assert all(longest / 2 <= pause <= longest for pause in pauses)
        assert len(set(pauses)) > 1


def test_a_time_that_the_service_names_is_waited_for_even_beyond_the_longest_pause() -> None:
    for _ in range(50):
        trying, _ = attempts(first_pause=1, longest_pause=10)
        assert 60 <= trying.pause(full(60.0)) <= 61
        assert 60 <= trying.pause(full(60.0)) <= 62


def test_the_last_attempts_error_is_the_one_that_is_raised() -> None:
    trying, _ = attempts(attempts=3)
    trying.pause(full(None))
    trying.pause(full(None))
    last = ConnectionFailed("gone")
    with pytest.raises(ConnectionFailed) as raised:
        trying.pause(last)
    assert raised.value is last


def test_no_pause_goes_beyond_the_time_for_all_of_it() -> None:
    trying, clock = attempts(seconds=100)
    clock.now += 60
    assert trying.seconds() == 40
    assert trying.pause(full(30.0)) < 40
    with pytest.raises(Overloaded):
        trying.pause(full(41.0))
    clock.now += 40
    with pytest.raises(Timeout):
        trying.seconds()


def test_only_what_may_pass_is_tried_again() -> None:
    retryable = {kind for kind in vars(errors).values() if isinstance(kind, type) and getattr(kind, "retryable", False)}
    assert retryable == {ConnectionFailed, Overloaded, ServiceUnavailable}
    for kind in (UnexpectedAnswer, Timeout):
        with pytest.raises(kind):
            attempts()[0].pause(kind("no"))


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_time_limit_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Client(timeout=seconds)


def test_retries_that_make_no_sense_are_refused() -> None:
    for wrong in ({"attempts": 0}, {"first_pause": -1.0}, {"longest_pause": -1.0}):
        with pytest.raises(ValueError):
            Retry(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 0 "}, 0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:27:30 GMT"}, 30),
        # Its clock is hours ahead of ours; only the difference counts.
        ({"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT", "Date": "Wed, 21 Oct 2099 07:27:00 GMT"}, 60),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "Date": "Wed, 21 Oct 2026 07:29:00 GMT"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 -0000", "Date": "Wed, 21 Oct 2026 07:27:00 GMT"}, 60),
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "²"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert retry_after(httpx.Headers(encoded)) == seconds


def test_a_date_without_the_services_own_is_compared_with_our_clock() -> None:
    date = format_datetime(datetime.fromtimestamp(time.time() + 3600, UTC), usegmt=True)
    found = retry_after(httpx.Headers({"Retry-After": date}))
    assert found is not None
    assert 3500 < found <= 3600


def response(status: int, **options: object) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "http://service/"), **options)  # type: ignore[arg-type]


def test_every_error_that_the_service_can_name_has_a_class_which_its_status_alone_names_too() -> None:
    for meaning in HTTP_MEANING.values():
        error = {"type": meaning.type, "code": meaning.code, "message": "m", "param": "p", "request_id": "r"}
        with pytest.raises(BY_TYPE[meaning.type]) as raised:
            check(response(meaning.status, json={"error": error}, headers={"Retry-After": "3"}))
        found = raised.value
        assert (found.status, found.type, found.code) == (meaning.status, meaning.type, meaning.code)
        assert (found.message, found.param, found.request_id, found.retry_after) == ("m", "p", "r", 3.0)
        # The service's own 502 is about a source, one without its body about the service.
        expected = ServiceUnavailable if meaning.status == 502 else type(found)
        assert type(service_error(None, response=response(meaning.status))) is expected
        assert all(part in str(found) for part in (meaning.code, "m", "(p)", "r"))


@pytest.mark.parametrize("body", [b"<html>502</html>", b'{"error": "no"}', b"[]", b"\xff", b""])
def test_a_strangers_error_page_is_told_by_its_status(body: bytes) -> None:
    with pytest.raises(ServiceError) as raised:
        check(response(502, content=body, headers={"X-Request-Id": "r7"}))
    assert (raised.value.code, raised.value.status, raised.value.request_id) == ("http_502", 502, "r7")
    with pytest.raises(BadRequest):
        check(response(418, content=body))


def test_a_success_is_no_error() -> None:
    check(response(204))


def subclasses(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(subclasses(below) for below in kind.__subclasses__()))


def test_whatever_the_http_library_raises_becomes_ours() -> None:
    for kind in subclasses(httpx.RequestError) - {httpx.RequestError}:
        with pytest.raises(ClientError) as raised, translated("http://service"):
            raise kind("secret-free", request=None)  # type: ignore[call-arg]
        assert raised.value.__cause__ is not None
        assert any(known in TABLE for known in kind.__mro__)
    with pytest.raises(Timeout), translated("http://service"):
        raise TimeoutError
    with pytest.raises(ZeroDivisionError), translated("http://service"):
        _ = 1 / 0


def test_a_certificate_that_is_not_trusted_is_not_asked_for_again() -> None:
    with pytest.raises(UnexpectedAnswer, match="certificate"), translated("https://service"):
        raise httpx.ConnectError("x") from ssl.SSLCertVerificationError("y")


@pytest.mark.parametrize(
    "page",
    [
        "<center>The plain HTTP request was sent to HTTPS port</center>",
        "Client sent an HTTP request to an HTTPS server.\n",
        "You're speaking plain HTTP to an SSL-enabled server port.",
    ],
)
def test_a_proxy_that_speaks_tls_is_said_to(page: str) -> None:
    with pytest.raises(BadRequest, match="begin its address with https://") as raised:
        check(httpx.Response(400, text=page))
    assert "\n" not in str(raised.value)
    with pytest.raises(BadRequest) as plain:
        check(httpx.Response(400, text="no"))
    assert "TLS" not in str(plain.value)
