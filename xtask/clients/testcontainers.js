// Testcontainers for Node.
const { GenericContainer, Network, Wait } = require('testcontainers');
const say = (name, value) => console.log(`${name}: ${JSON.stringify(value)}`);

(async () => {
  const box = await new GenericContainer('busybox')
    .withCommand(['sh', '-c', 'echo is up; sleep 100'])
    .withEnvironment({ A: 'b' })
    .withCopyContentToContainer([{ content: 'copied', target: '/copied' }])
    .withWaitStrategy(Wait.forLogMessage('is up'))
    .start();
  say('exec', await box.exec(['sh', '-c', 'echo $A; cat /copied']));
  await box.restart();
  say('after restart', (await box.exec(['echo', 'again'])).exitCode);
  await box.stop();
  const network = await new Network().start();
  const server = await new GenericContainer('busybox')
    .withCommand(['sh', '-c', 'mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www'])
    .withNetwork(network).withNetworkAliases('server').start();
  const client = await new GenericContainer('busybox').withCommand(['sleep', '100']).withNetwork(network).start();
  const fetch = 'for i in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://server/ && exit; sleep 0.3; done; exit 1';
  say('by alias', (await client.exec(['sh', '-c', fetch])).output);
  await Promise.all([client.stop(), server.stop()]);
  await network.stop();
})().catch((error) => { console.log(`failed: ${error.stack}`); process.exit(1); });
