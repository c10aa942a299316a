"""Errors that name the structure, the stage and the remedy.

Every failure that a user can meet is a `SorepError`. It carries a stable ``code`` (a short hyphenated
word that scripts can match), the ``stage`` in which it arose, and a ``remedy`` in words. One error costs
one structure: `Failure` is the same information as a plain record, which is what a run stores and lists.
"""

from __future__ import annotations

from dataclasses import dataclass

SET_UP = "set-up"
"""Stage of errors that lie in the machine. They are not held against a structure: the next run tries it again."""


class SorepError(Exception):
    """Base of all errors raised on purpose by this package.

    Parameters
    ----------
    message : str
        What was found, with the numbers that show it.
    code : str
        Stable identifier, e.g. ``"partial-occupancy"``.
    stage : str
        Where it arose, e.g. ``"read"``, ``"validate"``, ``"basis"``, ``"spectrum"``.
    remedy : str
        What the user can do about it.
    """

    default_stage = "sorep"
    default_code = "error"

    def __init__(self, message: str, *, code: str = "", stage: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.stage = stage or self.default_stage
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.stage}: {self.message} [{self.code}]"
        return f"{text}. Remedy: {self.remedy}" if self.remedy else text

    def __reduce__(self):
        # Exceptions travel between processes by pickle, which by default forgets keyword arguments.
        return _rebuild, (type(self), self.message, self.code, self.stage, self.remedy)


def _rebuild(kind: type[SorepError], message: str, code: str, stage: str, remedy: str) -> SorepError:
    return kind(message, code=code, stage=stage, remedy=remedy)


class StructureError(SorepError):
    """A structure that cannot be used: unreadable, disordered, not periodic, degenerate."""

    default_stage = "validate"
    default_code = "invalid-structure"


class BasisError(SorepError):
    """A basis set that is unknown, malformed, or lacks an element of the structure."""

    default_stage = "basis"
    default_code = "basis"


class PseudoError(SorepError):
    """A pseudopotential family that is unknown, incomplete or damaged, or lacks an element or its orbitals."""

    default_stage = "pseudopotentials"
    default_code = "pseudopotentials"


class PwError(SorepError):
    """A pw.x that cannot be built or run, or a calculation that it did not finish.

    The stage `SET_UP` marks what is wrong with the machine and not with the structure.
    """

    default_stage = "pw.x"
    default_code = "pw-x"


class OutputError(SorepError):
    """The output of another program that is incomplete, inconsistent or of an unknown kind."""

    default_stage = "output"
    default_code = "output"


class SpectrumError(SorepError):
    """Eigenvalues that cannot be computed or are not finite."""

    default_stage = "spectrum"
    default_code = "spectrum"


class LevelsError(SorepError):
    """Fermi energy or band edges that the spectrum does not determine."""

    default_stage = "levels"
    default_code = "levels"


class FeatureError(SorepError):
    """A feature that cannot be formed from the spectrum, or a malformed feature specification."""

    default_stage = "features"
    default_code = "features"


class DescriptorError(SorepError):
    """A descriptor that cannot be computed: an unknown element, a missing package."""

    default_stage = "descriptor"
    default_code = "descriptor"


class IdentityError(SorepError):
    """Features of different identity were about to be mixed."""

    default_stage = "features"
    default_code = "mixed-identity"


class SimilarityError(SorepError):
    """Features that cannot be compared: not finite, empty, or of different length."""

    default_stage = "similarity"
    default_code = "similarity"


class TableError(SorepError):
    """A table that cannot be read or written, or that lacks a column, an id or a value."""

    default_stage = "table"
    default_code = "table"


class ScreeningError(SorepError):
    """Bands without the property asked for, or data that a model for screening cannot use."""

    default_stage = "screening"
    default_code = "screening"


class Mat2SpecError(SorepError):
    """Spectra, structures or checkpoints that a spectrum model cannot use, or a package that it lacks."""

    default_stage = "mat2spec"
    default_code = "mat2spec"


class StoreError(SorepError):
    """A store that is missing, unreadable, or does not hold what was asked for."""

    default_stage = "store"
    default_code = "store"


class UsageError(SorepError):
    """An option or argument that makes no sense; the command line exits with status 2."""

    default_stage = "usage"
    default_code = "usage"


@dataclass(frozen=True)
class Failure:
    """Why one structure has no result.

    ``id`` names the structure, ``source`` the file, frame or row it came from. ``content_key`` is empty
    where the structure could not be read far enough to have one.
    """

    id: str
    source: str
    stage: str
    code: str
    message: str
    remedy: str
    content_key: str = ""

    @classmethod
    def from_error(cls, error: BaseException, *, id: str, source: str, content_key: str = "") -> Failure:
        """Describe ``error``; anything that is not a `SorepError` becomes code ``unexpected-error``."""
        if isinstance(error, SorepError):
            return cls(id, source, error.stage, error.code, error.message, error.remedy, content_key)
        return cls(
            id,
            source,
            "sorep",
            "unexpected-error",
            f"{type(error).__name__}: {error}",
            "report this with the structure file: it is a defect of sorep, not of the structure",
            content_key,
        )
