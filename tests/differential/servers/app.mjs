// What Node's http server runs; as app.py.
import { openSync, writeSync } from "node:fs";
import { createServer } from "node:http";

const ledger = openSync(process.env.LEDGER, "a");

const server = createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("error", () => {});
  request.on("end", () => {
    const id = request.headers["x-request-id"] ?? "-";
    const body = Buffer.concat(pieces).toString("hex") || "-";
    writeSync(ledger, Buffer.from(`${id} 200 ${request.method} ${request.url} ${body}\n`, "latin1"));
    response.setHeader("X-Echo", `${id} ${request.method} ${request.url}`);
    response.end("ok\n");
  });
});
server.keepAliveTimeout = 600_000;
server.listen(Number(process.env.PORT), "127.0.0.1");
