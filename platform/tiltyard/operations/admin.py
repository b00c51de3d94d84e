"""The audit log in the admin: to be read, not to be changed, by organisers who may view audit entries."""

from django.contrib import admin

from tiltyard.competitions.admin import ReadOnlyMixin
from tiltyard.operations.models import AuditEntry


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["at", "actor_name", "source", "act", "status", "address"]
    list_filter = ["source", "actor_name"]
    search_fields = ["act", "actor_name"]
    date_hierarchy = "at"
