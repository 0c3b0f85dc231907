// What the Node drivers have in common: the same orders, and the same lines of a recorder, as
// driver.py and recorder.py. Called as `drive_PEER.mjs FILE`, by the node of the peer's folder.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

export const order = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
export const dsn = process.env.BENCH_DSN;
// The driver lies elsewhere than the packages that it drives.
export const require = createRequire(path.join(process.env.BENCH_PEER_FOLDER, 'driver.mjs'));

const BATCH = 10_000;
const now = () => Number(process.hrtime.bigint() / 1000n);
const sleep = (seconds) => new Promise((resolve) => { setTimeout(resolve, seconds * 1000); });
const payload = (number) => ({ id: number, pad: 'x'.repeat(70) });

class Recorder {
  #count = 0;

  #first = null;

  #last = null;

  #latencies = [];

  constructor(file) {
    const fd = fs.openSync(file, 'a');
    const tell = () => {
      const latencies = this.#latencies.splice(0);
      const line = {
        at: now(), count: this.#count, first: this.#first, last: this.#last, latencies,
      };
      fs.writeSync(fd, `${JSON.stringify(line)}\n`);
    };
    tell();
    setInterval(tell, 100);
  }

  hit(input) {
    this.#last = now();
    this.#first ??= this.#last;
    this.#count += 1;
    if (input?.sent) this.#latencies.push((this.#last - input.sent) / 1000);
  }
}

async function lasting(driver, seconds) {
  const began = now();
  let count = 0;
  await Promise.all(Array.from({ length: order.connections }, async () => {
    while (now() - began < seconds * 1e6) {
      await driver.enqueue(payload(count));
      count += 1;
    }
  }));
  return { rate: count / ((now() - began) / 1e6) };
}

const commands = {
  async install(driver) {
    await driver.install();
    return {};
  },
  async enqueue(driver) {
    await driver.connect(order.connections);
    await lasting(driver, order.seconds / 5); // statements get prepared, pools filled
    return lasting(driver, order.seconds);
  },
  async fill(driver) {
    await driver.connect(1);
    const began = now();
    for (let start = 0; start < order.count; start += BATCH) {
      const length = Math.min(BATCH, order.count - start);
      await driver.fill(order.kind, Array.from({ length }, (_, i) => payload(start + i)));
    }
    return { rate: order.count / ((now() - began) / 1e6), runs: [] };
  },
  async pickup(driver) {
    await driver.connect(1);
    for (let i = 0; i < order.count; i += 1) {
      await driver.enqueue({ ...payload(i), sent: now() });
      await sleep(order.gap);
    }
    return {};
  },
};

export async function main(driver) {
  if (order.command === 'work') {
    await driver.work(new Recorder(process.env.BENCH_TICKS));
    return;
  }
  const result = await commands[order.command](driver);
  fs.writeFileSync(order.result, JSON.stringify(result));
  process.exit(0);
}
