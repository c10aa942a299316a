"""Is this a good operator? Checks that every implementation of `sorep.method.Method` can be run through.

`check_method` runs them all; `parametrize_with_checks` makes a pytest test of each. They need no reference values: a
spectrum must not depend on how its crystal was written down, eigenvalues add up to a trace, A(-k) = A(k)*, a spectrum
changes smoothly when an atom moves, an identity changes with every setting.

>>> from sorep.testing import check_method
>>> check_method(my_method, structures)    # doctest: +SKIP

Structures are those given and random ones, which `strategies.structures` makes for users' own tests too.
"""

from __future__ import annotations

from sorep.errors import SET_UP, UsageError

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError:
    raise UsageError(
        "sorep.testing needs hypothesis, to make random structures",
        code="missing-package",
        stage=SET_UP,
        remedy="pip install hypothesis",
    ) from None

from sorep.testing.suite import (
    CHECKS,
    Check,
    check_method,
    checks,
    default_structures,
    parametrize_with_checks,
)

__all__ = ["CHECKS", "Check", "check_method", "checks", "default_structures", "parametrize_with_checks"]
