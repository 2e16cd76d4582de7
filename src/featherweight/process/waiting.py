"""How OpenMP's threads wait for each other between two products: settled before torch is imported, in the command line.

By default GNU's library spins some milliseconds. On a processor that another process wants, too, a thread that spins
keeps the very thread waiting that it waits for, which halves the speed. ``benchmarks/busy.py`` measures the policies;
change :data:`POLICY` for another.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# Iterations of libgomp's loop: 300,000 are its default, 0 sleeps at once.
POLICIES = {
    "spin": {"GOMP_SPINCOUNT": "300000"},
    "short": {"GOMP_SPINCOUNT": "10000"},
    "shorter": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}
POLICY = "shorter"
_USERS_OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def settle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the policy where the user has set none; without effect where OpenMP is loaded already."""
    if not any(name in environment for name in _USERS_OWN):
        environment.update(POLICIES[POLICY])
