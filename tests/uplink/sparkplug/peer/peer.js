// Payloads by a stack that is not ours: a JSON request on each line in, a JSON answer on each line out.
//   {"op": "decode", "hex"}     what sparkplug-payload understands
//   {"op": "raw", "hex"}        the fields, by the official schema alone
//   {"op": "encode", "payload"} sparkplug-payload's bytes, as hex
//   {"op": "write", "message"}  the bytes of the official schema, as hex
"use strict";
const readline = require("readline");
const { decodePayload, encodePayload } = require("sparkplug-payload/lib/sparkplugbpayload.js");
const { Payload } = require("sparkplug-payload/lib/sparkplugPayloadProto.js").org.eclipse.tahu.protobuf;

const shown = (key, value) => {
  if (value && value.type === "Buffer") return { hex: Buffer.from(value.data).toString("hex") };
  if (value instanceof Uint8Array) return { hex: Buffer.from(value).toString("hex") };
  if (value && typeof value === "object" && typeof value.toNumber === "function") return value.toString();
  if (value && typeof value === "object" && "low" in value && "high" in value && "unsigned" in value)
    return ((BigInt(value.high) << 32n) + BigInt(value.low >>> 0)).toString();
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  return value;
};

const operations = {
  decode: ({ hex }) => decodePayload(Buffer.from(hex, "hex")),
  raw: ({ hex }) => Payload.toObject(Payload.decode(Buffer.from(hex, "hex")), { longs: String, bytes: Array }),
  encode: ({ payload }) => Buffer.from(encodePayload(payload)).toString("hex"),
  write: ({ message }) => Buffer.from(Payload.encode(Payload.fromObject(message)).finish()).toString("hex"),
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  let answer;
  try {
    const request = JSON.parse(line);
    answer = { ok: operations[request.op](request) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(answer, shown) + "\n");
});
