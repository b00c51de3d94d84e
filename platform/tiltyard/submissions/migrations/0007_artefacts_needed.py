"""Artefacts that nothing refers to are collected some time after they were last handed in; images may be named."""

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("submissions", "0006_runs_of_a_board")]

    operations = [
        migrations.AddField(
            model_name="artefact",
            name="needed_at",
            field=models.DateTimeField(default=django.utils.timezone.now, editable=False),
        ),
        migrations.AlterField(
            model_name="artefact",
            name="kind",
            field=models.CharField(
                choices=[
                    ("docker_context", "Archive with a Dockerfile"),
                    ("image_archive", "Image archive"),
                    ("image_reference", "Image in a registry"),
                ],
                max_length=16,
            ),
        ),
    ]
