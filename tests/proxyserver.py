"""An HTTP proxy on loopback, for GET by absolute address and for CONNECT; certificates of a private authority."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def admitted(self) -> bool:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.server.login and self.headers.get("Proxy-Authorization") != self.server.login:
            self.send_response(407)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False
        return True

    def do_GET(self) -> None:
        if not self.admitted():
            return
        parts = urlsplit(self.path)
        assert parts.hostname
        connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=30)
        kept = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
        connection.request("GET", parts.path, headers=kept)
        answer = connection.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name in ("Content-Range", "ETag", "WWW-Authenticate"):
            if value := answer.getheader(name):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        connection.close()

    def do_CONNECT(self) -> None:
        if not self.admitted():
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=30) as far:
            self.send_response(200)
            self.end_headers()
            pair = {self.connection: far, far: self.connection}
            while ready := select.select(list(pair), [], [], 30)[0]:
                for end in ready:
                    data = end.recv(1 << 16)
                    if not data:
                        self.close_connection = True
                        return
                    pair[end].sendall(data)

    def log_message(self, *_: object) -> None:
        pass


class Proxy(ThreadingHTTPServer):
    """asked: what it was asked for, as `GET http://…` or `CONNECT HOST:PORT`."""

    def __init__(self, *, login: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.login = login
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def handle_error(self, *_: object) -> None:
        pass

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class Authority:
    """A private certificate authority; `ca` is its certificate, `context` what a server of 127.0.0.1 needs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.ca = folder / "ca.pem"
        key, request, server_key, server = (folder / name for name in ("ca.key", "req", "server.key", "server.pem"))
        new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        self._run(*new, "-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", key, "-out", self.ca)
        self._run(*new, "-subj", "/CN=mirror", "-keyout", server_key, "-out", request)
        extensions = folder / "ext"
        extensions.write_text("subjectAltName=IP:127.0.0.1,IP:0:0:0:0:0:0:0:1\n")
        signing = ["openssl", "x509", "-req", "-days", "2", "-CAcreateserial", "-CA", self.ca, "-CAkey", key]
        self._run(*signing, "-in", request, "-extfile", extensions, "-out", server)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(server, server_key)

    @staticmethod
    def _run(*words: object) -> None:
        subprocess.run([str(word) for word in words], check=True, capture_output=True)
