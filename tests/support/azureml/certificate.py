"""Certificates files at start: a private authority, the servers' one, and a client's own.

Clients trust the authority through REQUESTS_CA_BUNDLE and SSL_CERT_FILE, so the unmodified ones can
use Azure's real host names.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """The certificate files of a stand-in.

    Args:
        authority: Certificate that clients have to trust.
        server: Certificate and key for every host.
        client: Certificate and key of the service principal.
    """

    authority: Path
    server: Path
    client: Path


def make_certificates(folder: Path, hosts: tuple[str, ...]) -> Certificates:
    """Write fresh certificates, good for two days, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = Certificates(
        authority=folder / "authority.pem",
        server=folder / "server.pem",
        client=folder / "client.pem",
    )
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("Azure ML stand-in, not a real authority")
    ca = (
        _builder(ca_name, ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # OpenSSL's strict mode, the default since Python 3.13, asks for the next two.
        .add_extension(x509.KeyUsage(*_usage(sign_certificates=True)), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)
        .sign(ca_key, hashes.SHA256())
    )
    files.authority.write_bytes(ca.public_bytes(serialization.Encoding.PEM))

    key = ec.generate_private_key(ec.SECP256R1())
    server = (
        _builder(_name(hosts[0]), ca_name, key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False
        )
        .sign(ca_key, hashes.SHA256())
    )
    _write(files.server, server, key)

    # Entra takes RSA for a service principal's certificate.
    client_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    client_name = _name("service principal of the stand-in")
    client = _builder(client_name, client_name, client_key).sign(client_key, hashes.SHA256())
    _write(files.client, client, client_key)
    return files


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: _PrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
    )


def _usage(*, sign_certificates: bool) -> tuple[bool, ...]:
    """The nine flags of a key's usage, in the order of their standard."""
    return (True, False, False, False, False, sign_certificates, sign_certificates, False, False)


def _write(file: Path, certificate: x509.Certificate, key: _PrivateKey) -> None:
    file.touch(mode=0o600)
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
