// Bun's own publish to a topic.
import { existsSync } from "node:fs";

const rate = Number(process.argv[2]);
const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch(request, server) {
    return server.upgrade(request) ? undefined : new Response("websocket", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    open(socket) { socket.subscribe("s"); },
    message() {},
  },
});
console.log(`ready ${server.port}`);
let seq = 0;
let start;
function say() {
  while ((performance.now() - start) * rate / 1000 > seq) {
    seq += 1;
    const now = (performance.timeOrigin + performance.now()).toFixed(6);
    server.publish("s", `{"op":"prediction","model":"nhits-vol-quantile","series":"s","seq":${seq},"epoch":1,"ts":0,"accepted_at":0,"made_at":${now},"horizon":1,"mean":[0.5],"intervals":[],"model_version":"1","backend":"cpu","degraded":false}`);
  }
  setTimeout(say, 1);
}
const go = setInterval(() => {
  if (!existsSync(process.argv[3])) return;
  clearInterval(go);
  start = performance.now();
  say();
}, 10);
