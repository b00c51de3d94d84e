"""Exit 0 when the web server in this container answers its home page as it would to the proxy."""

import http.client
import os
import sys

HOST = os.environ["TILTYARD_ALLOWED_HOSTS"].split(",")[0].strip()

connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=4)
# As the proxy says it for a visitor with https; without it, production answers with a redirect.
connection.request("GET", "/", headers={"Host": HOST, "X-Forwarded-Proto": "https"})
sys.exit(connection.getresponse().status != http.client.OK)
