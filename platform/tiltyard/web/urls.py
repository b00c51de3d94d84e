"""The site's pages, nested by resource."""

from django.urls import path

from tiltyard.web.views import competition, home, leaderboard, run, samples, submissions, submit, tokens

urlpatterns = [
    path("", home.home, name="home"),
    path("competitions/<slug:slug>/", competition.overview, name="competition"),
    path("competitions/<slug:slug>/tasks/", competition.tasks, name="competition-tasks"),
    path("competitions/<slug:slug>/rules/", competition.rules, name="competition-rules"),
    path("competitions/<slug:slug>/dates/", competition.dates, name="competition-dates"),
    path("competitions/<slug:slug>/pages/<slug:page_slug>/", competition.page, name="competition-page"),
    path("competitions/<slug:slug>/leaderboard/", leaderboard.leaderboard, name="leaderboard"),
    path("competitions/<slug:slug>/leaderboard.csv", leaderboard.leaderboard_csv, name="leaderboard-csv"),
    path("competitions/<slug:slug>/submissions/", competition.my_submissions, name="competition-submissions"),
    path("competitions/<slug:slug>/submit/", submit.submit, name="submit"),
    path("competitions/<slug:slug>/uploads/<uuid:upload_id>/discard/", submit.discard, name="upload-discard"),
    path("competitions/<slug:slug>/uploads/<uuid:upload_id>/hand-in/", submit.hand_in, name="upload-hand-in"),
    path("runs/<uuid:run_id>/", run.run_page, name="run"),
    path("runs/<uuid:run_id>/live/", run.live, name="run-live"),
    path("runs/<uuid:run_id>/results/", run.results, name="run-results"),
    path("runs/<uuid:run_id>/logs/", run.logs, name="run-logs"),
    path("runs/<uuid:run_id>/manifest/<slug:suite>/", run.manifest, name="run-manifest"),
    path("runs/<uuid:run_id>/cancel/", run.cancel, name="run-cancel"),
    path("runs/<uuid:run_id>/samples/", samples.samples, name="run-samples"),
    path("account/submissions/", submissions.submissions, name="submissions"),
    path("account/tokens/", tokens.tokens, name="tokens"),
    path("account/tokens/<int:token_id>/revoke/", tokens.revoke_token, name="token-revoke"),
]
