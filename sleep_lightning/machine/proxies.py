"""Whether requests leave through a proxy."""

from urllib.parse import SplitResult
from urllib.request import getproxies, proxy_bypass


def through_proxy(url: SplitResult) -> bool:
    """Whether a proxy of the environment is asked for this address: it alone may know and reach the host."""
    if url.hostname is None or not {url.scheme, "all"} & getproxies().keys():
        return False
    return not proxy_bypass(url.hostname)
