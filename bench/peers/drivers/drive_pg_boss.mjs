// pg-boss: batches, woken by NOTIFY, the next batch at once after a full one; insert() for bulk.
import { dsn, main, order, require } from './driver.mjs';

const { PgBoss } = await import(require.resolve('pg-boss'));

const { settings } = order;
const queue = 'noop';
let boss;

async function start(options) {
  const started = new PgBoss({
    connectionString: dsn, supervise: false, schedule: false, ...options,
  });
  started.on('error', (error) => console.error(String(error)));
  await started.start();
  return started;
}

await main({
  async install() {
    boss = await start({ max: 2 });
    await boss.createQueue(queue, { notify: true });
  },
  async connect(connections) {
    boss = await start({ max: connections });
  },
  async enqueue(payload) {
    await boss.send(queue, payload);
  },
  async fill(kind, payloads) {
    await boss.insert(kind, payloads.map((data) => ({ data })));
  },
  async work(recorder) {
    boss = await start({ max: 10, useListenNotify: true });
    const options = { batchSize: settings.batch, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };
    await boss.work(queue, options, async (jobs) => {
      for (const job of jobs) recorder.hit(job.data);
    });
  },
});
