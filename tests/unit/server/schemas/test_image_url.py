"""Which URLs may be fetched."""

import pytest

from medmoe.server.errors import ImageURLNotAllowed
from medmoe.server.schemas.image_url import allowed_url, host_name, is_url

HOSTS = frozenset({"images.example.org", "xn--bcher-kva.example"})
ALLOWED = {
    "https://images.example.org/a.png": "/a.png",
    "HTTPS://Images.Example.ORG/A.png": "/A.png",
    "https://images.example.org./a.png": "/a.png",
    "https://images.example.org:443/a.png": "/a.png",
    "https://images.example.org": "/",
    "https://images.example.org/a/../b?x=1&y=%2F@:8": "/a/../b?x=1&y=%2F@:8",
    "https://b\u00fccher.example/a.png": "/a.png",
    "https://B\u00dcCHER.example/a.png": "/a.png",
    "https://xn--bcher-kva.example/a.png": "/a.png",
    "https://images\u3002example\uff0eorg/a.png": "/a.png",
    "https://\uff49mages.example.org/a.png": "/a.png",
}
REFUSED = (
    "http://images.example.org/a.png",
    "ftp://images.example.org/a.png",
    "file:///etc/passwd",
    "file://images.example.org/etc/passwd",
    "gopher://images.example.org/",
    "javascript:1",
    "jar:https://images.example.org/a.png",
    "https:images.example.org/a.png",
    "https:/images.example.org/a.png",
    "https:///images.example.org/a.png",
    "https:\\\\images.example.org/a.png",
    "http\u017f://images.example.org/a.png",
    " https://images.example.org/a.png",
    "https://images.example.org/a.png\n",
    "https://images.example.org/a b.png",
    "https://images.example.org/a\r\nHost: other.example.org",
    "https://images.example.org/a\x00.png",
    "https://images.example.org/\u00e9.png",
    "https://images.example.org/%zz",
    "https://images.example.org/%0",
    "https://images.example.org/a.png#",
    "https://images.example.org#@other.example.org/",
    "https://images.example.org?a.png",
    "https://user@images.example.org/a.png",
    "https://user:password@images.example.org/a.png",
    "https://@images.example.org/a.png",
    "https://images.example.org@127.0.0.1/a.png",
    "https://other.example.org\\@images.example.org/a.png",
    "https://images.example.org\\@127.0.0.1/a.png",
    "https://images.example.org:80/a.png",
    "https://images.example.org:0443/a.png",
    "https://images.example.org:443:443/a.png",
    "https://images.example.org:/a.png",
    "https://images.example.org:\u0664\u0664\u0663/a.png",
    "https://images.example.org../a.png",
    "https://.images.example.org/a.png",
    "https://other.example.org/a.png",
    "https://a.images.example.org/a.png",
    "https://images.example.org.other.example/a.png",
    "https://example.org/a.png",
    "https://images%2eexample%2eorg/a.png",
    "https://images.example.org%2f@other.example.org/a.png",
    "https://images.example.org%00.other.example/a.png",
    "https://images_example.org/a.png",
    "https://images\u2024example.org/a.png",
    "https://127.0.0.1/a.png",
    "https://127.1/a.png",
    "https://2130706433/a.png",
    "https://0x7f000001/a.png",
    "https://0177.0.0.1/a.png",
    "https://\uff11\uff12\uff17.0.0.1/a.png",
    "https://[::1]/a.png",
    "https://[::ffff:127.0.0.1]/a.png",
    "https://localhost/a.png",
    "https:///a.png",
    "https://",
    "https:",
    "https://images.example.org/" + "a" * 5000,
    "https://" + "a" * 300 + "/",
    "https://" + "\u00fc" * 250 + "/",
)  # fmt: skip


@pytest.mark.parametrize("text", ALLOWED)
def test_an_https_url_of_a_named_host_is_allowed(text: str) -> None:
    found = allowed_url(text, hosts=HOSTS)
    assert found.host in HOSTS
    assert found.target == ALLOWED[text]


@pytest.mark.parametrize("text", REFUSED)
def test_every_other_url_is_refused_without_a_word_of_it(text: str) -> None:
    with pytest.raises(ImageURLNotAllowed) as raised:
        allowed_url(text, hosts=HOSTS)
    assert "example" not in str(raised.value)
    assert "127" not in str(raised.value)


@pytest.mark.parametrize("text", ["https://a/", "HTTP:", "file:///a", "a+b.c-9:x", "javascript:1"])
def test_what_begins_with_a_scheme_is_a_url(text: str) -> None:
    assert is_url(text)


@pytest.mark.parametrize(
    "text", ["", "AAAA", "//127.0.0.1/a", "data:image/png;base64,AAAA", "9a:", " https://a/", ":", "a" * 100 + ":"]
)
def test_base64_and_data_urls_are_none(text: str) -> None:
    assert not is_url(text)


@pytest.mark.parametrize(
    "text",
    ["", ".", "a b", "*.example.org", "a..b", "-a.org", "a-.org", "a" * 64, "10.0.0.1", "1", "0x", "::1", "xn--\u00fc"],
)
def test_what_is_no_name_of_a_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        host_name(text)
