"""Faults of storage: what an error of a library means, by its class and the code of the answer."""

import os
import sys
from collections.abc import Iterator
from enum import Enum

_LIBRARY_ERRORS = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "azure.core.exceptions": ("AzureError",),
}
"""What may come of storage beside errors of the system, if its library is loaded."""
_REFUSING = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidToken"),
    *("TokenRefreshRequired", "RequestTimeTooSkewed", "InvalidSecurity", "AuthorizationHeaderMalformed", "AuthFailure"),
    *("AuthenticationFailed", "InvalidAuthenticationInfo", "AccountProblem", "NotSignedUp", "401"),
}
"""Codes that every request with these credentials gets."""
_REFUSING_ERRORS = (
    *(
        "CredentialError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "GoogleAuthError",
    ),
    *("DefaultCredentialsError", "RefreshError", "SSOError", "TokenRetrievalError", "ClientAuthenticationError"),
)
"""Names of classes of such errors."""
_PASSING = {
    *("408", "425", "429", "500", "502", "503", "504", "SlowDown", "InternalError", "ServiceUnavailable"),
    *("RequestTimeout", "ServerBusy", "OperationTimedOut", "Throttling", "ThrottlingException", "OperationAborted"),
}
NO_RANGE = {"InvalidRange", "416"}


class Fault(Enum):
    """What is wrong with a request."""

    MISSING = "nothing is there"
    BUCKET_MISSING = "there is no such bucket"
    FORBIDDEN = "access is denied"
    REFUSED = "the credentials are refused"
    PASSING = "it can't be reached now"
    OTHER = "it can't be read"


class StorageError(Exception):
    """Storage gave no answer; `because` says why in a few words."""

    def __init__(self, fault: Fault, because: str) -> None:
        """Say what is wrong."""
        super().__init__(because)
        self.fault = fault
        self.because = because


def library_errors() -> tuple[type[Exception], ...]:
    """Classes of errors that a request may end with, for `except`: those of the libraries that are loaded."""
    loaded = (
        getattr(sys.modules[module], name)
        for module, names in _LIBRARY_ERRORS.items()
        if module in sys.modules
        for name in names
    )
    return (OSError, *loaded)


def problem_of(error: Exception) -> StorageError:
    """Say what a fault is, from the class and code of the error and of those that led to it."""
    codes, classes = codes_of(error), {one.__name__ for cause in _causes(error) for one in type(cause).__mro__}
    because = _because(error, codes)
    if codes & _REFUSING or classes & set(_REFUSING_ERRORS):
        return StorageError(Fault.REFUSED, because)
    if codes & {"NoSuchBucket", "ContainerNotFound"} or "bucket does not exist" in str(error):
        return StorageError(Fault.BUCKET_MISSING, because)
    if isinstance(error, FileNotFoundError) or codes & {"404", "410", "NoSuchKey"}:
        return StorageError(Fault.MISSING, because)
    if isinstance(error, PermissionError) or codes & {"403", "AccessDenied"}:
        return StorageError(Fault.FORBIDDEN, because)
    is_lasting = codes - _PASSING or classes & {
        "InvalidURL",
        "ClientSSLError",
        "ParamValidationError",
        "IsADirectoryError",
    }
    return StorageError(Fault.OTHER if is_lasting else Fault.PASSING, because)


def codes_of(error: Exception) -> set[str]:
    """Codes of an answer, as the libraries keep them: boto's response, Azure's and aiohttp's status, Google's code."""
    codes = set()
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):
            codes.add(str(response.get("Error", {}).get("Code")))
        # aiohttp warns of its second name for the status.
        names = ("status",) if hasattr(cause, "status") else ("status_code", "code", "error_code")
        for name in names:
            value = getattr(cause, name, None)
            if isinstance(value, int | str) and not isinstance(value, bool):
                codes.add(str(getattr(value, "value", value)))
    return codes - {"None", "0"}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(5):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _because(error: Exception, codes: set[str]) -> str:
    """Few words, without addresses, which may be signed."""
    if codes:
        return ", ".join(f"HTTP {code}" if code.isdecimal() else code for code in sorted(codes))
    number: int | None = getattr(error, "errno", None)
    system = getattr(error, "strerror", None) or (os.strerror(number) if number else None)
    text = (system or str(error).strip() or type(error).__name__).splitlines()[0]
    return type(error).__name__ if "://" in text else text
