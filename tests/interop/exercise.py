"""The exercise in Python: a whole file as one Base64 text message, saved by the server and echoed back.

    exercise.py LIBRARY client URL FILE frame|fragments
    exercise.py LIBRARY server PORT FILE frame|fragments

LIBRARY is autobahn or websockets. A client compares the echo with what it sent; a server saves one file and ends.
"""

import asyncio
import base64
import sys

FRAGMENT = 50_000

library, role, where, path, how = sys.argv[1:]
in_fragments = how == "fragments"


def text_of_file():
    with open(path, "rb") as file:
        return base64.b64encode(file.read()).decode()


def save(text):
    with open(path, "wb") as file:
        file.write(base64.b64decode(text, validate=True))


def fragments(text):
    return [text[at : at + FRAGMENT] for at in range(0, len(text), FRAGMENT)] or [""]


async def websockets_client():
    from websockets.asyncio.client import connect

    text = text_of_file()
    async with connect(where, max_size=None, compression=None) as socket:
        sending = asyncio.create_task(socket.send(fragments(text) if in_fragments else text))
        echo = await socket.recv()
        await sending
    assert echo == text, "the echo is another text"


async def websockets_server():
    from websockets.asyncio.server import serve

    done = asyncio.get_running_loop().create_future()

    async def handle(socket):
        text = await socket.recv()
        save(text)
        await socket.send(fragments(text) if in_fragments else text)
        await socket.wait_closed()
        done.set_result(None)

    async with serve(handle, "127.0.0.1", int(where), max_size=None, compression=None):
        print("ready", flush=True)
        await done


def size():
    return FRAGMENT if in_fragments else None


async def autobahn_client():
    from urllib.parse import urlsplit

    from autobahn.asyncio.websocket import WebSocketClientFactory, WebSocketClientProtocol

    done = asyncio.get_running_loop().create_future()

    class Client(WebSocketClientProtocol):
        def onOpen(self):
            self.text = text_of_file().encode()
            self.sendMessage(self.text, isBinary=False, fragmentSize=size())

        def onMessage(self, payload, isBinary):
            self.same = not isBinary and payload == self.text
            self.sendClose(1000)

        def onClose(self, clean, code, reason):
            if not done.done():
                done.set_result((getattr(self, "same", False), code, reason))

    url = urlsplit(where)
    factory = WebSocketClientFactory(where)
    factory.protocol = Client
    await asyncio.get_running_loop().create_connection(factory, url.hostname, url.port)
    same, code, reason = await done
    assert same, f"the echo is another text, or none: {code} {reason}"


async def autobahn_server():
    from autobahn.asyncio.websocket import WebSocketServerFactory, WebSocketServerProtocol

    done = asyncio.get_running_loop().create_future()

    class Server(WebSocketServerProtocol):
        def onMessage(self, payload, isBinary):
            save(payload)
            self.sendMessage(payload, isBinary=isBinary, fragmentSize=size())

        def onClose(self, clean, code, reason):
            if not done.done():
                done.set_result(None)

    factory = WebSocketServerFactory()
    factory.protocol = Server
    await asyncio.get_running_loop().create_server(factory, "127.0.0.1", int(where))
    print("ready", flush=True)
    await done


asyncio.run(globals()[f"{library}_{role}"]())
