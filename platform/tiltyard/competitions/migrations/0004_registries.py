"""From which registries a competition takes images."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("competitions", "0003_columns_and_board_revision")]

    operations = [
        migrations.AddField(
            model_name="competition",
            name="registries",
            field=models.JSONField(default=list, blank=True),
        ),
    ]
