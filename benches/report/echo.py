"""The exercise that wsferry grew out of: a whole file as one Base64 text message, saved and echoed back.

    echo.py serve PORT FILE [MEMORY]    echo.py send PORT FILE [MEMORY]

Each writes the most memory it had, in KiB, to the file MEMORY.
"""

import asyncio
import base64
import resource
import sys

from autobahn.asyncio.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)

role, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class Server(WebSocketServerProtocol):
    def onMessage(self, payload, is_binary):
        with open(path, "wb") as file:
            file.write(base64.b64decode(payload))
        self.sendMessage(payload, isBinary=False)

    def onClose(self, *_):
        asyncio.get_event_loop().stop()


class Client(WebSocketClientProtocol):
    def onOpen(self):
        with open(path, "rb") as file:
            self.text = base64.b64encode(file.read())
        self.sendMessage(self.text, isBinary=False)

    def onMessage(self, payload, is_binary):
        assert payload == self.text
        self.sendClose(1000)

    def onClose(self, *_):
        asyncio.get_event_loop().stop()


loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
if role == "serve":
    factory = WebSocketServerFactory()
    factory.protocol = Server
    factory.setProtocolOptions(closeHandshakeTimeout=0)
    loop.run_until_complete(loop.create_server(factory, "127.0.0.1", port))
else:
    factory = WebSocketClientFactory()
    factory.protocol = Client
    factory.setProtocolOptions(closeHandshakeTimeout=0)
    loop.run_until_complete(loop.create_connection(factory, "127.0.0.1", port))
loop.run_forever()
for memory in sys.argv[4:]:
    with open(memory, "w") as file:
        file.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
