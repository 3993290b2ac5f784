"""A second implementation of wsferry.v1, from src/protocol/PROTOCOL.md alone: no features, so digests of plain bytes.

    client.py send FILE URL [--cut BYTES]
    client.py receive DIR PORT [--cut BYTES...]

Every connection ends with a line of JSON about the bytes of chunks that crossed on it. --cut hangs up without a word
after so many bytes: a receiver once for each number, and counts on over its connections. What minimal.py leaves out is
here: a window full of chunks in flight, a receiver that keeps what is begun of a block, several files at a time.
"""

import argparse
import base64
import json
import os
import re
import socket as tcp
import threading
from pathlib import Path
from zlib import crc32

from blake3 import blake3
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve

BLOCK, CHUNK, WINDOW, FRAME = 3 << 20, 192 << 10, 1 << 20, 4_194_352
HELLO = {"features": [], "frame_limit": FRAME, "window": WINDOW, "offers": 16, "program": "client.py"}
SOCKET = {"subprotocols": ["wsferry.v1"], "compression": None, "max_size": FRAME, "close_timeout": 3}
HEADER = re.compile("C ([0-9a-f]{8}) ([0-9a-f]{12}) ([0-9a-f]{14}) ([0-9a-f]{8}) (.+)")


class Violation(Exception):
    """What the peer broke, in words for it."""


def say(socket, kind, **fields):
    text = json.dumps({"type": kind, **fields})
    socket.send(f"M {crc32(text.encode()):08x} {text}")


def hear(socket):
    """The next chunk, as its text, or the next message that is about more than signs of life."""
    while True:
        try:
            text = socket.recv(timeout=20)
        except TimeoutError:
            say(socket, "ping", token=0)
            text = socket.recv(timeout=10)
        if text[:2] == "C ":
            return text
        if text[:2] != "M " or text[2:11] != f"{crc32(text[11:].encode()):08x} ":
            raise Violation(f"a chunk or a whole control message was expected, and {text[:11]!r} came")
        message = json.loads(text[11:])
        if message["type"] == "error":
            raise SystemExit(f"the peer ended it: {message}")
        if message["type"] == "ping":
            say(socket, "pong", token=message["token"])
        elif message["type"] != "pong":
            return message


def hang_up(socket):
    socket.socket.shutdown(tcp.SHUT_RDWR)


def report(**what):
    print(json.dumps(what), flush=True)


def extent(block, size):
    """Where a block begins and ends."""
    return block * BLOCK, min((block + 1) * BLOCK, size)


def blocks_of(runs):
    return {block for first, count in runs for block in range(first, first + count)}


def runs_of(blocks):
    """At most 64 runs; what is beyond is told another time."""
    runs = []
    for block in sorted(blocks):
        if runs and sum(runs[-1]) == block:
            runs[-1][1] += 1
        else:
            runs.append([block, 1])
    return runs[:64]


def block_digest(file, block, size):
    start, end = extent(block, size)
    return blake3(os.pread(file.fileno(), end - start, start)).digest()


def file_digest(path):
    return blake3().update_mmap(path).hexdigest()


