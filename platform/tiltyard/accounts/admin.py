"""Accounts and tokens in the admin. A token's text is nowhere to be seen; it can only be revoked."""

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.http import HttpRequest

from tiltyard.accounts.models import ApiToken, User

admin.site.register(User, UserAdmin)


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["name", "user", "scope", "created_at", "expires_at", "last_used_at"]
    list_filter = ["scope"]
    search_fields = ["name", "user__username"]
    list_select_related = ["user"]
    fields = ["name", "user", "scope", "created_at", "expires_at", "last_used_at"]
    readonly_fields = ["name", "user", "scope", "created_at", "expires_at", "last_used_at"]

    def has_add_permission(self, _request: HttpRequest) -> bool:
        return False
