"""A burst of requests is worked on a few at a time."""

import threading
import time

from django.http import HttpRequest, HttpResponse

from tiltyard.web.middleware import turns


def test_few_requests_are_worked_on_at_once() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def view(request: HttpRequest) -> HttpResponse:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        if request.path == "/broken":
            raise ValueError
        return HttpResponse("ok")

    ask, statuses = turns(view), list[int]()

    def client(number: int, method: str = "GET") -> None:
        request = HttpRequest()
        request.method = method
        request.path = "/broken" if number % 3 == 0 else "/"
        try:
            statuses.append(ask(request).status_code)
        except ValueError:
            statuses.append(500)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(statuses) == [200] * 8 + [500] * 4, "an error gives its turn back"
    assert most[0] == 3


def test_what_changes_something_takes_no_turn() -> None:
    all_here = threading.Barrier(6, timeout=20)

    def view(request: HttpRequest) -> HttpResponse:
        all_here.wait()
        return HttpResponse("ok")

    ask = turns(view)

    def client(method: str) -> None:
        request = HttpRequest()
        request.method = method
        ask(request)

    threads = [threading.Thread(target=client, args=(method,)) for method in ["GET"] * 3 + ["POST"] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert all_here.n_waiting == 0
    assert not all_here.broken
