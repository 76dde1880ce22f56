"""Name a proxy of the environment that cannot be used."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

_VARIABLES = "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"


@contextmanager
def usable_proxies() -> Iterator[None]:
    """Raise ValueError, which does not quote the proxy, where httpx cannot use one while it makes a client inside."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"{_VARIABLES} names a SOCKS proxy, which needs a package: pip install 'httpx[socks]'"
        ) from error
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"{_VARIABLES} is not the address of a proxy: http://HOST:PORT") from error
