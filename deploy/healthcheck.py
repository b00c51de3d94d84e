"""Exit 0 when the web server in this container is ready: it, the database, the broker and the storage answer."""

import http.client
import os
import sys

HOST = os.environ["TILTYARD_ALLOWED_HOSTS"].split(",")[0].strip()

connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=4)
connection.request("GET", "/readyz", headers={"Host": HOST})
sys.exit(connection.getresponse().status != http.client.OK)
