"""The simulator's own certificate authority, kept in the state folder so that a restart keeps clients working."""

from __future__ import annotations

from pathlib import Path

import certifi
import trustme

from local.processes import replace_file


def make_certificates(folder: Path) -> tuple[Path, Path]:
    """The CA bundle for clients, and the server's certificate with its key, which only the owner can read.

    The bundle holds the simulator's CA and the public roots, so that ``SSL_CERT_FILE`` can name it and the rest of the
    internet still works.
    """
    authority = _authority(folder)
    bundle = folder / "ca.pem"
    replace_file(bundle, authority.cert_pem.bytes() + b"\n" + Path(certifi.where()).read_bytes(), 0o644)
    leaf = authority.issue_cert("localhost", "127.0.0.1", "::1", common_name="localhost")
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    server = folder / "server.pem"
    replace_file(server, leaf.private_key_pem.bytes() + chain, 0o600)
    return bundle, server


def _authority(folder: Path) -> trustme.CA:
    certificate, key = folder / "ca-certificate.pem", folder / "ca-key.pem"
    if certificate.exists() and key.exists():
        return trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
    made = trustme.CA(organization_name="Patchwave simulator")
    replace_file(key, made.private_key_pem.bytes(), 0o600)
    replace_file(certificate, made.cert_pem.bytes(), 0o644)
    return made
