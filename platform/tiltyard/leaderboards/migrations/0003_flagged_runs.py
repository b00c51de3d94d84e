"""The marked runs beside each board's statistics, those that are there already included."""

from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def note_flagged(apps: Apps, _editor: BaseDatabaseSchemaEditor) -> None:
    for stored in apps.get_model("leaderboards", "BoardStatistics").objects.all():
        entries = stored.document.get("entries", {})
        stored.flagged = [run for run, entry in entries.items() if (entry.get("excess") or {}).get("flagged")]
        stored.save(update_fields=["flagged"])


class Migration(migrations.Migration):
    dependencies = [("leaderboards", "0002_summaries")]

    operations = [
        migrations.AddField("boardstatistics", "flagged", models.JSONField(default=list)),
        migrations.RunPython(note_flagged, migrations.RunPython.noop),
    ]
