"""A network camera on loopback, for the tests of what watches streams."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from serving import make_picture


class Camera(ThreadingHTTPServer):
    """A network camera on loopback: MJPEG over HTTP at 25 frames a second, whose plug can be pulled."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _CameraHandler)
        self.level = 20
        self.plugged = True
        self.served = 0
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/camera.mjpg"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def end(self) -> None:
        self.plugged = False
        self.shutdown()
        self.server_close()
        self.thread.join()


class _CameraHandler(BaseHTTPRequestHandler):
    server: Camera

    def do_GET(self) -> None:
        if not self.server.plugged:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for _ in range(1500):
            if not self.server.plugged:
                return
            data = make_picture(self.server.level, size=(160, 120), kind="JPEG")
            self.wfile.write(f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode())
            self.wfile.write(data + b"\r\n")
            self.server.served += 1
            time.sleep(0.04)

    def log_message(self, format: str, *args: Any) -> None:
        pass
