"""A participant's API tokens: make one, see its text once, revoke it."""

from datetime import timedelta

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from tiltyard.accounts.models import ApiToken
from tiltyard.web.access import signed_in_user

_TOKENS_MAX = 20
_DAYS = [("30", "30 days"), ("90", "90 days"), ("365", "a year"), ("", "no end")]
_DAYS_DEFAULT = "90"


class TokenForm(forms.Form):
    name = forms.CharField(max_length=80, label="Name", help_text="Where you will use it, such as “laptop”.")
    scope = forms.ChoiceField(
        choices=ApiToken.Scope.choices, label="It may", required=False, initial=ApiToken.Scope.SUBMIT
    )
    days = forms.ChoiceField(choices=_DAYS, label="It works for", required=False, initial=_DAYS_DEFAULT)

    def issue(self, request: HttpRequest) -> str:
        """The text of a new token with what the form says; what it leaves out is as the empty form shows it."""
        user = signed_in_user(request)
        if user is None:
            raise Http404
        days = self.cleaned_data["days"] if "days" in self.data else _DAYS_DEFAULT
        _, text = ApiToken.issue(
            user,
            self.cleaned_data["name"],
            scope=self.cleaned_data["scope"] or ApiToken.Scope.SUBMIT,
            lifetime=timedelta(days=int(days)) if days else None,
        )
        return text


@login_required
@never_cache
@require_http_methods(["GET", "POST"])
def tokens(request: HttpRequest) -> HttpResponse:
    """The list, and the form that adds to it. The new token's text is in the answer to the form and nowhere else."""
    user = signed_in_user(request)
    if user is None:
        raise Http404
    form = TokenForm(request.POST if request.method == "POST" else None)
    text = None
    if request.method == "POST" and form.is_valid():
        if user.api_tokens.count() >= _TOKENS_MAX:
            form.add_error("name", f"You have {_TOKENS_MAX} tokens, which is the most. Revoke one that you do not use.")
        else:
            text = form.issue(request)
            form = TokenForm()
    return render(request, "account/tokens.html", {"form": form, "tokens": user.api_tokens.all(), "new_token": text})


@login_required
@require_POST
def revoke_token(request: HttpRequest, token_id: int) -> HttpResponse:
    token = get_object_or_404(ApiToken, pk=token_id, user=signed_in_user(request))
    token.delete()
    messages.success(request, f"The token “{token.name}” is revoked. Programs that use it are refused from now on.")
    return redirect("tokens")
