"""Values that one reader alone can open: sealed to a public key it tells everybody.

X25519 with a key made for each box, HKDF-SHA256, ChaCha20-Poly1305. The library that does it is
loaded on first use: an agent meets few Secrets, and ten megabytes are many on every node.
"""

# ruff: noqa: PLC0415
import base64
import json
import secrets
from collections.abc import Mapping

KEY_BYTES = 32
_PURPOSE = b"squall sealed values 1"
_NONCE = bytes(12)
"""Every box has a key of its own, so that one nonce does."""


def new_key() -> bytes:
    """Make a key that opens boxes; it is the reader's alone."""
    return secrets.token_bytes(KEY_BYTES)  # RFC 7748 takes any


def public_of(key: bytes) -> str:
    """Give what boxes are sealed to, as base64."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    public = X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
    return base64.b64encode(public).decode()


def seal(recipient: str, values: Mapping[str, bytes], context: str) -> str:
    """Seal values, so that only the owner of a key can open them, and only in the same context.

    Args:
        recipient: as `public_of` gave it.
        values: by name.
        context: where they belong; a box that is taken elsewhere cannot be opened there.

    Returns:
        Base64; never the same twice.

    Raises:
        ValueError: `recipient` is none.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    public = X25519PublicKey.from_public_bytes(base64.b64decode(recipient, validate=True))
    once = X25519PrivateKey.generate()
    ours = once.public_key().public_bytes_raw()
    named = {name: base64.b64encode(value).decode() for name, value in values.items()}
    key = _derived(once.exchange(public), ours + public.public_bytes_raw())
    sealed = ChaCha20Poly1305(key).encrypt(_NONCE, json.dumps(named).encode(), context.encode())
    return base64.b64encode(ours + sealed).decode()


def unseal(key: bytes, box: str, context: str) -> Mapping[str, bytes]:
    """Open a box.

    Args:
        key: of the one it was sealed for.
        box: as `seal` gave it.
        context: as it was sealed with.

    Raises:
        ValueError: it was sealed for another key or context, or it is no box.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    mine = X25519PrivateKey.from_private_bytes(key)
    octets = base64.b64decode(box, validate=True)
    theirs, sealed = octets[:KEY_BYTES], octets[KEY_BYTES:]
    shared = mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    derived = _derived(shared, theirs + mine.public_key().public_bytes_raw())
    try:
        text = ChaCha20Poly1305(derived).decrypt(_NONCE, sealed, context.encode())
    except InvalidTag:
        raise ValueError("it was sealed for another key, or for another place") from None
    named: dict[str, str] = json.loads(text)
    return {name: base64.b64decode(value) for name, value in named.items()}


def _derived(shared: bytes, ends: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=_PURPOSE + ends).derive(shared)
