// The exercise with Node and `ws`: a whole file as one Base64 text message, saved by the server and echoed back.
//
//     exercise.cjs client URL FILE frame|fragments
//     exercise.cjs server PORT FILE frame|fragments
//
// A client compares the echo with what it sent; a server saves one file and ends.

const assert = require("node:assert");
const fs = require("node:fs");
const { WebSocket, WebSocketServer } = require("ws");

const FRAGMENT = 50_000;
const [role, where, path, how] = process.argv.slice(2);
const options = { maxPayload: 2 ** 30, perMessageDeflate: false };

function send(socket, text) {
  if (how !== "fragments") return socket.send(text);
  for (let at = 0; at === 0 || at < text.length; at += FRAGMENT) {
    socket.send(text.slice(at, at + FRAGMENT), { binary: false, fin: at + FRAGMENT >= text.length });
  }
}

if (role === "client") {
  const text = fs.readFileSync(path).toString("base64");
  const socket = new WebSocket(where, options);
  let same = false;
  socket.on("open", () => send(socket, text));
  socket.on("message", (echo, isBinary) => {
    same = !isBinary && echo.toString() === text;
    socket.close(1000);
  });
  socket.on("close", (code, reason) => assert(same, `the echo is another text, or none: ${code} ${reason}`));
} else {
  const server = new WebSocketServer({ host: "127.0.0.1", port: Number(where), ...options });
  server.on("listening", () => console.log("ready"));
  server.on("connection", (socket) => {
    socket.on("message", (data) => {
      const text = data.toString();
      fs.writeFileSync(path, Buffer.from(text, "base64"));
      send(socket, text);
    });
    socket.on("close", () => server.close());
  });
}
