"""Every error a user can meet, in one tree. Each says what, which one, and what to do next.

    SemtelError                 exit 1
    ├── BadInput                exit 2   a file, row, name or option is wrong; nothing was written
    │   ├── BadData                      conversations that can't be read
    │   ├── BadConfig                    semtel.toml or the environment
    │   ├── BadPrompt                    a .prompty file
    │   └── BadStrategy                  a recipe
    ├── Incomplete              exit 3   work is still owed; run again
    │   └── Waiting                      nothing is amiss: a provider has not answered all yet
    ├── Infeasible              exit 4   no plan keeps the constraints
    ├── StoreError              exit 1   the store is newer, corrupt or can't be written
    ├── PriceUnknown            exit 2   nothing is planned at a guessed price
    └── EndpointError           exit 1   a provider refused something that asking again can't mend
        ├── KeyMissing          exit 2
        └── QuotaExhausted      exit 1

Whether to try again is decided where the answer arrives, by status and code (see transport), never by reading these
messages.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the command line ends with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INCOMPLETE = 3
    INFEASIBLE = 4


class SemtelError(Exception):
    """Something a user can act on; the message names what, which one, and what to do next."""

    exit_code: Exit = Exit.FAILED


class BadInput(SemtelError):
    """The user's input is wrong; nothing was written."""

    exit_code = Exit.USAGE


class BadData(BadInput):
    """Conversations can't be read; the message names file and row."""


class BadConfig(BadInput):
    """semtel.toml or the environment is wrong; the message names the key."""


class BadPrompt(BadInput):
    """A classifier's .prompty file is wrong; the message names the file and the field."""


class BadStrategy(BadInput):
    """A recipe is wrong; the message names the file and the field."""


class PriceUnknown(BadInput):
    """No price is known for a model and tier; nothing is planned at a guessed price."""


class Incomplete(SemtelError):
    """Work is still owed; the same command goes on where it stopped."""

    exit_code = Exit.INCOMPLETE


class Waiting(Incomplete):
    """All was done that can be done now; a provider has not answered everything yet."""


class Infeasible(SemtelError):
    """No plan keeps the constraints; the message names the binding one and the nearest feasible value."""

    exit_code = Exit.INFEASIBLE


class StoreError(SemtelError):
    """The store can't be used as it is; nothing in it was changed."""


class EndpointError(SemtelError):
    """A provider refused something that asking again can't mend."""


class KeyMissing(EndpointError):
    """The environment variable that should hold an endpoint's key is not set."""

    exit_code = Exit.USAGE


class QuotaExhausted(EndpointError):
    """The provider says that the account has no money or quota left."""
