"""Who this site is to the store of its artefacts."""

import uuid

from django.db import models


class StoreOwner(models.Model):
    """One row: the name that this site writes into its store. It is in no backup, as a restored site is another one."""

    ONLY = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY)
    name = models.UUIDField(default=uuid.uuid4, editable=False)

    def __str__(self) -> str:
        return str(self.name)
