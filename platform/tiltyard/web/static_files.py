"""Addresses of the site's own style sheets, scripts and pictures in production."""

from whitenoise.storage import CompressedManifestStaticFilesStorage  # type: ignore[import-untyped]


class KnownStaticFiles(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # untyped
    """Keeps the addresses that it was asked for.

    A page has some fourteen of them, each of which Django would put together from the manifest with every page. The
    manifest is read when a process starts and does not change while it runs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._addresses: dict[str, str] = {}

    def url(self, name: str | None, force: bool = False) -> str:
        """The address under STATIC_URL; ValueError for a name that the manifest does not know."""
        if name is None or force:
            return str(super().url(name, force))
        found = self._addresses.get(name)
        if found is None:
            found = self._addresses[name] = str(super().url(name))
        return found
