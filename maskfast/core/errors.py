"""The errors maskfast raises on purpose; each message is one line: which file or option, what was seen, what to do.

MaskfastError
├── ConfigError          an option or a configuration file
├── DataError            a folder, table or row of the user's data
│   └── ArchiveError     a zip that is refused
├── ImageError           bytes that are no usable picture
├── BundleError          a bundle or an export.pkl that cannot be used
└── MissingExtraError    an optional package that is not installed
"""


class MaskfastError(Exception):
    """Anything a user can mend; the command line prints it as one line and exits with 2."""


class ConfigError(MaskfastError):
    """An option or configuration value that cannot be used."""


class DataError(MaskfastError):
    """A folder, table or row that cannot be used."""


class ArchiveError(DataError):
    """A zip archive that is unsafe to read or broken."""


class ImageError(MaskfastError):
    """Bytes that are no usable picture.

    `name` is the file (or another name of the source), `reason` says in a few words what is wrong with it.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (self.name, self.reason)


class BundleError(MaskfastError):
    """A bundle or an export.pkl that is damaged, foreign or unsafe."""


class MissingExtraError(MaskfastError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.command = f"pip install 'maskfast[{extra}]'"
        super().__init__(f"{package} is not installed; install it with: {self.command}")
