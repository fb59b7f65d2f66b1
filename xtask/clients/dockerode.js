// dockerode: what programs in JavaScript do.
const { PassThrough } = require('stream');
const Docker = require('dockerode');
const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace('unix://', '') });
const say = (name, value) => console.log(`${name}: ${JSON.stringify(value)}`);
const refused = async (name, call) => {
  try { await call(); say(name, 'done'); } catch (error) { say(name, [error.statusCode, error.json && error.json.message]); }
};
const text = () => {
  const stream = new PassThrough();
  const pieces = [];
  stream.on('data', (piece) => pieces.push(piece));
  stream.text = () => Buffer.concat(pieces).toString();
  return stream;
};
const ended = (stream) => new Promise((done) => { stream.on('end', done); stream.on('close', done); });

(async () => {
  say('ping', (await docker.ping()).toString());
  say('version', (await docker.version()).ApiVersion);
  const out = text();
  const [result, container] = await docker.run('busybox', ['sh', '-c', 'echo run; exit 2'], out, { Tty: true });
  say('run', [result.StatusCode, out.text()]);
  await container.remove();
  const box = await docker.createContainer({
    Image: 'busybox', name: 'box', Cmd: ['sh', '-c', 'read line; echo got $line; echo err >&2; sleep 100'],
    OpenStdin: true, StdinOnce: true, Labels: { of: 'test' }, HostConfig: { Memory: 64 << 20 },
  });
  const stream = await box.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  const [stdout, stderr] = [text(), text()];
  box.modem.demuxStream(stream, stdout, stderr);
  await box.start();
  stream.write('typed\n');
  while (!stderr.text()) await new Promise((done) => setTimeout(done, 20));
  say('attached', [stdout.text(), stderr.text()]);
  const exec = await box.exec({ Cmd: ['sh', '-c', 'cat; exit 7'], AttachStdin: true, AttachStdout: true });
  const input = await exec.start({ hijack: true, stdin: true });
  const echoed = text();
  box.modem.demuxStream(input, echoed, echoed);
  input.write('through');
  input.end();
  await ended(input);
  say('exec', [echoed.text(), (await exec.inspect()).ExitCode]);
  say('inspect', (({ State, HostConfig, Name }) => [State.Status, HostConfig.Memory, Name])(await box.inspect()));
  say('list', (await docker.listContainers({ filters: { label: ['of=test'] } })).map((one) => [one.Names, one.State]));
  const logs = await box.logs({ stdout: true, stderr: false });
  say('logs', logs.subarray(8).toString());
  await refused('taken', () => docker.createContainer({ Image: 'busybox', name: 'box' }));
  await refused('missing', () => docker.getContainer('nosuch').inspect());
  await refused('wrong', () => docker.createContainer({ Image: 'busybox', Tty: 'x' }));
  await refused('no image', () => docker.createContainer({ Image: 'nosuchimage:local' }));
  const waited = box.wait();
  await box.kill();
  say('waited', await waited);
  await box.remove({ v: true });
  const network = await docker.createNetwork({ Name: 'net', Labels: { of: 'test' } });
  say('networks', (await docker.listNetworks({ filters: { name: ['^net$'] } })).map((one) => [one.Name, one.Driver]));
  await network.remove();
  const volume = await docker.createVolume({ Name: 'vol' });
  say('volume', (await docker.getVolume('vol').inspect()).Name);
  await volume.remove();
  await refused('no volume', () => docker.getVolume('vol').inspect());
  say('history', (await docker.getImage('busybox').history()).length > 0);
})().catch((error) => { console.log(`failed: ${error.stack}`); process.exit(1); });
