"""What a host's name alone tells."""

from __future__ import annotations

import ipaddress


def is_address(host: str) -> bool:
    """Tell whether a host is an IP address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Tell whether what is sent to a host stays on this machine."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
