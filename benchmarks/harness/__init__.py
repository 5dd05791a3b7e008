"""What takes and reports the measurements.

A package that is installed wins over the checkout this file lies in; the
checkout is only looked at last, so that a loop built in place is found.
"""

import ssl
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


CERTS = ROOT / "tests" / "certs"
CERTIFICATE, KEY = CERTS / "localhost.pem", CERTS / "localhost.key"


def tls_context() -> ssl.SSLContext:
    """Return the context of a server, with the tests' certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context
