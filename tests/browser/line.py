"""A line between browser and server that can be cut, as a tunnel, a lift or a sleeping phone do it.

`Line(port).url` leads to the server at that port; `cut()` breaks every connection, and new ones until `mend()`.
"""

import contextlib
import socket
import threading


class Line:
    def __init__(self, port: int):
        self.port, self.whole = port, threading.Event()
        self.whole.set()
        self.open: set[socket.socket] = set()
        self.door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.door.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.whole.clear()
        for end in list(self.open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.whole.set()

    def close(self) -> None:
        self.door.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the door is closed
            while True:
                near, _ = self.door.accept()
                if not self.whole.is_set():
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.port))
                self.open |= {near, far}
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread of the other direction
            end.close()
        self.open -= {source, target}
