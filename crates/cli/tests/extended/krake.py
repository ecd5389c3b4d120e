#!/usr/bin/env python3
"""The micro-service of an image made for Krake: asked over HTTP, it brings the data to safety and reports.

In the shape of the script in Krake's documentation: `http.server` with one thread, which answers first, works then, and
reports from that very thread; `urllib` stands for `requests`. It writes to the journal of `application.py` beside it:
`asked`, `saved` with what it found in the bucket's place, and `report-STATE` or `report-STATUS` for the answer it got.
"""

import argparse
import http.server
import json
import os
import pathlib
import urllib.error
import urllib.request


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("journal", type=pathlib.Path)
    parser.add_argument("--never", action="store_true", help="do not report")
    return parser.parse_args()


def note(event):
    instance = os.environ.get("QUIESCE_INSTANCE", "-").rsplit("/", 1)[-1]
    line = f"{event} {os.getpid()} {os.environ.get('QUIESCE_EPOCH', '-')} {instance}\n"
    journal = os.open(ARGS.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(journal, line.encode())
    os.close(journal)


def report():
    body = json.dumps({"token": os.environ["KRAKE_SHUTDOWN_TOKEN"]}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["KRAKE_SHUTDOWN_URL"], body, headers, method="PUT")
    # The address is on loopback, whatever the environment says of proxies.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as answer:
            return json.load(answer)["status"]["state"]
    except urllib.error.HTTPError as error:
        return error.code


class Handler(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        if self.path != "/shutdown":
            self.send_error(404)
            return
        note("asked")
        text = b"Graceful shutdown requested!"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        note("saved")
        if not ARGS.never:
            note(f"report-{report()}")


ARGS = arguments()
http.server.HTTPServer(("127.0.0.1", ARGS.port), Handler).serve_forever()
