"""What the page would like to have from outside, and does without."""

import socket


def advertisement() -> str:
    """Find who serves advertisements; here nobody does, and a name server says so at once."""
    try:
        return str(socket.getaddrinfo("advertisements.example", 80)[0][4][0])
    except OSError:
        return "nobody"
