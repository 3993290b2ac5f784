"""The least of wsferry.v1 that resumes, from src/protocol/PROTOCOL.md alone: no features, one file at a time.

    minimal.py send FILE URL [--cut BYTES]
    minimal.py receive DIR PORT [--cut BYTES]

Every connection ends with a line of JSON about the bytes of chunks that crossed on it. --cut hangs up without
a word after so many bytes, a receiver once. The sender waits for the answer to each thing that it sends, and
the receiver keeps whole blocks only: client.py fills a window, and keeps what is begun of a block as well.
"""

import base64, collections, json, os, pathlib, re, socket, sys, threading, zlib

from blake3 import blake3
from websockets.exceptions import ConnectionClosed
from websockets.sync import client, server

BLOCK, CHUNK, FRAME = 3 << 20, 3 << 16, 4_194_352
OPTIONS = {"subprotocols": ["wsferry.v1"], "compression": None, "max_size": FRAME}
HEAD = re.compile("(C ([0-9a-f]{8}) ([0-9a-f]{12}) ([0-9a-f]{14}) )([0-9a-f]{8}) ")
NOT_IN_NAMES = re.compile(r"[\\\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def blocks_of(size):
    return [(at, min(at + BLOCK, size)) for at in range(0, size, BLOCK)]


def numbers(runs):
    return {block for first, count in runs for block in range(first, first + count)}


def runs(blocks):
    pairs = []
    for block in sorted(blocks):
        if pairs and sum(pairs[-1]) == block:
            pairs[-1][1] += 1
        else:
            pairs.append([block, 1])
    return pairs[:64]


class Peer:
    def __init__(self, connection, cut):
        self.connection, self.cut, self.crossed = connection, cut, 0

    def tell(self, kind, **fields):
        text = json.dumps({"type": kind, **fields})
        self.connection.send(f"M {zlib.crc32(text.encode()):08x} {text}")

    def hear(self):
        """The next control message; a chunk's frame as one of the type `chunk`."""
        try:
            frame = self.connection.recv(timeout=15, decode=True)
        except TimeoutError:
            self.tell("ping", token=0)
            frame = self.connection.recv(timeout=15, decode=True)  # nothing for 30 s ends the connection
        if frame[:1] == "C":
            return {"type": "chunk", "frame": frame}
        if frame[:11] != f"M {zlib.crc32(frame[11:].encode()):08x} ":
            raise ValueError(f"expected a control message with its CRC-32, got {frame[:20]!r}")
        message = json.loads(frame[11:])
        if message["type"] == "error":
            raise ConnectionError(message)
        if message["type"] == "ping":
            self.tell("pong", token=message["token"])
        return message

    def count(self, data):
        self.crossed += len(data)
        if self.cut and self.crossed >= self.cut:
            self.connection.socket.shutdown(socket.SHUT_RDWR)
            raise ConnectionError("cut")

    def play(self, role, subject):
        """A connection from `hello` to its end. True if a file that was sent has its receipt."""
        try:
            self.tell("hello", features=[], frame_limit=FRAME, window=BLOCK, offers=16, program="minimal.py")
            hello = self.hear()
            if hello["type"] != "hello":
                raise ValueError(f"expected hello first, got {hello['type']}")
            return role(self, subject, hello["frame_limit"])
        except (LookupError, TypeError, ValueError) as violation:
            self.tell("error", code="protocol", reason=repr(violation)[:300])
            self.connection.close(1002)
        except (OSError, ConnectionClosed) as end:
            print(repr(end), file=sys.stderr)
        finally:
            print(json.dumps({"sent" if role is send else "received": self.crossed}), flush=True)


def send(peer, path, frame_limit):
    data, mtime = path.read_bytes(), path.stat().st_mtime_ns
    blocks, digest = blocks_of(len(data)), blake3(data).hexdigest()
    version = blake3(f"{path.name} {len(data)} {mtime}".encode()).hexdigest()[:32]
    times = {"mtime": mtime // 10**9, "mtime_ns": mtime % 10**9}
    peer.tell("offer", transfer=0, id=version, path=path.name, size=len(data), **times)
    wanted = collections.deque()  # pieces to send; behind them blocks are compared, or not yet if all are there
    compare, put_off = set(), set()
    sequence, most, awaited = 0, min(CHUNK, (frame_limit - 48) // 4 * 3), "accept"
    while True:
        if not awaited and wanted:
            start, end = wanted.popleft()
            stop = min(end, start + most)
            if stop < end:
                wanted.appendleft((stop, end))
            head, body = f"C {0:08x} {sequence:012x} {start:014x} ", data[start:stop]
            crc = zlib.crc32(body, zlib.crc32(head.encode()))
            peer.connection.send(f"{head}{crc:08x} {base64.b64encode(body).decode()}")
            peer.count(body)
            sequence, awaited = sequence + 1, "ack"
        elif not awaited and compare:
            asked, awaited = compare.pop(), "digests"
            peer.tell("check", transfer=0, first=asked, count=1)
        elif not awaited:
            peer.tell("finish", transfer=0, digest=digest)
            awaited = "receipt"
        message = peer.hear()
        match message["type"]:
            case "accept":
                held, begun, awaited = numbers(message.get("held", [])), dict(message.get("begun", [])), None
                todo = [block for block in range(len(blocks)) if block not in held]
                wanted.extend((blocks[block][0] + begun.get(block, 0), blocks[block][1]) for block in todo)
                whole = message.get("complete")
                compare, put_off = ({*held, *begun}, set()) if not whole else (set(), held)
            case "nak":
                wanted.appendleft((start, stop))
                most = max(3, most // 6 * 3)
            case "ack" if message["sequence"] == sequence and awaited == "ack":
                awaited = None
            case "digests":
                if base64.b64decode(message["digests"]) != blake3(data[slice(*blocks[asked])]).digest():
                    wanted.append(blocks[asked])
                awaited = None
            case "repair":
                named = numbers(message["blocks"])
                wanted.extend(blocks[block] for block in sorted(named))
                compare, put_off = (compare | put_off) - named, set()
                awaited = None if awaited == "receipt" else awaited
            case "receipt":
                return dict(message["files"])[0] == digest
            case "reject":
                raise ConnectionError(message)


class Incoming:
    """A partial file, and beside it the list of its whole blocks: no sender can give the name `.wsferry`."""

    def __init__(self, directory, offer):
        self.number, self.digest = offer["transfer"], offer.get("digest")
        self.final = directory / offer["path"]
        self.time, self.blocks = offer["mtime"] * 10**9 + offer["mtime_ns"], blocks_of(offer["size"])
        self.came, self.complete = collections.Counter(), self.final.exists()
        self.all = self.held = set(range(len(self.blocks)))
        self.part = self.final if self.complete else directory / ".wsferry" / (offer["id"] + ".part")
        self.list = directory / ".wsferry" / (offer["id"] + ".blocks")
        if not self.complete:
            self.list.parent.mkdir(exist_ok=True)
            self.list.touch()
            self.part.touch()
            self.held = self.all & set(map(int, self.list.read_text().split()))
        self.file = self.part.open("rb" if self.complete else "r+b", buffering=0)

    def put(self, offset, data):
        start, stop = self.blocks[offset // BLOCK]
        self.held.discard(offset // BLOCK)  # it is replaced; the list still names it, which is only a hint
        self.came[start] += len(data)
        if offset % 3 or offset + len(data) > stop or self.came[start] > stop - start:
            raise ValueError(f"expected a chunk with room in its block, got {len(data)} bytes at {offset}")
        self.file.seek(offset)
        self.file.write(data)
        if self.came[start] == stop - start:
            os.fsync(self.file.fileno())
            self.held.add(offset // BLOCK)
            del self.came[start]
            with self.list.open("a") as names:
                print(offset // BLOCK, file=names)

    def block_digest(self, block):
        start, stop = self.blocks[block]
        held = os.pread(self.file.fileno(), stop - start, start) if block in self.held else None
        return base64.b64encode(blake3(held).digest() if held else bytes(32)).decode()

    def seal(self, digest):
        """Gives the whole file its name; says what the sender is answered."""
        if blake3().update_mmap(self.part).hexdigest() != digest:
            self.list.unlink(missing_ok=True)
            code = "exists" if self.complete else "digest"
            return "reject", {"transfer": self.number, "code": code, "reason": "the digests differ"}
        if not self.complete:
            os.utime(self.part, ns=(self.time, self.time))
            os.fsync(self.file.fileno())
            os.link(self.part, self.final)
            self.part.unlink()
            self.list.unlink()
            directory = os.open(self.final.parent, os.O_RDONLY)
            os.fsync(directory)
            os.close(directory)
        return "receipt", {"files": [[self.number, digest]]}


def refusal(offer, directory):
    name, final = offer["path"], directory / offer["path"]
    if offer.get("kind", "file") != "file" or "/" in name:
        return "kind"
    reserved = name.lower() in ("", ".", "..", ".wsferry")
    if reserved or NOT_IN_NAMES.search(name) or len(name.encode()) > 255:
        return "name"
    same = final.is_file() and not final.is_symlink() and final.stat().st_size == offer["size"]
    return "exists" if os.path.lexists(final) and not same else None


def opened(frame, expected):
    """Transfer, offset and bytes of a chunk; nothing if it came damaged."""
    head = HEAD.match(frame)
    try:
        data = base64.b64decode(frame[48:], validate=True)
    except ValueError:
        return None
    if head and data and int(head[5], 16) == zlib.crc32(data, zlib.crc32(head[1].encode())):
        if int(head[3], 16) != expected:
            raise ValueError(f"expected chunk {expected}, got {head[3]}")
        return int(head[2], 16), int(head[4], 16), data


def receive(peer, directory, _):
    expected, incoming, offers = 0, None, []  # offers that wait for the file before theirs to end
    while True:
        message = offers.pop(0) if offers and not incoming else peer.hear()
        kind = message["type"]
        if kind == "chunk":
            chunk = opened(message["frame"], expected)
            if not chunk:
                peer.tell("nak", sequence=expected)
            elif incoming and incoming.number == chunk[0]:
                incoming.put(*chunk[1:])
                peer.count(chunk[2])
            expected += 1
            peer.tell("ack", sequence=expected)
        elif kind == "offer" and incoming:
            offers.append(message)
            continue
        elif kind == "offer":
            if not re.fullmatch("[0-9a-f]{32}", message["id"]):
                raise ValueError(f"expected an id of 32 hexadecimal digits, got {message['id']}")
            code = refusal(message, directory)
            if code:
                peer.tell("reject", transfer=message["transfer"], code=code, reason=code)
                continue
            incoming = Incoming(directory, message)
            if not (incoming.complete and incoming.digest):
                held, complete = runs(incoming.held), incoming.complete
                peer.tell("accept", transfer=incoming.number, held=held, complete=complete)
        elif kind == "cancel":
            offers = [offer for offer in offers if offer["transfer"] != message["transfer"]]
        if not incoming or message.get("transfer", incoming.number) != incoming.number:
            continue
        missing = incoming.all - incoming.held
        if kind == "cancel":
            incoming = None
        elif kind == "check":
            first = message["first"]
            peer.tell("digests", transfer=incoming.number, first=first, digests=incoming.block_digest(first))
        elif kind == "finish" and missing:
            incoming.came.clear()
            peer.tell("repair", transfer=incoming.number, blocks=runs(missing))
        elif kind == "finish" or (incoming.digest and not missing):
            answer, fields = incoming.seal(incoming.digest or message["digest"])
            peer.tell(answer, **fields)
            incoming = None


def main(role, subject, place, cut=0):
    if role == "send":
        with client.connect(place, proxy=None, **OPTIONS) as connection:
            whole = Peer(connection, cut).play(send, subject)
        sys.exit(0 if whole or cut else 1)
    subject.mkdir(exist_ok=True)
    one, cuts = threading.Lock(), [cut]

    def serve(connection):
        with one:
            Peer(connection, cuts.pop() if cuts else 0).play(receive, subject)

    with server.serve(serve, "127.0.0.1", int(place), origins=[None], **OPTIONS) as listening:
        print(json.dumps({"port": listening.socket.getsockname()[1]}), flush=True)
        listening.serve_forever()


if __name__ == "__main__":
    role, subject, place, *cut = sys.argv[1:]
    main(role, pathlib.Path(subject), place, *map(int, cut[1:]))
