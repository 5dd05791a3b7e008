"""How long a test waits for an event that must come.

The limits only end a test that hangs: none may depend on how busy the machine
is, so they are long.  All derive from the time limit of a test.
"""

import os

#: Seconds that a test may take; pyproject.toml has the same default.
TEST_LIMIT = float(os.environ.get("PYTEST_TIMEOUT") or "300")
#: Seconds that a test waits for one event.
PATIENCE = TEST_LIMIT / 3
