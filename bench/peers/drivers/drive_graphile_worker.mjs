// graphile-worker: a local queue and completion in batches, as its page on performance recommends.
import { dsn, main, order, require } from './driver.mjs';

const { Logger, makeWorkerUtils, run, runMigrations } = require('graphile-worker');

const { settings } = order;
const logger = new Logger(() => () => {});
let utils;

await main({
  async install() {
    await runMigrations({ connectionString: dsn, logger });
  },
  async connect(connections) {
    utils = await makeWorkerUtils({ connectionString: dsn, maxPoolSize: connections, logger });
  },
  async enqueue(payload) {
    await utils.addJob('noop', payload);
  },
  async fill(kind, payloads) {
    await utils.addJobs(payloads.map((payload) => ({ identifier: kind, payload })));
  },
  async work(recorder) {
    const worker = {
      connectionString: dsn,
      concurrentJobs: settings.concurrency,
      localQueue: { size: settings.local_queue, refetchDelay: { durationMs: 10 } },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
    };
    const noop = async (payload) => { recorder.hit(payload); };
    await run({ preset: { worker }, logger, taskList: { noop } });
  },
});