def send(path, url, cut):
    about, file = os.stat(path), open(path, "rb")
    size, blocks = about.st_size, set(range(-(-about.st_size // BLOCK)))
    version = f"{path.name} {size} {about.st_mtime_ns} {about.st_mode}"
    with connect(url, proxy=None, **SOCKET) as socket:
        say(socket, "hello", **HELLO)
        say(socket, "offer", transfer=0, id=blake3(version.encode()).hexdigest()[:32], path=path.name, size=size,
            mtime=about.st_mtime_ns // 10**9, mtime_ns=about.st_mtime_ns % 10**9, mode=about.st_mode & 0o777)
        # Pieces still to be sent, blocks still to be compared, and what was sent and not acknowledged, by its number.
        pieces, compare, flight = None, set(), {}
        sequence = sent = 0
        chunk, window, asked, finishing = CHUNK, WINDOW, False, False
        while True:
            if pieces and (not flight or sum(b - a for a, b in flight.values()) + chunk <= window):
                start, end = pieces[0]
                end = min(start + chunk, end)
                pieces[0] = (end, pieces[0][1])
                if end == pieces[0][1]:
                    pieces.pop(0)
                data = os.pread(file.fileno(), end - start, start)
                header = f"C {0:08x} {sequence:012x} {start:014x} "
                body = base64.b64encode(data).decode()
                socket.send(f"{header}{crc32(data, crc32(header.encode())):08x} {body}")
                flight[sequence] = (start, end)
                sequence, sent = sequence + 1, sent + len(data)
                if cut is not None and sent >= cut:
                    hang_up(socket)
                    break
                continue
            if pieces == [] and not flight and compare and not asked:
                first, count = runs_of(compare)[0]
                say(socket, "check", transfer=0, first=first, count=min(count, 64))
                asked = True
            elif pieces == [] and not flight and not compare and not finishing:
                say(socket, "finish", transfer=0, digest=file_digest(path))
                finishing = True
            match hear(socket):
                case {"type": "hello", **theirs}:
                    chunk = min(chunk, (theirs["frame_limit"] - 48) // 4 * 3)
                    window = min(window, theirs["window"])
                case {"type": "accept", **accept}:
                    held, begun = blocks_of(accept.get("held", [])), dict(accept.get("begun", []))
                    # Of a file that is there already nothing is compared unless its digest turns out to be another.
                    held, compare = (blocks, set()) if accept.get("complete") else (held, held | set(begun))
                    pieces = [(extent(block, size)[0] + begun.get(block, 0), extent(block, size)[1])
                              for block in sorted(blocks - held)]
                case {"type": "ack", "sequence": below}:
                    flight = {number: piece for number, piece in flight.items() if number >= below}
                case {"type": "nak", "sequence": number}:
                    pieces.insert(0, flight.pop(number))
                    chunk = max(chunk // 6 * 3, 768)
                case {"type": "digests", "first": first, "digests": digests}:
                    digests, asked = base64.b64decode(digests), False
                    for block, at in enumerate(range(0, len(digests), 32), first):
                        if block in compare and digests[at : at + 32] != block_digest(file, block, size):
                            pieces.append(extent(block, size))
                        compare.discard(block)
                case {"type": "repair", "blocks": runs}:
                    if accept.pop("complete", False):
                        compare = set(blocks)
                    compare -= blocks_of(runs)
                    pieces += [extent(block, size) for block in sorted(blocks_of(runs))]
                    finishing = False
                case {"type": "receipt", "files": files}:
                    assert files == [[0, file_digest(path)]], files
                    break
                case {"type": "reject", **why}:
                    raise SystemExit(f"the receiver does not take it: {why}")
    report(sent=sent, cut=cut is not None and sent >= cut)


class Incoming:
    """A file that comes. `.NAME.part` and `.NAME.json` keep what came of it from one connection to the next."""

    def __init__(self, directory, offer):
        self.offer, self.size, self.target = offer, offer["size"], directory / offer["path"]
        self.part, self.journal = (directory / f".{offer['path']}.{end}" for end in ("part", "json"))
        journal = json.loads(self.journal.read_text()) if self.journal.exists() else {}
        known = journal.get("id") == offer["id"] and self.part.exists()
        self.there = self.target.exists()
        self.file = None if self.there else open(self.part, "r+b" if known else "w+b")
        # Of each block the lengths of what came, by offset.
        self.came = {block: {} for block in range(-(-self.size // BLOCK))}
        for block, length in journal["blocks"] if known else []:
            self.came[block] = {block * BLOCK: length}

    def first_bytes(self, block):
        start = at = block * BLOCK
        while at in self.came[block]:
            at += self.came[block][at]
        return at - start

    def is_held(self, block):
        return block * BLOCK + self.first_bytes(block) == extent(block, self.size)[1]

    def take(self, offset, data):
        block = offset // BLOCK
        start, end = extent(block, self.size)
        if offset % 3 or block not in self.came or offset + len(data) > end:
            raise Violation(f"a chunk within a block was expected, and {len(data)} bytes at {offset} came")
        # A first byte that is there already begins its block anew; one that was damaged only fills the gap.
        if offset == start and offset in self.came[block]:
            self.came[block] = {}
        self.came[block][offset] = len(data)
        os.pwrite(self.file.fileno(), data, offset)

    def keep(self):
        if self.file:
            os.fsync(self.file.fileno())
            blocks = [[block, self.first_bytes(block)] for block in self.came if self.came[block]]
            self.journal.write_text(json.dumps({"id": self.offer["id"], "blocks": blocks}))

    def publish(self):
        os.chmod(self.part, self.offer.get("mode") or 0o644)
        os.utime(self.part, ns=(self.offer["mtime"] * 10**9 + self.offer["mtime_ns"],) * 2)
        os.fsync(self.file.fileno())
        self.part.rename(self.target)
        self.journal.unlink(missing_ok=True)
        directory = os.open(self.target.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)


def parsed(text):
    """Transfer, sequence number, offset and bytes of a chunk; None of a damaged one."""
    try:
        *numbers, crc, body = HEADER.fullmatch(text).groups()
        data = base64.b64decode(body, validate=True)
    except (AttributeError, ValueError):
        return None
    whole = base64.b64encode(data).decode() == body and crc32(data, crc32(text[:39].encode())) == int(crc, 16)
    return (*(int(number, 16) for number in numbers), data) if whole else None


def accepted(socket, directory, offer):
    """What to do with an offer is said here; the file, if it is to come."""
    number, name = offer["transfer"], offer["path"]
    if offer.get("kind", "file") != "file" or offer.get("discard"):
        return say(socket, "reject", transfer=number, code="kind", reason="plain files only")
    if not re.fullmatch(r"\w[\w .,+-]*", name):
        return say(socket, "reject", transfer=number, code="name", reason="one component, of letters and digits")
    file = Incoming(directory, offer)
    if file.there and file.target.stat().st_size != file.size:
        return say(socket, "reject", transfer=number, code="exists", reason="a file of another size is there")
    if not (file.there and offer.get("digest")):
        held = {block for block in file.came if file.there or file.is_held(block)}
        begun = [[block, file.first_bytes(block)] for block in file.came if block not in held and file.first_bytes(block)]
        fields = {"held": runs_of(held), "begun": begun[:64], "complete": file.there}
        say(socket, "accept", transfer=number, **{name: value for name, value in fields.items() if value})
    return file


def conclude(socket, file, digest):
    """Answers `finish`, or what stands for it; whether the transfer has ended."""
    number = file.offer["transfer"]
    missing = [] if file.there else [block for block in file.came if not file.is_held(block)]
    if missing:
        for block in missing:
            file.came[block] = {}
        say(socket, "repair", transfer=number, blocks=runs_of(missing))
        return False
    if file_digest(file.target if file.there else file.part) != digest:
        code = "exists" if file.there else "digest"
        say(socket, "reject", transfer=number, code=code, reason="the digests differ")
    else:
        if not file.there:
            file.publish()
        say(socket, "receipt", files=[[number, digest]])
    return True


def receive_from(socket, directory, received, cuts):
    """Serves a connection to its end; `received` counts on."""
    say(socket, "hello", **HELLO)
    files, expected = {}, 0
    try:
        while True:
            match hear(socket):
                case str(text):
                    chunk = parsed(text)
                    if not chunk:
                        say(socket, "nak", sequence=expected)
                    elif chunk[1] != expected:
                        raise Violation(f"sequence number {expected} was expected, and {chunk[1]} came")
                    elif file := files[chunk[0]]:
                        file.take(*chunk[2:])
                        received += len(chunk[3])
                        if cuts and received >= cuts[0]:
                            cuts.pop(0)
                            hang_up(socket)
                            break
                    # A damaged frame is counted too: what it says about itself cannot be trusted.
                    expected += 1
                    say(socket, "ack", sequence=expected)
                case {"type": "offer", **offer}:
                    files[offer["transfer"]] = accepted(socket, directory, offer)
                case {"type": "check", "transfer": number, "first": first, "count": count}:
                    if file := files[number]:
                        blocks = range(first, min(first + count, first + 64))
                        digests = [block_digest(file.file, b, file.size) if file.is_held(b) else bytes(32) for b in blocks]
                        say(socket, "digests", transfer=number, first=first,
                            digests=base64.b64encode(b"".join(digests)).decode())
                case {"type": "cancel", "transfer": number}:
                    files[number] = None
                case {"type": "finish", "transfer": number, "digest": digest}:
                    if files[number] and conclude(socket, files[number], digest):
                        files[number] = None
            # No `finish` comes where the digest was offered.
            for number, file in files.items():
                digest = file and file.offer.get("digest")
                if digest and (file.there or all(map(file.is_held, file.came))) and conclude(socket, file, digest):
                    files[number] = None
    except (ConnectionClosed, SystemExit):
        pass
    except (Violation, KeyError) as why:
        say(socket, "error", code="protocol", reason=repr(why)[:300])
        socket.close(1002)
    finally:
        for file in filter(None, files.values()):
            file.keep()
    return received


def receive(directory, port, cuts):
    directory.mkdir(exist_ok=True)
    received, turn = 0, threading.Lock()

    def handle(socket):
        nonlocal received
        with turn:
            before, received = received, receive_from(socket, directory, received, cuts)
            report(received=received - before)

    with serve(handle, "127.0.0.1", port, **SOCKET) as server:
        report(port=server.socket.getsockname()[1])
        server.serve_forever()


parser = argparse.ArgumentParser()
parser.add_argument("role", choices=["send", "receive"])
parser.add_argument("path", type=Path)
parser.add_argument("where")
parser.add_argument("--cut", type=int, nargs="+", default=[])
arguments = parser.parse_args()
if arguments.role == "send":
    send(arguments.path, arguments.where, arguments.cut[0] if arguments.cut else None)
else:
    receive(arguments.path, int(arguments.where), arguments.cut)
