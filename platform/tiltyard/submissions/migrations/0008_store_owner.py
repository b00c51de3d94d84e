"""The name that this site writes into the store of its artefacts."""

import uuid

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("submissions", "0007_artefacts_needed"),
    ]

    operations = [
        migrations.CreateModel(
            name="StoreOwner",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("name", models.UUIDField(default=uuid.uuid4, editable=False)),
            ],
        ),
    ]
