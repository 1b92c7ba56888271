"""How much of what a client was sent it has yet to read."""

from __future__ import annotations

import asyncio
import struct
import sys

__all__ = ["unread_bytes"]


def unread_bytes(transport: asyncio.Transport) -> int:
    """Bytes that wait in this process, and on Linux those in the system that the other side did not take yet.

    Without these a slow reader would seem to read nothing for as long as the system's buffer lasts.

    Args:
        transport: of the connection.
    """
    return transport.get_write_buffer_size() + _in_the_system(transport)


def _in_the_system(transport: asyncio.Transport) -> int:
    socket = transport.get_extra_info("socket")
    if sys.platform != "linux" or socket is None or socket.fileno() < 0:
        return 0
    from fcntl import ioctl
    from termios import TIOCOUTQ

    return int(struct.unpack("i", ioctl(socket.fileno(), TIOCOUTQ, b"\0" * 4))[0])
