// node reader.js <asterisk-manager|asterisk-ami-client> <port> <secret>: logs in, reads one header of every event until BenchEnd, and tells
// how many there were and the CPU time since the first, in microseconds.
const [name, port, secret] = process.argv.slice(2);
let events = 0, seen = 0, began;

function tell() {
  const used = process.cpuUsage(began);
  console.log(JSON.stringify({ events, cpu_us: used.user + used.system }));
  process.exit(0);
}

function heard(event, uniqueid) {
  if (event === 'BenchBegin') began = process.cpuUsage();
  if (uniqueid !== undefined) events += 1;
  if (event === 'BenchEnd') tell();
}

setInterval(() => {  // one that loses the end, or stops reading, tells what it read
  if (events > 0 && events === seen) tell();
  seen = events;
}, 3000);

if (name === 'asterisk-manager') {
  const manager = new (require('asterisk-manager'))(Number(port), '127.0.0.1', 'vochid', secret, true);
  manager.on('managerevent', (event) => heard(event.event, event.uniqueid));
} else {
  const client = new (require('asterisk-ami-client'))();
  client.connect('vochid', secret, { host: '127.0.0.1', port: Number(port) })
    .then(() => client.on('event', (event) => heard(event.Event, event.Uniqueid)))
    .catch((error) => { console.error(error); process.exit(1); });
}
