// A host application that follows edge nodes: "TOPIC HEX" on each line in, one JSON object on each line out:
// what the message said, and under "faults" what a host would complain about. Built on sparkplug-payload.
"use strict";
const readline = require("readline");
const { decodePayload } = require("sparkplug-payload/lib/sparkplugbpayload.js");
const { Payload } = require("sparkplug-payload/lib/sparkplugPayloadProto.js").org.eclipse.tahu.protobuf;

const nodes = new Map(); // "group/node" → { seq, bdSeq, metrics: alias → { name, type, device }, devices }

function decode(hex, types) {
  const message = Payload.decode(Buffer.from(hex, "hex"));
  for (const metric of message.metrics) {
    if (!metric.hasOwnProperty("datatype") && types.has(String(metric.alias)))
      metric.datatype = types.get(String(metric.alias)).type;
  }
  return { message, payload: decodePayload(Payload.encode(message).finish()) };
}

function announce(node, message, device, faults) {
  for (const metric of message.metrics) {
    if (!metric.hasOwnProperty("name")) faults.push("a metric without a name in a birth");
    if (!metric.hasOwnProperty("datatype")) faults.push(`${metric.name} without a datatype in a birth`);
    if (!metric.hasOwnProperty("timestamp")) faults.push(`${metric.name} without a timestamp`);
    if (!metric.hasOwnProperty("alias")) continue;
    const alias = String(metric.alias);
    const known = node.metrics.get(alias);
    if (known && (known.device !== device || known.name !== metric.name))
      faults.push(`alias ${alias} for ${known.device}/${known.name} and ${device}/${metric.name}`);
    node.metrics.set(alias, { name: metric.name, type: metric.datatype, device });
  }
}

function follow(topic, hex) {
  const [namespace, group, kind, name, device = ""] = topic.split("/");
  const faults = [];
  if (namespace !== "spBv1.0") return { topic, faults: ["another namespace"] };
  const key = `${group}/${name}`;
  if (kind === "NBIRTH") nodes.set(key, { seq: null, bdSeq: null, metrics: new Map(), devices: new Set() });
  const node = nodes.get(key);
  if (!node) return { topic, kind, faults: kind === "NDEATH" ? [] : ["before any NBIRTH"] };
  const { message, payload } = decode(hex, node.metrics);
  const seq = payload.seq === undefined ? null : Number(payload.seq);
  if (kind === "NDEATH") {
    const bdSeq = Number(payload.metrics.find((metric) => metric.name === "bdSeq").value);
    if (bdSeq !== node.bdSeq) faults.push(`NDEATH of ${bdSeq}, alive is ${node.bdSeq}`);
    if (seq !== null) faults.push("NDEATH with a seq");
    nodes.delete(key);
    return { topic, kind, bdSeq, faults };
  }
  if (kind === "NCMD" || kind === "DCMD") return { topic, kind, faults };
  if (seq === null || seq < 0 || seq > 255) faults.push(`seq ${seq}`);
  if (node.seq !== null && seq !== (node.seq + 1) % 256) faults.push(`gap: ${seq} after ${node.seq}`);
  node.seq = seq;
  if (kind === "NBIRTH") {
    node.bdSeq = Number(payload.metrics.find((metric) => metric.name === "bdSeq").value);
    const rebirth = payload.metrics.find((metric) => metric.name === "Node Control/Rebirth");
    if (!rebirth || rebirth.value !== false || rebirth.alias !== undefined) faults.push("no Node Control/Rebirth");
  }
  if (kind === "NBIRTH" || kind === "DBIRTH") announce(node, message, device, faults);
  if (kind === "DBIRTH") node.devices.add(device);
  if (kind === "DDATA" && !node.devices.has(device)) faults.push(`DDATA of ${device} before its DBIRTH`);
  if (kind === "DDEATH" && !node.devices.delete(device)) faults.push(`DDEATH of ${device}, which is not alive`);
  const values = (payload.metrics || []).map((metric, index) => {
    const known = metric.alias === undefined ? null : node.metrics.get(String(metric.alias));
    if (kind.endsWith("DATA") && (!known || known.device !== device)) faults.push(`unknown alias ${metric.alias}`);
    if (kind.endsWith("DATA") && metric.name !== undefined) faults.push(`name ${metric.name} in data`);
    return {
      name: metric.name !== undefined ? metric.name : known && known.name,
      value: metric.value === null || metric.value === undefined ? null : metric.value,
      timestamp: String(metric.timestamp),
      historical: metric.isHistorical === true,
      quality: metric.properties && metric.properties.Quality ? metric.properties.Quality.value : 192,
    };
  });
  return { topic, kind, device, seq, bdSeq: node.bdSeq, values, faults };
}

const shown = (key, value) => {
  if (value && typeof value === "object" && "low" in value && "high" in value && "unsigned" in value)
    return Number((BigInt(value.high) << 32n) + BigInt(value.low >>> 0));
  return value;
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const space = line.lastIndexOf(" ");
  let said;
  try {
    said = follow(line.slice(0, space), line.slice(space + 1));
  } catch (error) {
    said = { topic: line.slice(0, space), faults: [String(error)] };
  }
  process.stdout.write(JSON.stringify(said, shown) + "\n");
});
