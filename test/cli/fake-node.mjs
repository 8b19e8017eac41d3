// A node as the spawner sees it, led by a test over a socket: `fake-node.mjs <port of the test> <node id>`.
// The socket closes when this process ends, however it ends.
import { connect } from 'node:net';
import { createInterface } from 'node:readline';

const [port, id] = process.argv.slice(2);
const socket = connect(Number(port), '127.0.0.1');
const tell = (event) => socket.write(`${JSON.stringify(event)}\n`);
let deaf = false;

process.on('SIGTERM', () => {
  tell({ event: 'SIGTERM' });
  if (!deaf) socket.end(() => process.exit(0));
});
process.on('SIGHUP', () => tell({ event: 'SIGHUP' }));
process.once('disconnect', () => process.exit(0));

const commands = {
  send: (message) => process.send(message),
  print: (text) => process.stdout.write(text),
  writeToStderr: (text) => process.stderr.write(text),
  exit: (code) => process.exit(code),
  deafen: () => {
    deaf = true;
    tell({ event: 'deaf' });
  },
};
createInterface({ input: socket }).on('line', (line) => {
  const { command, argument } = JSON.parse(line);
  commands[command](argument);
});
socket.once('connect', () => tell({ event: 'started', id: Number(id), pid: process.pid }));
