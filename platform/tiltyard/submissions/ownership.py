"""Whose the store of artefacts is: one site's, as what no row of that site names is removed there.

Another site with the same folder, or the same bucket and prefix, such as a restored spare or one for trials, would
remove the first one's files. So the first site writes a name of its own into the store, which its database keeps, and
every other site leaves the store's files alone until it is given a store of its own, or takes this one over.
"""

from tiltyard.submissions.models import StoreOwner
from tiltyard.submissions.stores import StoreError, store


def require_own_store() -> None:
    """Raise StoreError where the store is another site's; nobody's is none."""
    found = store().owner()
    if found is not None and found != _name():
        raise StoreError(
            f"The store of artefacts belongs to another site, {found[:40]!r}. Give this one a folder or a prefix of "
            "its own, or, when the other one is gone for good, take it over with manage.py take_artefact_store."
        )


def claim_store(*, takes_over: bool = False) -> None:
    """Make the store this site's, where it is nobody's or is taken over. Raises StoreError where it is another's."""
    if takes_over or store().owner() is None:
        store().set_owner(_name())
    require_own_store()  # of two that write at once, the last one has it


def _name() -> str:
    return str(StoreOwner.objects.get_or_create(pk=StoreOwner.ONLY)[0])
