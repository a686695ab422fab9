"""The simulator's own certificate authority, kept in the state folder so that a restart keeps clients working."""

from __future__ import annotations

import os
from pathlib import Path

import certifi
import trustme


def make_certificates(folder: Path) -> tuple[Path, Path]:
    """Write the CA bundle and the server's certificate with its key.

    The bundle holds the simulator's CA and the public roots, so that ``SSL_CERT_FILE`` can name it and the rest of the
    internet still works.

    Returns:
        The bundle for clients, and the file for the server (readable by the owner only).
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority = _authority(folder)
    bundle = folder / "ca.pem"
    _write(bundle, authority.cert_pem.bytes() + b"\n" + Path(certifi.where()).read_bytes(), 0o644)
    leaf = authority.issue_cert("localhost", "127.0.0.1", "::1", common_name="localhost")
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    server = folder / "server.pem"
    _write(server, leaf.private_key_pem.bytes() + chain, 0o600)
    return bundle, server


def _authority(folder: Path) -> trustme.CA:
    certificate, key = folder / "ca-certificate.pem", folder / "ca-key.pem"
    if certificate.exists() and key.exists():
        return trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
    made = trustme.CA(organization_name="Patchwave simulator")
    _write(key, made.private_key_pem.bytes(), 0o600)
    _write(certificate, made.cert_pem.bytes(), 0o644)
    return made


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file in one step; it never exists with other rights than these."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    draft.replace(path)
