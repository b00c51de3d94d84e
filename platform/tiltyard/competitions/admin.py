"""The organiser's view of competitions. What a bundle says is shown, not edited: change the bundle and import it."""

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from tiltyard.competitions.models import Competition, Page, Phase, Suite, Track


class ReadOnlyMixin:
    """Rows that only an import or a worker writes."""

    def has_add_permission(self, _request: HttpRequest, _obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, _request: HttpRequest, _obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Model | None = None) -> bool:
        return False


class _Inline(ReadOnlyMixin, admin.TabularInline):  # type: ignore[type-arg]
    extra = 0


class TrackInline(_Inline):
    model = Track
    fields = ["title", "slug", "hardware", "queue", "needs_gpu"]


class PhaseInline(_Inline):
    model = Phase
    fields = ["title", "starts_at", "ends_at", "daily_quota", "total_quota", "concurrent_quota"]


class SuiteInline(_Inline):
    model = Suite
    fields = ["title", "version", "visibility", "weight", "is_active", "sha256"]


class PageInline(_Inline):
    model = Page
    fields = ["title", "slug", "order"]


@admin.register(Competition)
class CompetitionAdmin(ReadOnlyMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["title", "slug", "is_public", "created_at"]
    inlines = [TrackInline, PhaseInline, SuiteInline, PageInline]
